//! The pieces of a recipe, in the field's words, as they stand in a TOML file.
//!
//! Everything here is unchecked. [`crate::recipe::Recipe`] lowers it once into something valid.

use crate::optimizer::{OptimizerKind, OptimizerSettings};
use crate::schedule::Schedule;
use ebb_net::{AdapterSpec, NetworkSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A recipe as written. Every table may be left out; `ebb methods show NAME` prints what a
/// method stands for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RecipeFile {
    /// A method's name; it fills the tables below, which may change or extend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The method's own parameters.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub with: toml::Table,
    /// What a resolved recipe is called in reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The seed of every keyed draw.
    #[serde(default)]
    pub seed: u64,
    /// Combinations that would be refused, accepted by name.
    #[serde(default)]
    pub accept: Vec<String>,
    /// Where the experiences come from.
    pub stream: ebb_data::StreamSpec,
    /// The network.
    #[serde(default)]
    pub network: NetworkSpec,
    /// The texts of a stream of text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<crate::language::LanguageSpec>,
    /// Records to pass over, wherever the data has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without: Option<crate::without::WithoutSpec>,
    /// What the model has behind it when the run begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartSpec>,
    /// A low-rank adapter, which is trained in the place of the network's own weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterSpec>,
    /// How it is trained.
    #[serde(default)]
    pub train: TrainSpec,
    /// What of the stream a model sees at once.
    #[serde(default)]
    pub data: DataPlan,
    /// The replay store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemorySpec>,
    /// Named draws from it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub draw: BTreeMap<String, DrawSpec>,
    /// The loss in output space. Cross-entropy on the new batch is added when none names it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub term: Vec<TermSpec>,
    /// The loss in weight space.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub penalty: Vec<PenaltySpec>,
    /// How a gradient becomes a step.
    #[serde(default)]
    pub update: UpdateSpec,
    /// What acts at the events of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugin: Vec<PluginSpec>,
    /// What is measured on the way.
    #[serde(default)]
    pub evaluate: EvaluateSpec,
    /// What is kept on disk.
    #[serde(default)]
    pub save: SaveSpec,
}

/// What a method adds to plain fine-tuning: the long form of its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Parts {
    /// What of the stream a model sees at once.
    pub data: DataPlan,
    /// The replay store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemorySpec>,
    /// Named draws from it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub draw: BTreeMap<String, DrawSpec>,
    /// Terms in output space.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub term: Vec<TermSpec>,
    /// Penalties in weight space.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub penalty: Vec<PenaltySpec>,
    /// How a gradient becomes a step.
    pub update: UpdateSpec,
    /// What acts at the events of the run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugin: Vec<PluginSpec>,
    /// A low-rank adapter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterSpec>,
    /// Over what a mean is taken, where the method's paper fixes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduction: Option<ReductionSpec>,
}

/// What a model has behind it when its run begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct StartSpec {
    /// A run whose weights it begins with; its network must be the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// A state of that run (the present one, if left out).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The first experiences that it knows already: they are not trained; what a method does at
    /// the end of an experience (fill its memory, measure what mattered, freeze a teacher) is done.
    pub learnt: usize,
}

/// What of the stream a model sees at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataPlan {
    /// One experience after the other.
    #[default]
    Sequential,
    /// All experiences so far, again at each experience.
    Cumulative,
    /// All experiences at once, from the start.
    Joint,
    /// What the memory kept of the experiences so far, and nothing else: it is filled first, and
    /// a fresh network is trained on it (GDumb).
    Memory,
}

/// When and how the memory is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepSpec {
    /// A uniform sample of everything seen, filled at each step.
    Reservoir,
    /// Equal shares by class, filled after each experience.
    ClassBalanced,
    /// Equal shares by experience, filled after each experience.
    ExperienceBalanced,
    /// The last examples of each experience.
    Ring,
    /// What a plugin chooses.
    Chosen,
}

/// The replay store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MemorySpec {
    /// Records it may hold.
    pub capacity: usize,
    /// Which ones it keeps.
    pub keep: KeepSpec,
}

