//! Study files: a claim, the arms that test it, what they must show and what must not hold.
//!
//! A file is read unchecked and becomes a [`Study`] in one place; a study that names an arm that
//! does not exist, a recipe that is refused, or a test that cannot reach its level does not run.

use crate::clause::Clause;
use crate::error::{Error, Result};
use crate::measure::Measure;
use crate::reference::RowSpec;
use crate::variation::Variation;
use ebb_learn::Recipe;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A study that was read and checked.
#[derive(Clone, Debug)]
pub struct Study {
    /// The card's id, or `R01` for reference rows.
    pub id: String,
    /// What it is about, in a few words.
    pub title: String,
    /// What is claimed.
    pub claim: String,
    /// Who claims it.
    pub source: String,
    /// Whether CI reruns it.
    pub fast: bool,
    /// Wall-clock seconds it should stay within on two cores.
    pub budget_s: f64,
    /// What a reader should know: deviations from the card, what is left out.
    pub notes: Vec<String>,
    /// The seeds of its runs.
    pub seeds: Vec<u64>,
    /// How it is run.
    pub plan: Plan,
    /// BLAKE3 of the file's text.
    pub file_hash: String,
}

/// How a study is run.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Arms times seeds, judged by clauses.
    Arms(Box<Arms>),
    /// Arms times seeds, each compared with a published figure.
    Reference(Box<Reference>),
    /// Code of its own; where it measures arms, clauses may judge them.
    Native(Box<Native>, Claims),
}

/// Arms, and what is expected of them.
#[derive(Clone, Debug, Default)]
pub struct Arms {
    /// By name.
    pub arms: BTreeMap<String, Arm>,
    /// How coefficients are chosen, if any are.
    pub tune: Option<Tune>,
    /// Measures with a name of their own.
    pub measures: BTreeMap<String, Measure>,
    /// Measures that are reported for every arm, whether a clause asks for them or not.
    pub report: Vec<String>,
    /// What is expected of them.
    pub claims: Claims,
}

/// What is expected, and what must not be found.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// What must hold, by name.
    pub expect: BTreeMap<String, Clause>,
    /// What must not, by name.
    pub controls: BTreeMap<String, Control>,
}

/// A recipe in the comparison.
#[derive(Clone, Debug)]
pub struct Arm {
    /// What it stands for.
    pub about: String,
    /// The recipe as written, without a seed.
    pub recipe: toml::Table,
    /// What it sees of its stream.
    pub variation: Variation,
    /// The recipe of the model it begins from, if it does not begin afresh; every arm and every
    /// trial with the same one and the same seed begins from the same weights.
    pub start: Option<toml::Table>,
}

/// One rule for every arm that has a coefficient to choose.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tune {
    /// Experiences of the stream it may see.
    pub experiences: usize,
    /// Seeds of its trials; none of them is a seed of the study.
    pub seeds: Vec<u64>,
    /// The measure whose mean over these seeds is to be as good as possible: large, or small if it
    /// is one of which less is better.
    #[serde(alias = "best")]
    pub maximise: String,
    /// Whether trials are measured on the test sets of what they see, in the place of examples held
    /// out of it: for claims about examples that were learnt, where the two are the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_tests: bool,
    /// By arm: every key of its recipe with the values tried; several keys are crossed.
    pub grid: BTreeMap<String, BTreeMap<String, Vec<toml::Value>>>,
}

/// Something that must not hold.
#[derive(Clone, Debug)]
pub struct Control {
    /// Why it must not.
    pub about: String,
    /// The clauses, with the arms already in their place. They hold if all do.
    pub clauses: Vec<(String, Clause)>,
}

/// Reference rows.
#[derive(Clone, Debug)]
pub struct Reference {
    /// By name.
    pub arms: BTreeMap<String, Arm>,
    /// The table's rows.
    pub rows: BTreeMap<String, RowSpec>,
    /// The measure compared, in percent.
    pub measure: String,
    /// Seeds that may be added while an interval is too wide.
    pub most_seeds: usize,
    /// Widest half of our 95 % interval, in points.
    pub half_width: f64,
    /// Allowed besides the two standard errors, in points.
    pub slack: f64,
}

