//! Recipes: read, completed by a method, changed from the command line, and checked once.
//!
//! A combination that is known not to do what its user wants is refused with its reason, unless
//! the recipe accepts it by name; what was accepted is printed in the report.

use crate::error::{Error, Result};
use crate::language::{self, TEXT};
use crate::methods::gere::{self, Hold};
use crate::methods::views::SUPPORT;
use crate::methods::zeroth::Variant;
use crate::methods::{self, Situation};
use crate::objective::{asks, base};
use crate::optimizer::{OptimizerKind, OptimizerSettings};
use crate::spec::{
    ClassesSpec, DataPlan, KeepSpec, LossSpec, PenaltySpec, PluginSpec, RecipeFile, ReductionSpec,
    UpdateSpec,
};
use ebb_data::{Scenario, StreamSpec};
use ebb_net::{ActivationKind, Between, Gate, HeadKind, NetworkSpec};
use ebb_space::{Carrier, Reference};
use std::path::Path;

/// A checked recipe.
#[derive(Clone, Debug)]
pub struct Recipe {
    file: RecipeFile,
    text: String,
}

impl Recipe {
    /// Reads a recipe and applies `sets`, changes such as `("train.lr", "0.01")`.
    ///
    /// # Errors
    /// When it cannot be read, names what does not exist, or is refused.
    pub fn parse(text: &str, sets: &[(String, String)]) -> Result<Self> {
        // Reading the file as it stands first gives errors with their line and column.
        let mut table: toml::Table = toml::from_str(text).map_err(|e| Error::Recipe {
            reason: e.to_string().trim_end().to_owned(),
        })?;
        if sets.is_empty() && !table.contains_key("method") {
            toml::from_str::<RecipeFile>(text).map_err(|e| Error::Recipe {
                reason: e.to_string().trim_end().to_owned(),
            })?;
        }
        for (path, value) in sets {
            set(&mut table, path, value)?;
        }
        quiet_panel(&mut table);
        expand(&mut table)?;
        let mut file: RecipeFile =
            table
                .try_into()
                .map_err(|e: toml::de::Error| Error::Recipe {
                    reason: e.to_string().trim_end().to_owned(),
                })?;
        if file.stream.dataset != TEXT {
            file.stream = file.stream.resolved()?;
        }
        file.with = toml::Table::new();
        file.label.get_or_insert_with(|| "custom".to_owned());
        if file.train.reduction.is_none() {
            file.train.reduction = Some(ReductionSpec::default());
        }
        check(&file)?;
        let text = toml::to_string(&file).map_err(|e| Error::Recipe {
            reason: e.to_string(),
        })?;
        Ok(Self { file, text })
    }

    /// Reads a recipe from a file.
    ///
    /// # Errors
    /// As [`Recipe::parse`], and when the file cannot be read.
    pub fn read(path: &Path, sets: &[(String, String)]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, sets)
    }

    /// The recipe with every default written out.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its pieces.
    pub fn file(&self) -> &RecipeFile {
        &self.file
    }

    /// The method's name.
    pub fn label(&self) -> &str {
        self.file.label.as_deref().unwrap_or("custom")
    }

    /// BLAKE3 of the resolved text.
    pub fn hash(&self) -> String {
        blake3::hash(self.text.as_bytes()).to_hex().to_string()
    }

    /// The same without the seed: runs that agree in it are repetitions of one experiment.
    pub fn group(&self) -> String {
        let mut file = self.file.clone();
        file.seed = 0;
        let text = toml::to_string(&file).unwrap_or_default();
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// What the optimizer is built from.
    pub fn optimizer(&self) -> OptimizerSettings {
        self.file.train.optimizer_settings()
    }
}

/// A language model is evaluated at the ends of experiences, unless its recipe says otherwise: a
/// panel every few steps would cost more than the training.
fn quiet_panel(table: &mut toml::Table) {
    if !table.contains_key("language") {
        return;
    }
    let evaluate = table
        .entry("evaluate")
        .or_insert_with(|| toml::Value::Table(toml::Table::new()));
    if let toml::Value::Table(evaluate) = evaluate {
        evaluate.entry("every").or_insert(0.into());
    }
}

