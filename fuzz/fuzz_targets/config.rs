#![no_main]

#[path = "../../crates/ebb-hub/tests/hostile/mod.rs"]
#[allow(dead_code)]
mod hostile;

use hostile::{Reader, Target};
use libfuzzer_sys::fuzz_target;

thread_local!(static READER: Reader = Reader::new());

fuzz_target!(|bytes: &[u8]| {
    READER.with(|reader| reader.read(Target::Config, bytes));
});
