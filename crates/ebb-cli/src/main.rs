//! `ebb`: the program people touch.
//!
//! One file a verb under `verbs/`; everything a verb does is a call into a library crate. Results
//! go to standard output, progress and errors to standard error. The exit code is part of the
//! interface: see [`exit`].

mod around;
mod error;
mod exit;
mod interrupt;
mod language;
mod out;
mod place;
mod recipes;
mod show;
mod verbs;
mod watch;

use around::Around;
use clap::{CommandFactory, FromArgMatches, Parser};
use std::process::ExitCode;

/// Page faults of the system allocator were measured to cost a fifth of training time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Learn task after task without forgetting, and see what was forgotten.
#[derive(Parser)]
#[command(
    name = "ebb",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = AFTER_HELP
)]
struct Ebb {
    #[command(flatten)]
    around: Around,
    #[command(subcommand)]
    verb: verbs::Verb,
}

const AFTER_HELP: &str = "\
Examples:
  ebb learn                        a first run, on data that comes with the program
  ebb learn --method fine-tune     the same without any remedy against forgetting
  ebb report runs/* --open         both on one page, in the browser
  ebb compare runs/*               which is better, over seeds, and at what cost
  ebb methods show der++           what a method does, costs, and stands for
  ebb plan new.toml --matrix matrix what a fine-tuning would make the model forget
  ebb forget submit ask.toml --run runs/er-1 erase records, and prove it
  ebb tune --grid train.lr=0.1,1   choose a value on the first experiences alone
  ebb generate smollm2-135m 'Once' let a language model write
  ebb score smollm2-135m           measure its general ability
  ebb merge base a b -o both       one model of several, without training
  ebb study list                   published findings, and whether they hold here

Exit codes:
  0    done (a study: it holds)
  1    a study was run and does not hold, or a plan does not keep its budget
  2    an error, or an impossible command
  130  interrupted; everything is saved

Environment:
  EBB_DATA           where fetched data lies (else the user's cache folder)
  NO_COLOR           plain text
  RAYON_NUM_THREADS  as --threads";

/// `mi_option_purge_delay`, which the bindings have no name for.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    // What a step frees the next one asks for again. Handed back to the system in between, every
    // page would be cleared by it: a quarter of the time of a language model's step.
    // SAFETY: no other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
    let command = out::styled(Ebb::command());
    let ebb = match command
        .try_get_matches()
        .and_then(|m| Ebb::from_arg_matches(&m))
    {
        Ok(ebb) => ebb,
        Err(e) => return exit::of_usage(&e),
    };
    exit::of(
        ebb.around
            .prepare()
            .and_then(|()| ebb.verb.run(&ebb.around)),
    )
}
