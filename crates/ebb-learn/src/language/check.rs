//! What of a recipe makes sense for texts.

use super::{LanguageSpec, TEXT};
use crate::error::{Error, Result};
use crate::methods::ewc::EwcSettings;
use crate::methods::gere::SUPPORT;
use crate::spec::{
    DataPlan, KeepSpec, LossClasses, LossSpec, PenaltySpec, PluginSpec, RecipeFile, UpdateSpec,
};
use ebb_data::StreamSpec;
use ebb_space::FisherKind;
use ebb_text::Learn;

/// Checks a recipe's stream, network and table `language` against each other.
///
/// # Errors
/// What does not fit, with the reason and what would.
pub(crate) fn check(file: &RecipeFile) -> Result<()> {
    let wrong = |reason: &str| Err(recipe(reason.to_owned()));
    let text = file.stream.dataset == TEXT;
    let spec = match (&file.language, text) {
        (Some(spec), true) => spec,
        (None, true) => return wrong("`stream.dataset = \"text\"` needs a table `language`"),
        (Some(_), false) => {
            return wrong("a table `language` needs `stream.dataset = \"text\"`");
        }
        (None, false) if file.network.is_language() => {
            return wrong(
                "a network that reads text needs `stream.dataset = \"text\"` and a table \
                 `language`",
            );
        }
        (None, false) if file.evaluate.answers > 0 => {
            return wrong("`evaluate.answers` is for language models: leave it out");
        }
        (None, false) => {
            return match file.train.micro_batch.is_some() || file.train.checkpoint {
                true => wrong(
                    "`train.micro-batch` and `train.checkpoint` are for language models: leave \
                     them out",
                ),
                false => Ok(()),
            };
        }
    };
    if !file.network.is_language() {
        return wrong(
            "texts need a network of the kind `decoder` (from fresh weights) or `pretrained`",
        );
    }
    if file.evaluate.answers > 0 && spec.learn != Learn::Answers {
        return wrong(
            "`evaluate.answers` asks what follows a prompt: take `language.learn = \"answers\"`, or \
             leave it out",
        );
    }
    stream(&file.stream)?;
    texts(spec, &file.plugin)?;
    method(file)
}

fn recipe(reason: String) -> Error {
    Error::Recipe { reason }
}

/// Everything of a stream of text stands in the table `language`.
fn stream(spec: &StreamSpec) -> Result<()> {
    let bare = StreamSpec {
        dataset: TEXT.to_owned(),
        ..StreamSpec::default()
    };
    match *spec == bare {
        true => Ok(()),
        false => Err(recipe(
            "a stream of text has no setting but `dataset`: the rest is in the table `language`"
                .into(),
        )),
    }
}

fn texts(spec: &LanguageSpec, plugins: &[PluginSpec]) -> Result<()> {
    if spec.experience.is_empty() {
        return Err(recipe("`language` has no `experience` yet".into()));
    }
    if spec.length < 2 {
        return Err(recipe("`language.length` must be at least 2".into()));
    }
    if !(spec.test_share > 0.0 && spec.test_share < 1.0) {
        return Err(recipe(format!(
            "`language.test-share` lies between 0 and 1, it is {}",
            spec.test_share
        )));
    }
    let gere = |p: &PluginSpec| matches!(p, PluginSpec::Gere(_));
    match &spec.generic {
        Some(e) if !e.test.is_empty() => {
            return Err(recipe(format!(
                "the generic texts `{}` are replayed and not measured: leave their `test` out",
                e.name
            )));
        }
        Some(_) if !plugins.iter().any(gere) => {
            return Err(recipe(
                "`language.generic` holds texts that nothing replays: take method = \"gere\" or add \
                 plugin = [{ kind = \"gere\" }]"
                    .into(),
            ));
        }
        None if spec.experience.len() == 1 && plugins.iter().any(gere) => {
            return Err(recipe(
                "the plugin `gere` replays general texts beside the others: name them in \
                 `[language.generic]`"
                    .into(),
            ));
        }
        _ => {}
    }
    for e in spec.experience.iter().chain(&spec.generic) {
        let said = match (&e.world, e.train.is_empty()) {
            (Some(_), false) => "names files and a world: it takes one of them",
            (None, true) => "names neither files under `train` nor a `world`",
            (Some(_), true) if !e.test.is_empty() => "has a world, which brings its own test",
            _ => continue,
        };
        return Err(recipe(format!("the experience `{}` {said}", e.name)));
    }
    let mut names: Vec<&str> = spec.experience.iter().map(|e| e.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|two| two[0] == two[1]) {
        Some(two) => Err(recipe(format!("two experiences are called `{}`", two[0]))),
        None => Ok(()),
    }
}