/// How a draw selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SelectSpec {
    /// Uniformly, without replacement.
    Uniform,
    /// Each record once a pass, reshuffled at each pass (a data loader over the memory).
    Cycle,
    /// Records in proportion to the steps since they were stored.
    Oldest,
    /// The memory, repeated until it is about as large as the new data, is shuffled into it
    /// (naive rehearsal as in Hsu et al. 2018).
    Concatenate,
    /// The memory is shuffled into the new data, each record once (iCaRL).
    Union,
}

impl SelectSpec {
    /// Whether the loader mixes the memory into the new data, in the place of a draw a step.
    pub fn mixes_in(self) -> bool {
        matches!(self, SelectSpec::Concatenate | SelectSpec::Union)
    }
}

/// One named draw from the memory at each step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DrawSpec {
    /// How it selects.
    pub select: SelectSpec,
    /// Records a step; left out: as many as the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// From the second experience on, these take the place of as many new rows, so that a step has
    /// as many rows as before (continual pre-training at equal tokens, card S134). It needs `size`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub displaces: bool,
}

/// What a term compares, by its usual name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossSpec {
    /// Cross-entropy with the label.
    CrossEntropy,
    /// Mean squared difference to the logits stored with the record (DER).
    LogitsL2,
    /// `KL(stored ‖ student)` on tempered probabilities: the logits are those stored with the
    /// record, or of another view of the example.
    LogitsKl,
    /// `KL(teacher ‖ student)` on tempered probabilities (LwF).
    Distillation,
    /// Half the squared distance to the teacher's features.
    FeaturesL2,
    /// `KL(student ‖ uniform)`, that is `ln K − H(p)`.
    Confidence,
    /// One against all: the binary cross-entropy of each class's sigmoid with the label, summed.
    Bernoulli,
    /// The same with the teacher's sigmoids (iCaRL).
    BernoulliDistillation,
    /// The ranking "label, then the teacher's order", each choice counting as the teacher believes
    /// in it (PLD, card S165).
    PlackettLuce,
    /// The same ranking with all choices alike.
    ListMle,
    /// A control of `plackett-luce`: the teacher's wrong classes change places, by example.
    PlackettLuceScrambled,
    /// Transport of the batch of student probabilities to the teacher's (SinKD, card S189).
    Sinkhorn,
    /// Supervised contrast of the features.
    SupCon,
    /// How each class ranks the rows of the batch, as the teacher does (PRD, card S128).
    PrototypeRelation,
    /// Cross-entropy over the labels of the batch, as often as they occur (PCR, card S131).
    ProxyContrast,
    /// Squared difference to the stored logits at the labels of the batch, as often as they occur
    /// (HPCR's PCD).
    ProxyDistillation,
    /// Which rows' features are alike, as the teacher has it (HPCR's SCD).
    SimilarityDistillation,
    /// Forward and reverse KL to the teacher, balanced by the entropies of both (card S175).
    BalancedDistillation,
    /// A control of `balanced-distillation`: the weights change places.
    BalancedDistillationReversed,
    /// `KL(student ‖ teacher)`.
    ReverseDistillation,
    /// Jensen-Shannon divergence to the teacher.
    JensenShannonDistillation,
    /// `KL(teacher ‖ student) + KL(student ‖ teacher)`.
    JeffreysDistillation,
    /// Total variation to the teacher: half the row-wise L1 distance of probabilities.
    TotalVariationDistillation,
    /// Distance of the probabilities to those stored with the record (FDR).
    FunctionDistance,
    /// `KL(teacher ‖ student)` with the teacher's probabilities over the old classes, 0 for new
    /// ones, and the student's over all that compete (van de Ven & Tolias).
    PaddedDistillation,
    /// Half the mean squared distance of the features to the centre of the row's class.
    Centre,
    /// Cross-entropy with a bias on the logits of each row, which a plugin gives (MAT).
    ShiftedCrossEntropy,
    /// Which rows' features are alike, as those stored with the records have it (HPCR's SCD).
    StoredSimilarity,
    /// Mean squared distance to the features stored with the record.
    StoredFeaturesL2,
    /// How far features lie outside of the bands they were in, the mean over those that do (GeRe).
    ThresholdMargin,
}