/// Replaces `method` and `with` by the long form.
fn expand(table: &mut toml::Table) -> Result<()> {
    let with = match table.remove("with") {
        None => toml::Table::new(),
        Some(toml::Value::Table(t)) => t,
        Some(_) => {
            return Err(Error::Recipe {
                reason: "`with` is a table of the method's parameters".into(),
            });
        }
    };
    let name = match table.remove("method") {
        None if with.is_empty() => return Ok(()),
        None => {
            return Err(Error::Recipe {
                reason: "`with` holds a method's parameters, but no `method` is named".into(),
            });
        }
        Some(toml::Value::String(name)) => name,
        Some(_) => {
            return Err(Error::Recipe {
                reason: "`method` is a name, such as \"er\"; `ebb methods` lists all".into(),
            });
        }
    };
    let card = methods::find(&name)?;
    let mut params = (card.defaults)();
    for (key, value) in with {
        if !params.contains_key(&key) {
            let known: Vec<&str> = params.keys().map(String::as_str).collect();
            return Err(Error::Recipe {
                reason: match known.is_empty() {
                    true => format!("the method `{}` has no parameters", card.name),
                    false => format!(
                        "the method `{}` has no parameter `{key}`; it has {}",
                        card.name,
                        known.join(", ")
                    ),
                },
            });
        }
        let value = match (&params[&key], value) {
            // `lambda = 100` is as good as `lambda = 100.0`.
            (toml::Value::Float(_), toml::Value::Integer(i)) => toml::Value::Float(i as f64),
            (_, value) => value,
        };
        params.insert(key, value);
    }
    let situation = Situation {
        batch: table
            .get("train")
            .and_then(|t| t.get("batch"))
            .and_then(toml::Value::as_integer)
            .map_or(10, |b| b.max(1) as usize),
        experiences: experiences(table)?,
    };
    let parts = (card.expand)(&params, &situation)?;
    let mut long = toml::Table::try_from(&parts).map_err(|e| Error::Recipe {
        reason: e.to_string(),
    })?;
    if let Some(reduction) = long.remove("reduction") {
        let train = table
            .entry("train")
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if let toml::Value::Table(train) = train {
            train.entry("reduction").or_insert(reduction);
        }
    }
    merge(table, long);
    table
        .entry("label")
        .or_insert_with(|| toml::Value::String(card.name.to_owned()));
    Ok(())
}

fn experiences(table: &toml::Table) -> Result<usize> {
    let texts = table.get("language").and_then(|l| l.get("experience"));
    if let Some(texts) = texts.and_then(toml::Value::as_array) {
        return Ok(texts.len());
    }
    let Some(stream) = table.get("stream") else {
        return Ok(1);
    };
    let spec: StreamSpec =
        stream
            .clone()
            .try_into()
            .map_err(|e: toml::de::Error| Error::Recipe {
                reason: format!("in `stream`: {}", e.message()),
            })?;
    let spec = spec.resolved()?;
    Ok(spec
        .n
        .or(spec.groups.as_ref().map(Vec::len))
        .or(spec.degrees.as_ref().map(Vec::len))
        .unwrap_or(1))
}

/// Puts what is missing in `into`; lists are joined, the method's entries first.
fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (None, value) => {
                into.insert(key, value);
            }
            (Some(toml::Value::Table(mine)), toml::Value::Table(other)) => merge(mine, other),
            (Some(toml::Value::Array(mine)), toml::Value::Array(mut other)) => {
                other.append(mine);
                *mine = other;
            }
            (Some(_), _) => {}
        }
    }
}