fn method(file: &RecipeFile) -> Result<()> {
    let wrong = |reason: String| Err(recipe(reason));
    if file.train.classes != LossClasses::All {
        return wrong("every token competes with every other: leave `train.classes` out".into());
    }
    if file.data == DataPlan::Memory {
        return wrong(
            "`data = \"memory\"` starts from fresh weights at each experience, which no language \
             model can afford"
                .into(),
        );
    }
    if file.evaluate.forgetting_events {
        return wrong(
            "forgetting events are counted by labels, and a text has one at each token: leave \
             `evaluate.forgetting-events` out"
                .into(),
        );
    }
    if file.train.micro_batch == Some(0) {
        return wrong("`train.micro-batch` must be at least 1".into());
    }
    if let Some(memory) = &file.memory
        && matches!(memory.keep, KeepSpec::ClassBalanced | KeepSpec::Chosen)
    {
        return wrong(
            "texts have no classes to balance: use memory.keep = \"reservoir\", \"ring\" or \
             \"experience-balanced\""
                .into(),
        );
    }
    for term in &file.term {
        use LossSpec as L;
        match term.loss {
            L::CrossEntropy
            | L::Distillation
            | L::ReverseDistillation
            | L::JensenShannonDistillation
            | L::JeffreysDistillation
            | L::TotalVariationDistillation
            | L::BalancedDistillation
            | L::BalancedDistillationReversed
            | L::FeaturesL2
            | L::ThresholdMargin
            | L::Confidence => {}
            // It is asked for by name, of a set whose size is set.
            L::LogitsKl | L::StoredFeaturesL2 if term.on == SUPPORT => {}
            L::LogitsL2
            | L::LogitsKl
            | L::FunctionDistance
            | L::ProxyDistillation
            | L::StoredSimilarity
            | L::StoredFeaturesL2 => {
                return wrong(format!(
                    "{:?} stores what the network answered with every remembered example: for a \
                     text that is a number for each token of the vocabulary at each position, \
                     hundreds of megabytes an example. Ask a teacher instead (loss = \
                     \"distillation\", method = \"lwf\")",
                    term.loss
                ));
            }
            loss => {
                return wrong(format!(
                    "{loss:?} compares examples by their classes, and texts have none"
                ));
            }
        }
    }
    for penalty in &file.penalty {
        match penalty {
            PenaltySpec::Ewc(EwcSettings {
                fisher: FisherKind::Exact,
                ..
            }) => {
                return wrong(
                    "the exact Fisher takes a backward pass for each token of the vocabulary: set \
                     its `fisher` to \"empirical\" or \"sampled\" (with method = \"ewc\": with = \
                     { fisher = \"empirical\" })"
                        .into(),
                );
            }
            PenaltySpec::Mas(_) => {
                return wrong(
                    "MAS takes a pass for each row, and a text has one at each token: use EWC, SI \
                     or L2"
                        .into(),
                );
            }
            PenaltySpec::Ewc(_) | PenaltySpec::Si(_) | PenaltySpec::L2(_) => {}
        }
    }
    // Of plugins, those that move weights and ask for gradients of whole batches alone.
    let misfits = |p: &&PluginSpec| match p {
        PluginSpec::HalfFreeze(_)
        | PluginSpec::Refresh(_)
        | PluginSpec::SparseGates(_)
        | PluginSpec::SwitchPrice(_)
        | PluginSpec::KeyElements(_)
        | PluginSpec::Reptile(_)
        | PluginSpec::Gere(_) => false,
        PluginSpec::Fpf(s) => s.alpha > 0.0,
        p => !p.of_blocks(),
    };
    if let Some(plugin) = file.plugin.iter().find(misfits) {
        return wrong(format!(
            "the plugin `{}` works on classes or pictures, not on texts",
            plugin.kind()
        ));
    }
    if file.train.micro_batch.is_some() && !matches!(file.update, UpdateSpec::Plain) {
        return wrong(
            "`train.micro-batch` goes with plain updates; projections and zeroth-order steps take \
             the whole batch"
                .into(),
        );
    }
    Ok(())
}