/// Which classes a term looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassesSpec {
    /// The scenario's: a row's own head in task-incremental streams, otherwise as
    /// `train.classes` says.
    #[default]
    Scenario,
    /// Every output.
    All,
    /// Classes of earlier experiences (each earlier head by itself in task-incremental streams).
    Old,
    /// Classes of this experience that no earlier one had (its head in task-incremental streams).
    New,
}

/// One term of the loss in output space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TermSpec {
    /// The rows: `new`, `replay` (all draws), `replay:NAME`, or `all`.
    pub on: String,
    /// What is compared.
    pub loss: LossSpec,
    /// Its weight.
    #[serde(default = "one")]
    pub weight: f64,
    /// Divides the logits of a distillation; its loss is multiplied by the square. Some losses
    /// have one of their own, or no square.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// No push below this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<f64>,
    /// Which classes it looks at.
    #[serde(default)]
    pub classes: ClassesSpec,
    /// A factor that follows the number of experiences.
    #[serde(default, skip_serializing_if = "ShareSpec::is_default")]
    pub share: ShareSpec,
    /// Divides it by the number of classes it looks at, as some code does that averages over them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub per_class: bool,
    /// Weighs it, at each step, to be as large as the terms at labels before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub balanced: bool,
}

impl TermSpec {
    /// A term of weight 1 with everything else as it is where a recipe says nothing.
    pub fn new(on: &str, loss: LossSpec) -> Self {
        Self {
            on: on.to_owned(),
            loss,
            weight: 1.0,
            temperature: None,
            gate: None,
            classes: ClassesSpec::Scenario,
            share: ShareSpec::One,
            per_class: false,
            balanced: false,
        }
    }
}

/// A factor of a term in experience `t`, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShareSpec {
    /// 1.
    #[default]
    One,
    /// `1/t`: the new experience counts as one of all so far.
    New,
    /// `1 − 1/t`, divided among the terms that a `classes = "old"` makes (one a head in
    /// task-incremental streams).
    Old,
}

impl ShareSpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The factor in experience `index`, counted from 0, of each of `terms` terms.
    pub fn factor(self, index: usize, terms: usize) -> f64 {
        let new = 1.0 / (index + 1) as f64;
        match self {
            ShareSpec::One => 1.0,
            ShareSpec::New => new,
            ShareSpec::Old => (1.0 - new) / terms.max(1) as f64,
        }
    }
}

fn one() -> f64 {
    1.0
}

/// A quadratic penalty in weight space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum PenaltySpec {
    /// Elastic weight consolidation.
    Ewc(crate::methods::ewc::EwcSettings),
    /// Synaptic intelligence.
    Si(crate::methods::si::SiSettings),
    /// Distance to the weights after the last experience.
    L2(crate::methods::l2::L2Settings),
    /// Memory aware synapses.
    Mas(crate::methods::mas::MasSettings),
}

/// How a gradient becomes a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum UpdateSpec {
    /// The gradient of the objective.
    #[default]
    Plain,
    /// Projected so that no earlier experience's loss rises (GEM).
    Gem(crate::methods::gem::GemSettings),
    /// Projected against one average gradient (A-GEM).
    AGem(crate::methods::agem::AGemSettings),
    /// Estimated from forward passes alone.
    ZerothOrder(crate::methods::zeroth::ZerothOrderSettings),
}

impl UpdateSpec {
    /// Whether it checks the gradient against remembered examples.
    pub fn projects(&self) -> bool {
        matches!(self, UpdateSpec::Gem(_) | UpdateSpec::AGem(_))
    }
}