/// What a recipe reads in a value: TOML, or else a word.
pub(crate) fn value_of(text: &str) -> toml::Value {
    toml::from_str::<toml::Table>(&format!("v = {text}"))
        .ok()
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

/// Sets `a.b.c = value`; the value is read as TOML, or taken as text.
fn set(table: &mut toml::Table, path: &str, value: &str) -> Result<()> {
    let parsed = value_of(value);
    let mut keys: Vec<&str> = path.split('.').collect();
    let Some(last) = keys.pop().filter(|k| !k.is_empty()) else {
        return Err(Error::Recipe {
            reason: format!("`--set {path}={value}`: there is no key before the `=`"),
        });
    };
    let mut at = table;
    for key in keys {
        let next = at
            .entry(key)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = match next {
            toml::Value::Table(t) => t,
            _ => {
                return Err(Error::Recipe {
                    reason: format!("`--set {path}`: `{key}` holds a value, not a table"),
                });
            }
        };
    }
    at.insert(last.to_owned(), parsed);
    Ok(())
}

fn check(file: &RecipeFile) -> Result<()> {
    let wrong = |reason: String| Err(Error::Recipe { reason });
    let t = &file.train;
    if t.batch == 0 {
        return wrong("`train.batch` must be at least 1".into());
    }
    if t.epochs == 0 && t.steps.is_none() {
        return wrong("`train.epochs` must be at least 1 (or set `train.steps`)".into());
    }
    for (name, value) in [
        ("train.lr", t.lr),
        ("train.momentum", t.momentum),
        ("train.weight-decay", t.weight_decay),
        ("train.eps", t.eps),
    ] {
        if !value.is_finite() || value < 0.0 {
            return wrong(format!(
                "`{name}` must be a number from 0 up, it is {value}"
            ));
        }
    }
    if t.betas.iter().any(|b| !(0.0..1.0).contains(b)) {
        return wrong(format!(
            "`train.betas` must lie in [0, 1), they are {:?}",
            t.betas
        ));
    }
    if let Some(problem) = t.schedule.problem() {
        return wrong(format!("in `train.schedule`: {problem}"));
    }
    if t.clip.is_some_and(|c| c.is_nan() || c <= 0.0) {
        return wrong("`train.clip` must be above 0; leave it out for none".into());
    }
    if file.save.checkpoint_every == 0 {
        return wrong("`save.checkpoint-every` must be at least 1".into());
    }
    if file.evaluate.every > 0 && file.evaluate.panel == 0 {
        return wrong("`evaluate.panel` must be at least 1 where `evaluate.every` is set".into());
    }
    check_part(file)?;
    language::check(file)?;
    check_update(file)?;
    check_plugins(file)?;
    check_memory(file)?;
    check_draws(file)?;
    check_terms(file)?;
    refuse(file)
}

/// What of the network is trained, and from where.
fn check_part(file: &RecipeFile) -> Result<()> {
    let wrong = |reason: &str| {
        Err(Error::Recipe {
            reason: reason.to_owned(),
        })
    };
    if let Some(start) = &file.start {
        if start.run.is_none() && start.state.is_some() {
            return wrong("`start.state` is a state of `start.run`: name the run");
        }
        if start.learnt > 0 && file.data != DataPlan::Sequential {
            return wrong("`start.learnt` needs experiences one after the other");
        }
    }
    let part = file.adapter.is_some() || !file.train.only.is_empty();
    if part && file.data == DataPlan::Memory {
        return wrong(
            "`data = \"memory\"` begins with a fresh network at each experience, of which a part \
             alone would never learn: leave `adapter` and `train.only` out",
        );
    }
    let Some(adapter) = &file.adapter else {
        return Ok(());
    };
    adapter.check()?;
    if adapter.between != Between::Continue && !file.penalty.is_empty() {
        return wrong(
            "a penalty pulls the adapter to where it was, and with this `adapter.between` it is \
             gone by then: `between = \"continue\"`",
        );
    }
    if matches!(adapter.gate, Gate::Answers { .. }) && file.train.checkpoint {
        return wrong(
            "ranks that answer the input choose by what is trained, which a checkpointed pass does \
             not know on its way up: leave `train.checkpoint` out",
        );
    }
    Ok(())
}

fn check_update(file: &RecipeFile) -> Result<()> {
    let UpdateSpec::ZerothOrder(z) = &file.update else {
        return Ok(());
    };
    let t = &file.train;
    let reason = if z.queries == 0 || !(z.mu.is_finite() && z.mu > 0.0) {
        "zeroth-order steps need `queries` of at least 1 and a `mu` above 0"
    } else if z.variant == Variant::Conserve
        && (t.optimizer != OptimizerKind::Sgd || t.momentum > 0.0)
    {
        "the variant `conserve` compares the losses that plain steps lead to: use \
         train.optimizer = \"sgd\" with train.momentum = 0, or the variant `plain`"
    } else {
        return Ok(());
    };
    Err(Error::Recipe {
        reason: reason.into(),
    })
}

fn check_plugins(file: &RecipeFile) -> Result<()> {
    let energies = |p: &PluginSpec| match p {
        PluginSpec::Gpm(s) => Some((s.energy.clone(), s.samples)),
        PluginSpec::Cuber(s) => Some((s.energy.clone(), s.samples)),
        _ => None,
    };
    for (energy, samples) in file.plugin.iter().filter_map(energies) {
        if energy.is_empty() || samples == 0 || energy.iter().any(|e| !(0.0..=1.0).contains(e)) {
            return Err(Error::Recipe {
                reason:
                    "a projection needs at least one `energy`, each from 0 to 1, and `samples` \
                         of at least 1"
                        .into(),
            });
        }
    }
    let size = |n: &usize| (1..=LARGEST).contains(n);
    let share = |x: f64| (0.0..=1.0).contains(&x);
    let from_zero = |x: f64| x >= 0.0 && x.is_finite();
    let positive = |x: &f64| *x > 0.0 && x.is_finite();
    for plugin in &file.plugin {
        let reason = match plugin {
            PluginSpec::SparseGates(s) if !from_zero(s.threshold) || !share(s.dense) => {
                "a `threshold` from 0 up and a `dense` from 0 to 1".to_owned()
            }
            PluginSpec::SwitchPrice(s) if !from_zero(s.lambda) || !share(s.warmup) => {
                "a `lambda` from 0 up and a `warmup` from 0 to 1".to_owned()
            }
            PluginSpec::KeyElements(s) if !from_zero(s.lambda) || !share(s.share) => {
                "a `lambda` from 0 up and a `share` from 0 to 1".to_owned()
            }
            PluginSpec::SparseGates(_)
            | PluginSpec::SwitchPrice(_)
            | PluginSpec::KeyElements(_)
                if file.adapter.is_none() =>
            {
                "a table `adapter`, on which it acts".to_owned()
            }
            PluginSpec::KeyElements(_)
                if file
                    .adapter
                    .as_ref()
                    .is_some_and(|a| a.between != Between::Merge) =>
            {
                "`adapter.between = \"merge\"`".to_owned()
            }
            PluginSpec::Gss(s) if s.rows == 0 || s.compared == 0 => {
                "`compared` and `rows` of at least 1".to_owned()
            }
            PluginSpec::MemorisationAware(s)
                if !(s.tau > 0.0 && s.tau.is_finite()) || s.epochs == 0 =>
            {
                "a finite `tau` above 0 and `epochs` of at least 1".to_owned()
            }
            PluginSpec::Relational(s) if !size(&s.hidden) => {
                format!("`hidden` from 1 to {LARGEST}")
            }
            PluginSpec::Generator(s) if !size(&s.latent) || !s.hidden.iter().all(size) => {
                format!("`latent` and every `hidden` from 1 to {LARGEST}")
            }
            PluginSpec::Generator(s) if s.size > LARGEST => {
                format!("a `size` up to {LARGEST}")
            }
            PluginSpec::Remind(s) if s.mixup != 0.0 && !(0.01..=1.0).contains(&s.mixup) => {
                "a `mixup` of 0 or from 0.01 to 1".to_owned()
            }
            PluginSpec::Remind(s) if !(1..=256).contains(&s.centres) => {
                "`centres` from 1 to 256, since a code is a byte".to_owned()
            }
            PluginSpec::Remind(s) if !share(s.decay) => "a `decay` from 0 to 1".to_owned(),
            PluginSpec::Sharp(s)
                if !(1..=1000).contains(&s.phases)
                    || !share(s.coverage)
                    || [s.keep, s.long, s.neighbours].contains(&0) =>
            {
                "`phases` from 1 to 1000, a `coverage` from 0 to 1, and `keep`, `long` and \
                 `neighbours` of at least 1"
                    .to_owned()
            }
            PluginSpec::Sharp(_) | PluginSpec::Clnp(_) if one_for_all(&file.network) => {
                "units that answer each for itself and weights whose 0 is 0: take another \
                 activation than k-winners, ash or hard-ash, no `standardise`, and a linear head"
                    .to_owned()
            }
            PluginSpec::Clnp(s) if !from_zero(s.l1) || !share(s.margin) || s.samples == 0 => {
                "an `l1` of at least 0, a `margin` from 0 to 1 and `samples` of at least 1"
                    .to_owned()
            }
            PluginSpec::FastSlow(s) if !share(s.decay) || s.shots == 0 || s.ways < 2 => {
                "a `decay` from 0 to 1, `shots` of at least 1 and `ways` of at least 2".to_owned()
            }
            PluginSpec::FewShot(s) if s.shots == 0 => "`shots` of at least 1".to_owned(),
            PluginSpec::Psmt(s)
                if !share(s.decay)
                    || !share(s.restore)
                    || !from_zero(s.lambda)
                    || s.samples == 0 =>
            {
                "`decay` and `restore` from 0 to 1, a `lambda` of at least 0 and `samples` of at \
                 least 1"
                    .to_owned()
            }
            PluginSpec::Mvp(s) if !share(s.gamma) => "a `gamma` from 0 to 1".to_owned(),
            PluginSpec::Mvp(_) if !linear_head(&file.network) => {
                "a linear head, whose gradient it weighs rows by".to_owned()
            }
            PluginSpec::ProtoCl(s) if ![s.variance, s.prior, s.dirichlet].iter().all(positive) => {
                "`variance`, `prior` and `dirichlet` above 0".to_owned()
            }
            PluginSpec::ProtoCl(_) if matches!(file.network, NetworkSpec::KeyValue { .. }) => {
                "features that are trained, which those of a key-value network are not".to_owned()
            }
            PluginSpec::SourceShield(s) if !share(s.share) => "a `share` from 0 to 1".to_owned(),
            PluginSpec::LanguageNeurons(s) if !share(s.share) || !share(s.general) => {
                "a `share` and a `general` from 0 to 1".to_owned()
            }
            PluginSpec::EmbeddingReset(s) if s.every == 0 => "`every` of at least 1".to_owned(),
            PluginSpec::TrainParts(s) if s.parts.is_empty() => {
                "`parts` that are trained: attention, gate, up or down".to_owned()
            }
            PluginSpec::ChosenBlocks(s) if s.blocks == 0 => "`blocks` of at least 1".to_owned(),
            p if p.of_blocks() && !file.network.is_language() => {
                "a language model: a network of the kind `decoder` or `pretrained`".to_owned()
            }
            PluginSpec::QuantileRisk(s) if !(s.level > 0.0 && s.level < 1.0) => {
                "a `level` between 0 and 1".to_owned()
            }
            PluginSpec::Gere(s) if s.examples == 0 || s.rows > LARGEST => {
                format!("`examples` of at least 1 and `rows` up to {LARGEST}")
            }
            PluginSpec::Gere(s) if s.permuted && s.hold != Hold::Bands => {
                "`hold = \"bands\"` for its control `permuted`".to_owned()
            }
            PluginSpec::Gere(_) if file.data == DataPlan::Memory => {
                "a model that goes on, and `data = \"memory\"` begins anew with each experience"
                    .to_owned()
            }
            PluginSpec::Gere(s) if s.hold != Hold::Labels && file.train.micro_batch.is_some() => {
                "whole batches to compare with what it keeps: leave `train.micro-batch` out, or set \
                 `hold` to \"labels\""
                    .to_owned()
            }
            PluginSpec::Reptile(s) if !s.valid() => {
                "`every` of at least 1 and an `epsilon` above 0 and up to 1".to_owned()
            }
            _ => continue,
        };
        return Err(Error::Recipe {
            reason: format!("the plugin `{}` needs {reason}", plugin.kind()),
        });
    }
    Ok(())
}

/// Whether a network's head is `w·f + b`.
fn linear_head(network: &NetworkSpec) -> bool {
    match network {
        NetworkSpec::Mlp { head, .. }
        | NetworkSpec::Cnn { head, .. }
        | NetworkSpec::Resnet18 { head, .. } => *head == HeadKind::Linear,
        NetworkSpec::TaskMlp { .. } => true,
        NetworkSpec::KeyValue { .. }
        | NetworkSpec::Decoder { .. }
        | NetworkSpec::Pretrained { .. } => false,
    }
}

/// Whether what one unit answers hangs on others of its layer, so that freezing what leads into a
/// unit does not keep it as it is.
fn one_for_all(network: &NetworkSpec) -> bool {
    let NetworkSpec::Mlp {
        activation,
        standardise,
        ..
    } = network
    else {
        return !linear_head(network);
    };
    let of_layer = matches!(
        activation,
        ActivationKind::Ash { .. }
            | ActivationKind::HardAsh { .. }
            | ActivationKind::KWinners { .. }
    );
    of_layer || *standardise || !linear_head(network)
}

/// The largest layer, or part of a batch, that a plugin makes for itself: far beyond any use, and
/// still small enough to be allocated.
const LARGEST: usize = 65_536;

fn check_memory(file: &RecipeFile) -> Result<()> {
    let wrong = |reason: String| Err(Error::Recipe { reason });
    match &file.memory {
        Some(m) if m.capacity == 0 => {
            wrong("`memory.capacity` must be at least 1; leave `memory` out for none".into())
        }
        Some(m) => {
            if file.data == DataPlan::Memory
                && (!file.draw.is_empty()
                    || !matches!(
                        m.keep,
                        KeepSpec::ClassBalanced | KeepSpec::ExperienceBalanced
                    ))
            {
                return wrong(
                    "`data = \"memory\"` trains on the memory itself: it goes with no draws and with \
                     memory.keep = \"class-balanced\" or \"experience-balanced\""
                        .into(),
                );
            }
            match file.plugin.iter().find(|p| p.chooses()) {
                Some(plugin) if m.keep != KeepSpec::Chosen => {
                    return wrong(format!(
                        "the plugin `{}` chooses what the memory keeps: it needs memory.keep = \
                         \"chosen\"",
                        plugin.kind()
                    ));
                }
                None if m.keep == KeepSpec::Chosen => {
                    return wrong(
                        "memory.keep = \"chosen\" is for a plugin that chooses, and the recipe has \
                         none: use \"reservoir\" or another policy"
                            .into(),
                    );
                }
                _ => {}
            }
            let concatenated = file.draw.values().filter(|d| d.select.mixes_in());
            let per_step = matches!(m.keep, KeepSpec::Reservoir | KeepSpec::Ring);
            match concatenated.count() {
                0 => Ok(()),
                1 if per_step => wrong(
                    "a draw that is concatenated with the new data needs a memory that is filled \
                     after each experience: memory.keep = \"experience-balanced\" or \"class-balanced\""
                        .into(),
                ),
                1 => Ok(()),
                _ => wrong("only one draw can be concatenated with the new data".into()),
            }
        }
        None => {
            if file.data == DataPlan::Memory {
                return wrong(
                    "`data = \"memory\"` trains on nothing but the memory, and the recipe has none: \
                     add memory = { capacity = 500, keep = \"class-balanced\" }"
                        .into(),
                );
            }
            if let Some(name) = file.draw.keys().next() {
                return wrong(format!(
                    "`draw.{name}` draws from a memory, but the recipe has none: add memory = {{ capacity = 500, keep = \"reservoir\" }}"
                ));
            }
            if let Some(plugin) = file.plugin.iter().find(|p| p.needs_memory()) {
                let keep = match plugin.chooses() {
                    true => "chosen",
                    false => "reservoir",
                };
                return wrong(format!(
                    "the plugin `{}` works on remembered examples, but the recipe has no memory: \
                     add memory = {{ capacity = 500, keep = \"{keep}\" }}",
                    plugin.kind()
                ));
            }
            if file.update.projects() {
                return wrong(
                    "this update compares with remembered examples, but the recipe has no `memory`"
                        .into(),
                );
            }
            Ok(())
        }
    }
}

fn check_draws(file: &RecipeFile) -> Result<()> {
    let mut displaced = 0;
    for (name, draw) in file.draw.iter().filter(|(_, d)| d.displaces) {
        match draw.size {
            Some(size) if !draw.select.mixes_in() => displaced += size,
            _ => {
                return Err(Error::Recipe {
                    reason: format!(
                        "`draw.{name}` displaces new rows: it needs a `size`, and `select` may not \
                         mix the memory into the new data"
                    ),
                });
            }
        }
    }
    match displaced < file.train.batch || displaced == 0 {
        true => Ok(()),
        false => Err(Error::Recipe {
            reason: format!(
                "draws displace {displaced} of {} rows, and no new one is left: raise `train.batch`",
                file.train.batch
            ),
        }),
    }
}

fn check_terms(file: &RecipeFile) -> Result<()> {
    let wrong = |reason: String| Err(Error::Recipe { reason });
    let supports: Vec<&str> = file.plugin.iter().filter_map(PluginSpec::support).collect();
    for (i, term) in file.term.iter().enumerate() {
        let place = format!("term {} ({:?} on `{}`)", i + 1, term.loss, term.on);
        if !term.weight.is_finite() {
            return wrong(format!("{place}: its weight must be a finite number"));
        }
        if term.temperature.is_some_and(|t| t.is_nan() || t <= 0.0) {
            return wrong(format!("{place}: its temperature must be above 0"));
        }
        let replayed = term.on.strip_prefix("replay");
        match replayed {
            Some("")
                if file.draw.is_empty() && !supports.iter().any(|s| s.starts_with("replay")) =>
            {
                return wrong(format!("{place}: nothing is replayed, there is no `draw`"));
            }
            Some(name) if !name.is_empty() => {
                let name = name.trim_start_matches(':');
                let mut added = supports.iter().filter_map(|s| s.strip_prefix("replay:"));
                if !file.draw.contains_key(name) && !added.any(|a| a == name) {
                    return wrong(format!("{place}: there is no `draw.{name}`"));
                }
            }
            None if term.on != "new"
                && term.on != "all"
                && !supports.contains(&term.on.as_str()) =>
            {
                return wrong(format!(
                    "{place}: rows are called `new`, `replay`, `replay:NAME` or `all`"
                ));
            }
            _ => {}
        }
        let stored = replayed.is_some() || term.on == gere::SUPPORT;
        if asks(term, Reference::StoredLogits) && !stored && term.on != SUPPORT {
            return wrong(format!(
                "{place}: logits are stored with replayed examples; put it on `replay:NAME`"
            ));
        }
        if asks(term, Reference::StoredFeatures) && !stored {
            return wrong(format!(
                "{place}: features are stored with replayed examples; put it on `replay:NAME`"
            ));
        }
        let given_by = match term.loss {
            LossSpec::Centre => Some("centres"),
            LossSpec::ShiftedCrossEntropy => Some("memorisation-aware"),
            LossSpec::ThresholdMargin => Some("gere"),
            _ => None,
        };
        let there = |p: &PluginSpec| match p {
            PluginSpec::Centres(_) => given_by == Some("centres"),
            PluginSpec::MemorisationAware(_) => given_by == Some("memorisation-aware"),
            PluginSpec::Gere(_) => given_by == Some("gere"),
            _ => false,
        };
        if let Some(plugin) = given_by.filter(|_| !file.plugin.iter().any(there)) {
            return wrong(format!(
                "{place}: what it compares with comes from a plugin that the recipe does not \
                 have: add plugin = [{{ kind = \"{plugin}\" }}]"
            ));
        }
        let at_label = matches!(
            term.loss,
            LossSpec::CrossEntropy | LossSpec::ShiftedCrossEntropy | LossSpec::ProxyContrast
        );
        if at_label && term.classes == ClassesSpec::Old {
            return wrong(format!(
                "{place}: the label of a new example is not among the old classes"
            ));
        }
        if at_label && term.classes == ClassesSpec::New && term.on != "new" {
            return wrong(format!(
                "{place}: the label of a replayed example is not among the new classes"
            ));
        }
        if term.loss == LossSpec::PaddedDistillation && term.classes != ClassesSpec::Scenario {
            return wrong(format!(
                "{place}: it looks at the old classes of the teacher by itself; leave `classes` out"
            ));
        }
        for lowered in base(term, file.seed) {
            if lowered.carrier == Carrier::Features && term.classes != ClassesSpec::Scenario {
                return wrong(format!(
                    "{place}: features have no `classes` to choose from"
                ));
            }
            if let Err(e) = lowered.validate() {
                return wrong(format!("{place}: {e}"));
            }
        }
    }
    Ok(())
}

/// The combinations that are known not to do what they seem to.
fn refuse(file: &RecipeFile) -> Result<()> {
    let accepted = |name: &str| file.accept.iter().any(|a| a == name);
    let refused = |name: &'static str, reason: String| {
        if accepted(name) {
            Ok(())
        } else {
            Err(Error::Refused { name, reason })
        }
    };
    let class_incremental = file.stream.scenario == Some(Scenario::Class);
    let alone = file.memory.is_none() && file.data == DataPlan::Sequential;
    let strong = |p: &PenaltySpec| match p {
        PenaltySpec::Ewc(s) => s.lambda > 0.0,
        PenaltySpec::Si(s) => s.c > 0.0,
        PenaltySpec::L2(s) => s.beta > 0.0,
        PenaltySpec::Mas(s) => s.lambda > 0.0,
    };
    if class_incremental && alone && file.penalty.iter().any(strong) {
        refused(
            "penalty-alone-on-class-incremental",
            "a weight penalty alone cannot separate classes that are never seen together: on \
             class-incremental streams it scores as plain fine-tuning (Hsu et al. 2018). Add a \
             memory (method = \"er\" with [[penalty]]), or use a task- or domain-incremental stream."
                .into(),
        )?;
    }
    let t = &file.train;
    let plain = t.optimizer == OptimizerKind::Sgd && t.momentum == 0.0;
    let projects = file.update.projects() || file.plugin.iter().any(PluginSpec::projects);
    if projects && !plain {
        refused(
            "projection-with-momentum",
            "with momentum or Adam the direction that is applied is not the one that was checked \
             against what is known, so the guarantee is lost. Use train.optimizer = \"sgd\" with \
             train.momentum = 0."
                .into(),
        )?;
    }
    let unprojected = t.weight_decay > 0.0 || !file.penalty.is_empty();
    if file.plugin.iter().any(PluginSpec::projects) && unprojected {
        refused(
            "projection-with-penalty",
            "weight decay and penalties are added behind the projection, so the weights leave the \
             directions that keep old answers. Use train.weight-decay = 0 and no penalty."
                .into(),
        )?;
    }
    if let Some(name) = file
        .accept
        .iter()
        .find(|a| !ACCEPTABLE.contains(&a.as_str()))
    {
        return Err(Error::Recipe {
            reason: format!(
                "`accept` names `{name}`, which is never refused; it may name {}",
                ACCEPTABLE.join(", ")
            ),
        });
    }
    Ok(())
}