/// Studies with code of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "world", deny_unknown_fields)]
pub enum Native {
    /// Minimum-norm regression (card S059).
    MinimumNorm {
        /// Independent draws.
        draws: usize,
    },
    /// Two regressions, one rotated (card S041).
    RotatedPair {
        /// Independent draws.
        draws: usize,
    },
    /// Exact inference, task by task (card S188).
    SequentialBayes {
        /// Independent draws.
        draws: usize,
    },
    /// Sequential max-margin classification (card S095).
    MaxMargin {
        /// Independent draws.
        draws: usize,
    },
    /// A rule behind a spurious feature (card S101).
    Spurious {
        /// Independent draws.
        draws: usize,
    },
    /// The ideal continual learner on least squares (card S034).
    Ideal {
        /// Independent draws.
        draws: usize,
    },
    /// Forgetting events and what they find (card S042).
    ForgettingEvents(crate::native::ForgettingEventsSpec),
    /// Open-set recognition and active queries (card S210).
    OpenSet(crate::native::OpenSetSpec),
    /// Layer scaling of one model and of merges (card S153).
    LayerScaling(crate::native::LayerScalingSpec),
    /// Erasers beside models that never saw what they erase (cards S015, S078, S120).
    Erasing(crate::native::ErasingSpec),
    /// Forgetting forecast from an association matrix (card S000).
    Forecast(Box<crate::native::ForecastSpec>),
    /// Recognition, recall and retention of texts that were seen a few times (card S060).
    FewShot(crate::language::few_shot::Spec),
    /// How facts are acquired while other text is learnt, and how they fade (card S194).
    Acquisition(crate::language::acquisition::Spec),
    /// Decoding rules against text that repeats itself (card S085).
    Decoding(crate::language::decoding::Spec),
    /// What a new task seems to erase, and how it comes back (card S092).
    Alignment(crate::language::alignment::Spec),
    /// Attention or gate and up alone, and the lean towards a skill's answers (card S038).
    OutputBias(crate::language::output_bias::Spec),
    /// The neurons that languages need (card S025).
    LanguageNeurons(crate::language::neurons::Spec),
    /// Embeddings that are drawn anew, for good or for a time (card S083).
    DualProcess(crate::language::dual_process::Spec),
    /// Raw text in another language for a model that was taught to answer (card S089).
    Aligned(crate::language::aligned::Spec),
    /// Columns that old texts use, frozen (card S017).
    Shield(crate::language::shield::Spec),
}

impl Native {
    /// Whether it trains or asks language models.
    pub fn is_language(&self) -> bool {
        matches!(
            self,
            Native::FewShot(_)
                | Native::Acquisition(_)
                | Native::Decoding(_)
                | Native::Shield(_)
                | Native::Alignment(_)
                | Native::OutputBias(_)
                | Native::Aligned(_)
                | Native::DualProcess(_)
                | Native::LanguageNeurons(_)
        )
    }