/// A part of a method that acts at the events of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum PluginSpec {
    /// Replays what the step under way would harm most (MIR).
    Mir(crate::methods::mir::MirSettings),
    /// Freezes a random half of the tensors, another in each experience.
    HalfFreeze(crate::methods::hft::HftSettings),
    /// A second step of its own towards the stored probabilities (FDR).
    FunctionDistance(crate::methods::fdr::FdrStep),
    /// Keeps records whose gradients point apart (GSS).
    Gss(crate::methods::gss::GssSettings),
    /// Holds the answers at learned anchors (HAL).
    Hal(crate::methods::hal::HalSettings),
    /// Unlearns a little before each step.
    Refresh(crate::methods::refresh::RefreshSettings),
    /// Fine-tunes the most sensitive layers on the memory, at times.
    Fpf(crate::methods::fpf::FpfSettings),
    /// Shows every new example in several views at once.
    ViewBatch(crate::methods::views::ViewBatchSettings),
    /// Keeps exemplars by herding, and answers with the nearest mean of them (iCaRL).
    Herding(crate::methods::icarl::HerdingSettings),
    /// Replays what a generative model draws (DGR).
    Generator(crate::methods::dgr::GeneratorSettings),
    /// Learns class centres in the first experience and holds them and the classifier.
    Centres(crate::methods::centre::CentreSettings),
    /// Biases logits by what networks say that never saw the example (MAT).
    MemorisationAware(crate::methods::mat::MatSettings),
    /// Lets the weight of the proxy contrast rise and fall (HPCR).
    ProxyCycle(crate::methods::pcr::ProxyCycleSettings),
    /// Pulls prototypes to their classes' features, and not the other way round (PRD).
    PrototypePull(crate::methods::prd::PullSettings),
    /// Learns the weights of new and replayed rows (relational experience replay).
    Relational(crate::methods::rer::RelationalSettings),
    /// Weighs two distillations by the shares of old classes and of replayed rows.
    TwoLevels(crate::methods::rkd::TwoLevelsSettings),
    /// Weighs rows by how fast their group forgets (HFC).
    Compensation(crate::methods::hfc::CompensationSettings),
    /// Steps across the directions of old inputs (GPM).
    Gpm(crate::methods::gpm::GpmSettings),
    /// The same, but for old tasks that the step would help (CUBER).
    Cuber(crate::methods::cuber::CuberSettings),
    /// Freezes the units that a task uses (CLNP).
    Clnp(crate::methods::clnp::ClnpSettings),
    /// Learns which weights a task reads, and pins them (RMN).
    Relevance(crate::methods::rmn::RelevanceSettings),
    /// Gives every task rank-1 factors and shares of its own.
    Rank(crate::methods::rank::RankSettings),
    /// Follows a slow average of itself without labels (PSMT).
    Psmt(crate::methods::psmt::PsmtSettings),
    /// Stops training and answers by the means of a few examples.
    FewShot(crate::methods::few_shot::FewShotSettings),
    /// Lets slow weights follow fast ones and learn from episodes.
    FastSlow(crate::methods::fast_slow::FastSlowSettings),
    /// Replays compressed features above frozen layers (REMIND).
    Remind(crate::methods::remind::RemindSettings),
    /// Replays hidden activations below units that come of age (SHARP).
    Sharp(crate::methods::sharp::SharpSettings),
    /// Puts the keys of a key-value network among the inputs.
    Keys(crate::methods::key_value::KeysSettings),
    /// Masks to the batch's classes and weighs rows by how their gradients disagree (MVP).
    Mvp(crate::methods::mvp::MvpSettings),
    /// Classifies by a Gaussian a class, and trains the encoder for it (ProtoCL).
    #[serde(rename = "protocl")]
    ProtoCl(crate::methods::protocl::ProtoClSettings),
    /// Descends on a quantile of the environments' risks.
    QuantileRisk(crate::methods::quantile::QuantileSettings),
    /// Pulls the gates of an adapter's ranks to 0 (CoDyRA).
    SparseGates(crate::methods::codyra::SparseGatesSettings),
    /// Puts a price on the switches of adapters (selective LoRA).
    SwitchPrice(crate::methods::selective_lora::SwitchPriceSettings),
    /// Keeps an adapter small where earlier ones were large (RegLoRA).
    KeyElements(crate::methods::reg_lora::KeyElementsSettings),
    /// Freezes the columns that old texts use (SSU).
    SourceShield(crate::methods::ssu::SsuSettings),
    /// Freezes the embedding and the lowest blocks.
    BottomFrozen(crate::methods::bottom_frozen::BottomFrozenSettings),
    /// Trains some kinds of matrices and holds everything else.
    TrainParts(crate::methods::train_parts::TrainPartsSettings),
    /// Trains the neurons that all languages need, or the new one above others.
    LanguageNeurons(crate::methods::language_neurons::LanguageNeuronsSettings),
    /// Draws the embedding anew every so many steps.
    EmbeddingReset(crate::methods::embedding_reset::EmbeddingResetSettings),
    /// Trains the blocks that turn the stream most.
    ChosenBlocks(crate::methods::chosen_blocks::ChosenBlocksSettings),
    /// Replays the examples of a plan (card S000).
    Planned(crate::methods::planned::PlannedSettings),
    /// Pulls the weights back to where they were, every few steps (Reptile).
    Reptile(crate::methods::reptile::ReptileSettings),
    /// Replays general examples and holds them where the model that began had them (GeRe).
    Gere(crate::methods::gere::GereSettings),
}