/// What `accept` may name.
pub const ACCEPTABLE: &[&str] = &[
    "penalty-alone-on-class-incremental",
    "projection-with-momentum",
    "projection-with-penalty",
];

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "[stream]\ndataset = \"digits\"\nsplit = 5\nscenario = \"task\"\n";

    fn parse(text: &str) -> Result<Recipe> {
        Recipe::parse(text, &[])
    }

    fn message(text: &str) -> String {
        parse(text).expect_err("it should be refused").to_string()
    }

    #[test]
    fn a_method_is_short_for_its_long_form() {
        let short = parse(&format!(
            "method = \"der++\"\nwith = {{ beta = 0.3 }}\n{DIGITS}"
        ))
        .expect("valid");
        assert_eq!(short.file().term.len(), 3);
        assert_eq!(short.file().term[2].weight, 0.3);
        // The resolved text stands for itself.
        let again = parse(short.text()).expect("valid");
        assert_eq!(again.text(), short.text());
        assert_eq!(again.hash(), short.hash());
    }

    /// A word, the table it stands for, and a change from the command line are one recipe.
    #[test]
    fn an_activation_is_a_word_or_a_table() {
        let with = |network: &str| {
            parse(&format!("{DIGITS}\n[network]\nkind = 'mlp'\n{network}")).expect(network)
        };
        let word = with("activation = 'sigmoid'");
        let table = with("[network.activation]\nkind = 'sigmoid'");
        assert_eq!(word.hash(), table.hash());
        let set = [("network.kind", "mlp"), ("network.activation", "sigmoid")];
        let set = set.map(|(path, value)| (path.to_owned(), value.to_owned()));
        let set = Recipe::parse(DIGITS, &set).expect("a word");
        assert_eq!(word.hash(), set.hash());
        let tables = with("activation = 'hard-ash'\nhead = { kind = 'cosine', learn = true }");
        for recipe in [word, tables] {
            let again = parse(recipe.text()).expect("the resolved text stands for itself");
            assert_eq!(again.text(), recipe.text());
        }
    }

    #[test]
    fn the_group_forgets_the_seed_alone() {
        let with = |sets: &[(&str, &str)]| {
            let sets: Vec<(String, String)> = sets
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect();
            Recipe::parse(&format!("method = \"er\"\n{DIGITS}"), &sets).expect("valid")
        };
        let (a, b) = (with(&[("seed", "1")]), with(&[("seed", "2")]));
        assert_ne!(a.hash(), b.hash());
        assert_eq!(a.group(), b.group());
        assert_ne!(a.group(), with(&[("train.lr", "0.2")]).group());
    }

    #[test]
    fn what_a_recipe_says_goes_before_the_method() {
        let text = format!("method = \"er\"\n[memory]\ncapacity = 77\nkeep = \"ring\"\n{DIGITS}");
        let r = parse(&text).expect("valid");
        assert_eq!(r.file().memory.as_ref().map(|m| m.capacity), Some(77));
    }

    /// What a plugin cannot work with is refused however the recipe spells it out.
    #[test]
    fn plugins_are_checked_in_either_form() {
        let memory = "memory = { capacity = 50, keep = \"reservoir\" }\n";
        let chosen = "memory = { capacity = 50, keep = \"chosen\" }\n";
        for (text, said) in [
            (
                format!("{chosen}plugin = [{{ kind = \"gss\", rows = 0 }}]"),
                "at least 1",
            ),
            (
                "method = \"gss\"\nwith = { compared = 0 }".into(),
                "at least 1",
            ),
            (
                "method = \"mat\"\nwith = { tau = 0.0 }".into(),
                "finite `tau`",
            ),
            (
                format!("{memory}plugin = [{{ kind = \"relational\", hidden = 0 }}]"),
                "from 1 to",
            ),
            (
                "method = \"dgr\"\nwith = { latent = 1000000000 }".into(),
                "65536",
            ),
            (
                "method = \"dgr\"\nwith = { hidden = [1000000000] }".into(),
                "65536",
            ),
            (
                "method = \"dgr\"\nwith = { size = 1000000000 }".into(),
                "65536",
            ),
            (
                "method = \"centre\"\nwith = { lambda = \"x\" }".into(),
                "`with.lambda`",
            ),
            (
                "method = \"view-batch\"\nwith = { alpha = \"x\" }".into(),
                "`with.alpha`",
            ),
            (
                "method = \"gss\"\nwith = { capacity = 0 }".into(),
                "at least 1",
            ),
            (
                "plugin = [{ kind = \"mir\" }]".into(),
                "keep = \"reservoir\"",
            ),
            (
                "plugin = [{ kind = \"function-distance\" }]".into(),
                "`function-distance`",
            ),
            (
                "plugin = [{ kind = \"herding\" }]".into(),
                "keep = \"chosen\"",
            ),
            (
                format!("{memory}plugin = [{{ kind = \"gss\" }}]"),
                "needs memory.keep",
            ),
            (chosen.to_owned(), "a plugin that chooses"),
        ] {
            let m = message(&format!("{text}\n{DIGITS}"));
            assert!(m.contains(said), "{text}: {m}");
        }
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        let class = DIGITS.replace("task", "class");
        let m = message(&format!("method = \"ewc\"\n{class}"));
        assert!(
            m.contains("accept = [\"penalty-alone-on-class-incremental\"]"),
            "{m}"
        );
        let ok =
            format!("method = \"ewc\"\naccept = [\"penalty-alone-on-class-incremental\"]\n{class}");
        assert!(parse(&ok).is_ok());
        let m = message(&format!(
            "method = \"gem\"\n{DIGITS}[train]\noptimizer = \"adam\"\n"
        ));
        assert!(m.contains("direction that is applied"), "{m}");
        let m = message(&format!("method = \"emc\"\n{DIGITS}"));
        assert!(m.contains("did you mean `ewc`"), "{m}");
        let m = message(&format!(
            "method = \"ewc\"\nwith = {{ lamda = 3 }}\n{DIGITS}"
        ));
        assert!(m.contains("no parameter `lamda`; it has"), "{m}");
        let m = message(&format!("nonsense = 1\n{DIGITS}"));
        assert!(m.contains("unknown field `nonsense`"), "{m}");
        let m = message(&format!("{DIGITS}[train]\nlr = \"fast\"\n"));
        assert!(m.contains("invalid type") && m.contains("lr"), "{m}");
        let m = message(&format!("{DIGITS}[draw.a]\nselect = \"uniform\"\n"));
        assert!(m.contains("the recipe has none"), "{m}");
        let m = message(&format!(
            "{DIGITS}[[term]]\non = \"old\"\nloss = \"cross-entropy\"\n"
        ));
        assert!(m.contains("rows are called"), "{m}");
        for (term, said) in [
            (
                "on = \"new\"\nloss = \"function-distance\"",
                "put it on `replay:NAME`",
            ),
            (
                "on = \"new\"\nloss = \"sup-con\"\nclasses = \"old\"",
                "no `classes`",
            ),
            (
                "on = \"all\"\nloss = \"proxy-contrast\"\nclasses = \"new\"",
                "replayed example",
            ),
            (
                "on = \"all\"\nloss = \"proxy-contrast\"\nclasses = \"old\"",
                "new example",
            ),
            (
                "on = \"all\"\nloss = \"sinkhorn\"\ngate = nan",
                "must be finite",
            ),
        ] {
            let m = message(&format!("{DIGITS}[[term]]\n{term}\n"));
            assert!(m.contains(said), "{m}");
        }
        let m = message(&format!("accept = [\"anything\"]\n{DIGITS}"));
        assert!(m.contains("never refused"), "{m}");
        let m = message(&format!("{DIGITS}[train]\nbatch = 0\n"));
        assert!(m.contains("at least 1"), "{m}");
    }
}
