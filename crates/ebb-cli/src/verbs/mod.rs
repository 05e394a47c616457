//! The verbs, one file each.

mod audit;
mod bench;
mod compare;
mod data;
mod export;
mod forecast;
mod forget;
mod generate;
mod learn;
mod ledger;
mod lineage;
mod merge;
mod methods;
mod plan;
mod report;
mod resume;
mod runs;
mod score;
mod states;
mod study;
mod tune;

use crate::around::Around;
use crate::error::Result;
use crate::exit::Ended;

/// What can be asked of `ebb`.
#[derive(clap::Subcommand)]
pub enum Verb {
    Learn(learn::Learn),
    Resume(resume::Resume),
    Report(report::Report),
    Compare(compare::Compare),
    Runs(runs::Runs),
    States(states::States),
    Lineage(lineage::Lineage),
    Methods(methods::Methods),
    Data(data::Data),
    Generate(generate::Generate),
    Export(export::Export),
    Merge(merge::Merge),
    Score(score::Score),
    Forecast(forecast::Forecast),
    Plan(plan::Plan),
    Audit(audit::Audit),
    Forget(forget::Forget),
    Ledger(ledger::Ledger),
    Study(study::Study),
    Tune(tune::Tune),
    Bench(bench::Bench),
}

impl Verb {
    /// Does it.
    ///
    /// # Errors
    /// Those of the verb.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        match self {
            Verb::Learn(verb) => verb.run(around),
            Verb::Resume(verb) => verb.run(around),
            Verb::Report(verb) => verb.run(),
            Verb::Compare(verb) => verb.run(around),
            Verb::Runs(verb) => verb.run(around),
            Verb::States(verb) => verb.run(around),
            Verb::Lineage(verb) => verb.run(around),
            Verb::Methods(verb) => verb.run(around),
            Verb::Data(verb) => verb.run(around),
            Verb::Generate(verb) => verb.run(around),
            Verb::Export(verb) => verb.run(around),
            Verb::Merge(verb) => verb.run(around),
            Verb::Score(verb) => verb.run(around),
            Verb::Forecast(verb) => verb.run(around),
            Verb::Plan(verb) => verb.run(around),
            Verb::Audit(verb) => verb.run(around),
            Verb::Forget(verb) => verb.run(around),
            Verb::Ledger(verb) => verb.run(around),
            Verb::Study(verb) => verb.run(around),
            Verb::Tune(verb) => verb.run(around),
            Verb::Bench(verb) => verb.run(around),
        }
    }
}