impl PluginSpec {
    /// The support of the rows it adds to batches, if it adds any; terms may name it.
    pub fn support(&self) -> Option<&'static str> {
        match self {
            PluginSpec::Mir(_) => Some("replay:mir"),
            PluginSpec::ViewBatch(_) => Some(crate::methods::views::SUPPORT),
            PluginSpec::Generator(_) => Some(crate::methods::dgr::SUPPORT),
            PluginSpec::Remind(_) => Some(crate::methods::remind::SUPPORT),
            PluginSpec::Sharp(_) => Some(crate::methods::sharp::SUPPORT),
            PluginSpec::QuantileRisk(_) => Some(crate::methods::quantile::SUPPORT),
            PluginSpec::Planned(_) => Some(crate::methods::planned::SUPPORT),
            PluginSpec::Gere(_) => Some(crate::methods::gere::SUPPORT),
            _ => None,
        }
    }

    /// Whether it trains the classifier at the labels of new rows itself.
    pub fn teaches_labels(&self) -> bool {
        matches!(self, PluginSpec::PrototypePull(_))
    }

    /// Whether it turns the gradient so that what is known stays as it is.
    pub fn projects(&self) -> bool {
        matches!(self, PluginSpec::Gpm(_) | PluginSpec::Cuber(_))
    }

    /// Its kind, as recipes write it.
    pub fn kind(&self) -> String {
        let table = toml::Table::try_from(self).unwrap_or_default();
        let kind = table.get("kind").and_then(toml::Value::as_str);
        kind.unwrap_or_default().to_owned()
    }

    /// Whether it does nothing without remembered examples.
    pub fn needs_memory(&self) -> bool {
        use PluginSpec as P;
        self.chooses()
            || matches!(
                self,
                P::Mir(_) | P::FunctionDistance(_) | P::Relational(_) | P::Hal(_) | P::Fpf(_)
            )
    }

    /// Whether it chooses what a memory with `keep = "chosen"` holds.
    pub fn chooses(&self) -> bool {
        use PluginSpec as P;
        matches!(self, P::Gss(_) | P::Herding(_) | P::Remind(_) | P::Sharp(_))
    }

    /// Whether it works on the parts of a language model, whatever it reads.
    pub fn of_blocks(&self) -> bool {
        use PluginSpec as P;
        matches!(
            self,
            P::SourceShield(_)
                | P::BottomFrozen(_)
                | P::TrainParts(_)
                | P::LanguageNeurons(_)
                | P::EmbeddingReset(_)
                | P::ChosenBlocks(_)
        )
    }

    /// Whether it needs the logits of remembered examples to be stored.
    pub fn stores_logits(&self) -> bool {
        match self {
            PluginSpec::FunctionDistance(_) => true,
            PluginSpec::Fpf(s) => s.alpha > 0.0,
            _ => false,
        }
    }
}

/// Which outputs the cross-entropy of a row competes against, outside task-incremental streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossClasses {
    /// Every output.
    #[default]
    All,
    /// Classes of this experience and of earlier ones.
    Seen,
    /// Classes that occur in the same batch (card S121).
    Batch,
}

/// Over what a mean is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReductionSpec {
    /// One mean over all rows of the batch, new and replayed together.
    #[default]
    MeanOverRows,
    /// The sum of each term's mean over its own rows.
    SumOfMeans,
}

