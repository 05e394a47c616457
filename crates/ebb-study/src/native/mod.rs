//! Studies with code of their own: linear worlds, and what recipes alone cannot say.

mod erasing;
mod forecast;
mod forgetting_events;
pub(crate) mod found;
mod layer_scaling;
mod linear;
mod open_set;

pub use erasing::{ARMS as ERASING_ARMS, Spec as ErasingSpec};
pub use forecast::{ARMS as FORECAST_ARMS, Spec as ForecastSpec};
pub use forgetting_events::{ARMS as FORGETTING_EVENTS_ARMS, Spec as ForgettingEventsSpec};

pub use layer_scaling::{ARMS as LAYER_SCALING_ARMS, Spec as LayerScalingSpec};
pub use open_set::{ARMS as OPEN_SET_ARMS, Spec as OpenSetSpec};

use crate::clause::Samples;
use crate::error::Result;
use crate::language;
use crate::runner::{Options, Watch};
use crate::study::{Native, Study};
use crate::verdict::Verdict;
use crate::worlds;

/// Runs a native study into `verdict`, and gives what its clauses may name.
pub(crate) fn run(
    native: &Native,
    study: &Study,
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<Samples> {
    let seed = study.seeds[0];
    let finding = match native {
        Native::MinimumNorm { draws } => worlds::minimum_norm::study(seed, *draws)?,
        Native::RotatedPair { draws } => worlds::rotated_pair::study(seed, *draws)?,
        Native::SequentialBayes { draws } => worlds::sequential_bayes::study(seed, *draws)?,
        Native::MaxMargin { draws } => worlds::max_margin::study(seed, *draws)?,
        Native::Spurious { draws } => worlds::spurious::study(seed, *draws)?,
        Native::Ideal { draws } => worlds::ideal::study(seed, *draws)?,
        Native::OpenSet(spec) => {
            return open_set::run(spec, &study.seeds, options, watch, verdict);
        }
        Native::LayerScaling(spec) => {
            return layer_scaling::run(spec, &study.seeds, options, watch, verdict);
        }
        Native::Erasing(spec) => {
            return erasing::run(spec, &study.seeds, options, watch, verdict);
        }
        Native::Forecast(spec) => {
            return forecast::run(spec, &study.seeds, options, watch, verdict);
        }
        Native::FewShot(spec) => {
            return language::few_shot::run(spec, &study.seeds, options, watch, verdict);
        }
        Native::Acquisition(spec) => {
            return language::acquisition::run(spec, &study.seeds, options, watch, verdict);
        }
        Native::Decoding(spec) => {
            return language::decoding::run(spec, &study.seeds, options, watch, verdict);
        }
        Native::Alignment(spec) => {
            return language::alignment::run(spec, &study.seeds, options, watch, verdict);
        }
        Native::OutputBias(spec) => {
            return language::output_bias::run(spec, &study.seeds, options, watch, verdict);
        }
        Native::LanguageNeurons(spec) => {
            return language::neurons::run(spec, &study.seeds, options, watch, verdict);
        }
        Native::DualProcess(spec) => {
            return language::dual_process::run(spec, &study.seeds, options, watch, verdict);
        }
        Native::Aligned(spec) => {
            return language::aligned::run(spec, &study.seeds, options, watch, verdict);
        }
        Native::Shield(spec) => {
            return language::shield::run(spec, &study.seeds, options, watch, verdict);
        }
        Native::ForgettingEvents(spec) => {
            return forgetting_events::run(spec, &study.seeds, options, watch, verdict);
        }
    };
    linear::record(finding, verdict);
    Ok(Samples::new())
}