    /// The arms that clauses may name.
    pub fn arms(&self) -> &'static [&'static str] {
        match self {
            Native::ForgettingEvents(_) => crate::native::FORGETTING_EVENTS_ARMS,
            Native::OpenSet(_) => crate::native::OPEN_SET_ARMS,
            Native::LayerScaling(_) => crate::native::LAYER_SCALING_ARMS,
            Native::Erasing(_) => crate::native::ERASING_ARMS,
            Native::Forecast(_) => crate::native::FORECAST_ARMS,
            Native::FewShot(_) => crate::language::few_shot::ARMS,
            Native::Acquisition(_) => crate::language::acquisition::ARMS,
            Native::Decoding(_) => crate::language::decoding::ARMS,
            Native::Alignment(_) => crate::language::alignment::ARMS,
            Native::OutputBias(_) => crate::language::output_bias::ARMS,
            Native::LanguageNeurons(_) => crate::language::neurons::ARMS,
            Native::DualProcess(_) => crate::language::dual_process::ARMS,
            Native::Aligned(_) => crate::language::aligned::ARMS,
            Native::Shield(_) => crate::language::shield::ARMS,
            Native::SequentialBayes { .. }
            | Native::MinimumNorm { .. }
            | Native::RotatedPair { .. }
            | Native::MaxMargin { .. }
            | Native::Spurious { .. }
            | Native::Ideal { .. } => &[],
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    id: String,
    title: String,
    claim: String,
    source: String,
    #[serde(default)]
    fast: bool,
    budget_s: f64,
    #[serde(default)]
    notes: Vec<String>,
    seeds: Option<Seeds>,
    #[serde(default)]
    base: toml::Table,
    /// Changes to `base` that make the recipe of the model that all arms begin from.
    start: Option<toml::Table>,
    #[serde(default)]
    arm: BTreeMap<String, RawArm>,
    tune: Option<Tune>,
    #[serde(default)]
    measure: BTreeMap<String, Measure>,
    #[serde(default)]
    report: Vec<String>,
    #[serde(default)]
    expect: BTreeMap<String, String>,
    #[serde(default)]
    control: BTreeMap<String, RawControl>,
    reference: Option<RawReference>,
    native: Option<Native>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number of seeds or a list of them")]
enum Seeds {
    Count(u64),
    List(Vec<u64>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArm {
    #[serde(default)]
    about: String,
    #[serde(default)]
    set: toml::Table,
    #[serde(default)]
    shows: Variation,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawControl {
    about: String,
    #[serde(default)]
    replace: BTreeMap<String, String>,
    clauses: Option<Vec<String>>,
    statement: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReference {
    measure: String,
    most_seeds: usize,
    half_width: f64,
    slack: f64,
    row: BTreeMap<String, RowSpec>,
}

impl Study {
    /// Reads a study; `name` stands for it in errors.
    ///
    /// # Errors
    /// [`Error::Study`], [`Error::Clause`], [`Error::Unreachable`], and what its recipes refuse.
    pub fn parse(name: &str, text: &str) -> Result<Study> {
        let file: File = toml::from_str(text).map_err(|e| Error::Study {
            id: name.to_owned(),
            reason: e.to_string().trim_end().to_owned(),
        })?;
        let wrong = |reason: String| Error::Study {
            id: file.id.clone(),
            reason,
        };
        if !file.budget_s.is_finite() || file.budget_s <= 0.0 {
            return Err(wrong("`budget_s` is a number of seconds above 0".into()));
        }
        let seeds = match &file.seeds {
            Some(Seeds::Count(n)) => (1..=*n).collect(),
            Some(Seeds::List(list)) => list.clone(),
            None => vec![0],
        };
        if seeds.iter().collect::<BTreeSet<_>>().len() != seeds.len() || seeds.is_empty() {
            return Err(wrong("`seeds` names no seed, or one twice".into()));
        }
        let mut arms = BTreeMap::new();
        for (name, raw) in &file.arm {
            let arm = Arm {
                about: raw.about.clone(),
                recipe: merged(&file.base, &raw.set),
                variation: raw.shows,
                start: file.start.as_ref().map(|start| merged(&file.base, start)),
            };
            // Whatever is wrong with a recipe is wrong before the first run.
            arm.recipe(0, &[])
                .map_err(|e| wrong(format!("arm `{name}`: {e}")))?;
            if let Some(Err(e)) = arm.start(0) {
                return Err(wrong(format!("`start`: {e}")));
            }
            arms.insert(name.clone(), arm);
        }
        let plan = match (&file.native, &file.reference) {
            (Some(_), Some(_)) => {
                return Err(wrong("`native` and `reference` exclude each other".into()));
            }
            (Some(native), None) => {
                if !arms.is_empty() || file.tune.is_some() {
                    return Err(wrong(
                        "a native study has no recipes and nothing to tune".into(),
                    ));
                }
                let names = native.arms().iter().map(|a| (*a).to_owned()).collect();
                let claims = file.claims(&names, &seeds)?;
                if claims.expect.is_empty() != names.is_empty() {
                    return Err(wrong(
                        "a native study with arms needs `expect`; one without judges itself".into(),
                    ));
                }
                Plan::Native(Box::new(native.clone()), claims)
            }
            (None, Some(reference)) => {
                Plan::Reference(Box::new(reference.checked(arms).map_err(wrong)?))
            }
            (None, None) => Plan::Arms(Box::new(file.arms(arms, &seeds)?)),
        };
        Ok(Study {
            id: file.id,
            title: file.title,
            claim: file.claim,
            source: file.source,
            fast: file.fast,
            budget_s: file.budget_s,
            notes: file.notes,
            seeds,
            plan,
            file_hash: blake3::hash(text.as_bytes()).to_hex().to_string(),
        })
    }
}

impl File {
    fn arms(&self, arms: BTreeMap<String, Arm>, seeds: &[u64]) -> Result<Arms> {
        let wrong = |reason: String| Error::Study {
            id: self.id.clone(),
            reason,
        };
        let names: BTreeSet<String> = arms.keys().cloned().collect();
        let claims = self.claims(&names, seeds)?;
        if claims.expect.is_empty() {
            return Err(wrong("a study without `expect` cannot fail".into()));
        }
        if let Some(tune) = &self.tune {
            if let Some(arm) = tune.grid.keys().find(|a| !arms.contains_key(*a)) {
                return Err(wrong(format!("`tune` names no arm `{arm}`")));
            }
            if tune.seeds.is_empty() || tune.seeds.iter().any(|s| seeds.contains(s)) {
                return Err(wrong(
                    "`tune.seeds` are at least one, and none of the study's own".into(),
                ));
            }
            if tune
                .grid
                .values()
                .any(|g| g.is_empty() || g.values().any(Vec::is_empty))
            {
                return Err(wrong("an empty `tune.grid` chooses nothing".into()));
            }
        }
        Ok(Arms {
            arms,
            tune: self.tune.clone(),
            measures: self.measure.clone(),
            report: self.report.clone(),
            claims,
        })
    }

    fn claims(&self, arms: &BTreeSet<String>, seeds: &[u64]) -> Result<Claims> {
        let mut claims = Claims::default();
        for (name, text) in &self.expect {
            claims
                .expect
                .insert(name.clone(), clause(text, arms, seeds)?);
        }
        for (name, raw) in &self.control {
            let wrong = |reason: &str| Error::Study {
                id: self.id.clone(),
                reason: format!("control `{name}`: {reason}"),
            };
            let clauses = match (&raw.statement, raw.replace.is_empty()) {
                (Some(text), true) => vec![(name.clone(), clause(text, arms, seeds)?)],
                (None, false) => {
                    let mut named = raw.replace.iter().flat_map(|(a, b)| [a, b]);
                    if let Some(arm) = named.find(|a| !arms.contains(*a)) {
                        return Err(wrong(&format!("there is no arm `{arm}`")));
                    }
                    let all: Vec<&String> = claims.expect.keys().collect();
                    let chosen = raw.clauses.as_ref().map_or(all, |c| c.iter().collect());
                    let mut clauses = Vec::new();
                    for clause in chosen {
                        let found = claims.expect.get(clause);
                        let found = found
                            .ok_or_else(|| wrong(&format!("there is no clause `{clause}`")))?;
                        clauses.push((clause.clone(), found.with_arms(&raw.replace)));
                    }
                    clauses
                }
                _ => return Err(wrong("it has either a `statement` or arms to `replace`")),
            };
            let about = raw.about.clone();
            claims
                .controls
                .insert(name.clone(), Control { about, clauses });
        }
        Ok(claims)
    }
}

fn clause(text: &str, arms: &BTreeSet<String>, seeds: &[u64]) -> Result<Clause> {
    let clause = Clause::parse(text)?;
    clause.check_level(seeds.len())?;
    match clause.names().iter().find(|(a, _)| !arms.contains(a)) {
        None => Ok(clause),
        Some((arm, _)) => Err(Error::Clause {
            clause: text.to_owned(),
            reason: format!("there is no arm `{arm}`"),
        }),
    }
}

impl RawReference {
    fn checked(&self, arms: BTreeMap<String, Arm>) -> std::result::Result<Reference, String> {
        for (name, row) in &self.row {
            for arm in [Some(&row.arm), row.zero.as_ref()].into_iter().flatten() {
                if !arms.contains_key(arm) {
                    return Err(format!("row `{name}`: there is no arm `{arm}`"));
                }
            }
            row.check().map_err(|e| format!("row `{name}`: {e}"))?;
        }
        match self.row.is_empty() {
            true => Err("`reference` has no rows".to_owned()),
            false => Ok(Reference {
                arms,
                rows: self.row.clone(),
                measure: self.measure.clone(),
                most_seeds: self.most_seeds,
                half_width: self.half_width,
                slack: self.slack,
            }),
        }
    }
}

impl Arm {
    /// The recipe with this seed, and with `sets` on top of it.
    ///
    /// # Errors
    /// When it is refused.
    pub fn recipe(&self, seed: u64, sets: &[(String, String)]) -> ebb_learn::Result<Recipe> {
        let text = self.recipe.to_string();
        let mut all = vec![("seed".to_owned(), seed.to_string())];
        all.extend_from_slice(sets);
        Recipe::parse(&text, &all)
    }

    /// The recipe of the model that it begins from, for one seed.
    pub fn start(&self, seed: u64) -> Option<ebb_learn::Result<Recipe>> {
        let text = self.start.as_ref()?.to_string();
        Some(Recipe::parse(
            &text,
            &[("seed".to_owned(), seed.to_string())],
        ))
    }
}

impl Plan {
    /// The arms, of a study that has some.
    pub fn arms(&self) -> Option<&BTreeMap<String, Arm>> {
        match self {
            Plan::Arms(a) => Some(&a.arms),
            Plan::Reference(r) => Some(&r.arms),
            Plan::Native(..) => None,
        }
    }
}

/// `set` on top of `base`: tables are joined, everything else is replaced.
fn merged(base: &toml::Table, set: &toml::Table) -> toml::Table {
    let mut all = base.clone();
    for (key, value) in set {
        let value = match (all.get(key), value) {
            (Some(toml::Value::Table(a)), toml::Value::Table(b)) => {
                toml::Value::Table(merged(a, b))
            }
            (_, value) => value.clone(),
        };
        all.insert(key.clone(), value);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#"
id = "S999"
title = "A title"
claim = "Replay forgets less"
source = "nobody"
budget_s = 10
seeds = 5
[base]
stream = { dataset = "digits", split = 5, scenario = "class" }
train = { lr = 0.1, batch = 16 }
[arm.plain]
set = { method = "fine-tune" }
[arm.er]
set = { method = "er", with = { capacity = 100 }, train = { batch = 10 } }
"#;

    fn with(rest: &str) -> Result<Study> {
        Study::parse("test", &format!("{HEAD}\n{rest}"))
    }

    const EXPECT: &str =
        "[expect]\nacc = \"paired(er.average_accuracy - plain.average_accuracy) > 0 at 0.05\"\n";

    #[test]
    fn a_study_is_read_and_its_arms_are_complete_recipes() {
        let study = with(EXPECT).unwrap();
        assert_eq!(study.seeds, [1, 2, 3, 4, 5]);
        let Plan::Arms(arms) = &study.plan else {
            panic!("arms were given")
        };
        let er = arms.arms["er"]
            .recipe(7, &[("with.capacity".into(), "30".into())])
            .unwrap();
        assert_eq!((er.file().seed, er.file().train.batch), (7, 10));
        assert_eq!(er.file().memory.as_ref().map(|m| m.capacity), Some(30));
        // Joined, not replaced: the base's learning rate is still there.
        assert_eq!(er.file().train.lr, 0.1);
        let plain = arms.arms["plain"].recipe(7, &[]).unwrap();
        assert_eq!(plain.file().train.batch, 16);
    }

    #[test]
    fn controls_put_one_arm_in_the_place_of_another() {
        let study = with(&format!(
            "{EXPECT}[control.swap]\nabout = \"the same arm\"\nreplace = {{ er = \"plain\" }}\n"
        ))
        .unwrap();
        let Plan::Arms(arms) = &study.plan else {
            panic!("arms were given")
        };
        let (_, clause) = &arms.claims.controls["swap"].clauses[0];
        assert!(clause.names().iter().all(|(arm, _)| arm == "plain"));
    }

    #[test]
    fn every_refusal_says_what_is_wrong() {
        let few = EXPECT.replace("0.05", "0.01");
        for (rest, why) in [
            ("", "cannot fail"),
            (few.as_str(), "at least 7 seeds"),
            ("[expect]\na = \"ewc.acc > 0\"", "no arm `ewc`"),
            ("[expect]\na = \"er.acc\"", "comparison"),
            (
                "[arm.bad]\nset = { method = \"emc\" }\n[expect]\na = \"er.a > 0\"",
                "arm `bad`",
            ),
            (
                "[expect]\na = \"er.a > 0\"\n[control.c]\nabout = \"x\"",
                "either a `statement`",
            ),
            (
                "[expect]\na = \"er.a > 0\"\n[control.c]\nabout = \"x\"\nreplace = { er = \"si\" }",
                "no arm `si`",
            ),
            (
                "[expect]\na = \"er.a > 0\"\n[control.c]\nabout = \"x\"\nreplace = { er = \"plain\" }\nclauses = [\"b\"]",
                "no clause `b`",
            ),
            (
                "[expect]\na = \"er.a > 0\"\n[tune]\nexperiences = 2\nseeds = [1]\nmaximise = \"x\"\ngrid = { er = { lr = [1] } }",
                "none of the study's own",
            ),
            ("colour = 3\n[expect]\na = \"er.a > 0\"", "colour"),
        ] {
            let error = with(rest).unwrap_err().to_string();
            assert!(error.contains(why), "{rest}: {error}");
        }
    }
}