/// How the network is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct TrainSpec {
    /// The optimizer.
    pub optimizer: OptimizerKind,
    /// Peak learning rate.
    pub lr: f64,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Nesterov's form of it.
    pub nesterov: bool,
    /// Adam's decays.
    pub betas: [f64; 2],
    /// Added to the root in Adam and Adagrad.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Start the optimizer anew at each experience.
    pub reset_optimizer: bool,
    /// Passes over an experience.
    pub epochs: usize,
    /// Steps an experience, instead of `epochs` (the data is passed over as often as needed).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// New rows a step.
    pub batch: usize,
    /// Over what a mean is taken; left out: as the method's paper does, else over all rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduction: Option<ReductionSpec>,
    /// Which outputs the cross-entropy competes against.
    pub classes: LossClasses,
    /// The course of the learning rate.
    pub schedule: Schedule,
    /// Longest gradient (its norm is cut to this).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// Paths (with `*`) that stay bit for bit as they are from the second experience on.
    pub freeze: Vec<String>,
    /// Paths (with `*`) of the only parameters that are trained at all (beside an adapter's): the
    /// others have neither gradients nor moments. Left out: every parameter, or the adapter alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// Examples in one pass of a language model: a step goes through its rows in parts of this
    /// size and adds the gradients up, to the step that all of them at once would make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// Keep the inputs of a language model's blocks alone and compute what lies within a second
    /// time: less memory, more time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub checkpoint: bool,
}

impl TrainSpec {
    /// What an optimizer is built from.
    pub fn optimizer_settings(&self) -> OptimizerSettings {
        OptimizerSettings {
            kind: self.optimizer,
            momentum: self.momentum,
            nesterov: self.nesterov,
            betas: self.betas,
            eps: self.eps,
            weight_decay: self.weight_decay,
        }
    }
}

impl Default for TrainSpec {
    fn default() -> Self {
        Self {
            optimizer: OptimizerKind::Sgd,
            lr: 0.1,
            momentum: 0.0,
            nesterov: false,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            reset_optimizer: false,
            epochs: 1,
            steps: None,
            batch: 10,
            reduction: None,
            classes: LossClasses::default(),
            schedule: Schedule::default(),
            clip: None,
            freeze: Vec::new(),
            only: Vec::new(),
            micro_batch: None,
            checkpoint: false,
        }
    }
}

/// After which experiences every test set is evaluated whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndsSpec {
    /// After each, and before the first.
    #[default]
    Each,
    /// After the last alone: final accuracy without forgetting and transfer, for long streams of
    /// large test sets.
    Last,
}

impl EndsSpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is measured on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct EvaluateSpec {
    /// After which experiences every test set is evaluated whole.
    #[serde(skip_serializing_if = "EndsSpec::is_default")]
    pub ends: EndsSpec,
    /// Evaluate the panel every so many steps; 0: only at the ends of experiences.
    pub every: u64,
    /// Fixed cases an experience on the panel.
    pub panel: usize,
    /// Record loss and correctness of each test example at each end of an experience.
    pub outcomes: bool,
    /// Count, for each training example, how often it turns from right to wrong (card S042).
    pub forgetting_events: bool,
    /// So many questions of each test set of texts are also answered in the model's own words, so
    /// that a lost form is told apart from lost content (card S036); 0: none.
    #[serde(skip_serializing_if = "is_zero")]
    pub answers: usize,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl Default for EvaluateSpec {
    fn default() -> Self {
        Self {
            ends: EndsSpec::default(),
            every: 10,
            panel: 200,
            outcomes: true,
            forgetting_events: false,
            answers: 0,
        }
    }
}

/// What is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct SaveSpec {
    /// A checkpoint every so many steps; a killed run repeats at most these.
    pub checkpoint_every: u64,
    /// States kept besides the ends of experiences.
    pub keep: usize,
    /// Keep the state at the end of every experience, not only the last ones.
    pub experience_ends: bool,
}

impl Default for SaveSpec {
    fn default() -> Self {
        Self {
            checkpoint_every: 1000,
            keep: 2,
            experience_ends: true,
        }
    }
}
