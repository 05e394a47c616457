//! Ctrl-C: the first asks the run to save and stop, the second ends the program.

use crate::exit::INTERRUPTED;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// The flag that a first SIGINT, SIGTERM or SIGHUP sets, from now on.
///
/// What is on disk survives the second one too: a run is what its last checkpoint covers.
pub fn flag() -> &'static AtomicBool {
    let on_signal = || {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        eprintln!("\nstopping after this step; once more ends at once");
    };
    // Without a handler (one is there already, or the system has none) a signal ends the program
    // as ever, and the run goes on from its last checkpoint.
    let _ = ctrlc::set_handler(on_signal);
    &STOP
}
