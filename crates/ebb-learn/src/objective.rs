//! Lowers the terms of a recipe to the objective of one experience.

use crate::seen::{ClassSets, head, outputs, seen_columns, seen_heads};
use crate::spec::{ClassesSpec, LossSpec, PluginSpec, RecipeFile, ReductionSpec, TermSpec};
use ebb_data::{Scenario, Stream};
use ebb_space::{
    Choices, Classes, Combinator, Divergence, Generator, Key, Normalisation, Objective, Reduction,
    Reference, Shift, Term, Weighting, presets,
};

/// The objective while experience `index` is trained. Terms that look at old classes come in from
/// the second experience on; with a head a task there is one for each earlier head. Cross-entropy
/// on the new rows is added where no term teaches their labels.
pub fn objective(recipe: &RecipeFile, stream: &Stream, index: usize) -> Objective {
    let reduction = match recipe.train.reduction.unwrap_or_default() {
        ReductionSpec::MeanOverRows => Reduction::MeanOverRows,
        ReductionSpec::SumOfMeans => Reduction::SumOfMeans,
    };
    let mut terms: Vec<Term> = recipe
        .term
        .iter()
        .flat_map(|spec| lower(spec, recipe, stream, index))
        .collect();
    let teaches = |t: &TermSpec| {
        let on_new = t.on == "new" || t.on == "all";
        // A term on the new classes is none where all were met before.
        on_new && teaches_labels(t, index) && !lower(t, recipe, stream, index).is_empty()
    };
    let taught = recipe.plugin.iter().any(PluginSpec::teaches_labels);
    if !taught && !recipe.term.iter().any(teaches) {
        terms.insert(0, presets::cross_entropy("new"));
    }
    Objective { terms, reduction }
}

/// Whether a loss trains the classifier at the labels of its rows. Rankings put the label first,
/// once there is a teacher to order the others.
fn teaches_labels(spec: &TermSpec, index: usize) -> bool {
    use LossSpec as L;
    match spec.loss {
        L::CrossEntropy | L::ShiftedCrossEntropy => true,
        L::Bernoulli | L::ProxyContrast => spec.classes != ClassesSpec::Old,
        L::PlackettLuce | L::ListMle | L::PlackettLuceScrambled => {
            index > 0 && spec.classes != ClassesSpec::Old
        }
        _ => false,
    }
}

/// Cross-entropy over everything in a batch: what gradients on remembered rows are taken of.
pub fn remembering() -> Objective {
    Objective {
        terms: vec![presets::cross_entropy("all")],
        reduction: Reduction::MeanOverRows,
    }
}

fn lower(spec: &TermSpec, recipe: &RecipeFile, stream: &Stream, index: usize) -> Vec<Term> {
    let mut terms = base(spec, recipe.seed);
    if index == 0 {
        terms.retain(|term| term.reference != Reference::Teacher);
    }
    let padded = spec.loss == LossSpec::PaddedDistillation;
    let classes = match spec.classes {
        ClassesSpec::Scenario if padded => ClassesSpec::Old,
        classes => classes,
    };
    // Each set of classes has terms of its own.
    let sets = match classes {
        ClassesSpec::Scenario => {
            return shared(spec, terms, index, 1, competing(recipe, stream, index));
        }
        ClassesSpec::All => vec![vec![true; outputs(stream)]],
        ClassesSpec::Old if index == 0 => Vec::new(),
        ClassesSpec::Old => match stream.scenario {
            Scenario::Task => seen_heads(stream, index)
                .into_iter()
                .filter(|h| *h != stream.experiences[index].task)
                .map(|h| members(stream, head(stream, h)))
                .collect(),
            Scenario::Domain => vec![vec![true; outputs(stream)]],
            Scenario::Class => vec![members(stream, seen_columns(stream, index))],
        },
        ClassesSpec::New => match stream.scenario {
            Scenario::Task => vec![members(
                stream,
                head(stream, stream.experiences[index].task),
            )],
            Scenario::Domain => vec![vec![true; outputs(stream)]],
            Scenario::Class => {
                let mut new = members(stream, seen_columns(stream, index + 1));
                seen_columns(stream, index)
                    .into_iter()
                    .for_each(|c| new[c] = false);
                vec![new]
            }
        },
    };
    let sets: Vec<Vec<bool>> = (sets.into_iter())
        .filter(|set| set.contains(&true))
        .collect();
    let n = sets.len();
    let of_set = |set: Vec<bool>| {
        if padded && stream.scenario == Scenario::Class {
            let t = spec.temperature.unwrap_or(1.0);
            let term = wrap(spec, presets::padded_distillation(&spec.on, set, t));
            let size = competing(recipe, stream, index);
            return shared(spec, vec![term], index, n, size);
        }
        let size = set.iter().filter(|c| **c).count();
        let only = Combinator::Mask(Classes::Only(set));
        let terms = terms.iter().map(|term| term.clone().with(only.clone()));
        shared(spec, terms.collect(), index, n, size)
    };
    sets.into_iter().flat_map(of_set).collect()
}

/// The outputs that compete in a row of the experience.
fn competing(recipe: &RecipeFile, stream: &Stream, index: usize) -> usize {
    let sets = ClassSets::at(stream, index, recipe.train.classes).sets;
    sets[0].iter().filter(|c| **c).count()
}

/// Terms on one of `sets` sets, of `size` classes, with their part of the whole.
fn shared(
    spec: &TermSpec,
    mut terms: Vec<Term>,
    index: usize,
    sets: usize,
    size: usize,
) -> Vec<Term> {
    let mean = if spec.per_class { size.max(1) } else { 1 };
    let factor = spec.share.factor(index, sets) / mean as f64;
    terms.iter_mut().for_each(|term| term.weight *= factor);
    terms
}

fn members(stream: &Stream, columns: impl IntoIterator<Item = usize>) -> Vec<bool> {
    let mut set = vec![false; outputs(stream)];
    for c in columns {
        set[c] = true;
    }
    set
}

/// Whether a term of a recipe compares with `reference`.
pub fn asks(spec: &TermSpec, reference: Reference) -> bool {
    base(spec, 0).iter().any(|term| term.reference == reference)
}

/// Whether a term of a recipe needs the logits of remembered examples to be stored.
pub fn stores_logits(spec: &TermSpec) -> bool {
    spec.on.starts_with("replay") && asks(spec, Reference::StoredLogits)
}

/// Whether a term of a recipe needs the features of remembered examples to be stored.
pub fn stores_features(spec: &TermSpec) -> bool {
    spec.on.starts_with("replay") && asks(spec, Reference::StoredFeatures)
}

/// The terms that a loss stands for, over all classes or the scenario's.
pub(crate) fn base(spec: &TermSpec, seed: u64) -> Vec<Term> {
    use LossSpec as L;
    let on = spec.on.as_str();
    let t = |otherwise: f64| spec.temperature.unwrap_or(otherwise);
    let teacher = Reference::Teacher;
    let of_rows = |term: Term| match spec.classes {
        ClassesSpec::Scenario => term.with(Combinator::Mask(Classes::Row)),
        ClassesSpec::All | ClassesSpec::Old | ClassesSpec::New => term,
    };
    let divergence = |generator| Term {
        divergence: Divergence::F(generator),
        ..presets::distillation(on, teacher, t(1.0))
    };
    let ranking = |choices| of_rows(presets::plackett_luce(on, choices));
    let believed = || ranking(Choices::TeacherMass { t: t(1.0) });
    let one = match spec.loss {
        L::CrossEntropy => presets::cross_entropy(on),
        L::LogitsL2 => presets::logits_l2(on, Normalisation::ElementMean),
        L::Distillation => of_rows(presets::distillation(on, teacher, t(1.0))),
        L::LogitsKl => presets::distillation(on, Reference::StoredLogits, t(1.0))
            .with(Combinator::Mask(Classes::Row)),
        L::FeaturesL2 => presets::feature_l2(on, teacher, Normalisation::HalfSum),
        L::Confidence => presets::cpr(on),
        L::Bernoulli => of_rows(presets::bernoulli(on, Reference::Label)),
        L::BernoulliDistillation => {
            let (t, squared) = (t(1.0), true);
            of_rows(presets::bernoulli(on, teacher)).with(Combinator::Temper { t, squared })
        }
        L::PlackettLuce => believed(),
        L::ListMle => ranking(Choices::Equal),
        L::PlackettLuceScrambled => {
            believed().with(Combinator::Scramble(Key::new(seed, "scramble")))
        }
        L::Sinkhorn => of_rows(presets::sinkhorn(on, t(2.0))),
        L::SupCon => presets::sup_con(on, t(0.1)),
        L::PrototypeRelation => of_rows(presets::prototype_relation(on, t(1.0))),
        L::ProxyContrast => presets::proxy_contrast(on, t(1.0)),
        L::ProxyDistillation => presets::proxy_distillation(on),
        L::SimilarityDistillation => presets::similarity_distillation(on, teacher, t(0.09)),
        L::StoredSimilarity => {
            presets::similarity_distillation(on, Reference::StoredFeatures, t(0.09))
        }
        L::ReverseDistillation => of_rows(divergence(Generator::ReverseKl)),
        L::JensenShannonDistillation => of_rows(divergence(Generator::JensenShannon)),
        L::JeffreysDistillation => of_rows(divergence(Generator::Jeffreys)),
        L::TotalVariationDistillation => of_rows(divergence(Generator::TotalVariation)),
        L::FunctionDistance => of_rows(presets::fdr(on)),
        L::Centre => Term {
            name: "centre".into(),
            ..presets::feature_l2(on, Reference::Prototype, Normalisation::ElementMean)
        }
        .with(Combinator::Scale(0.5)),
        L::ShiftedCrossEntropy => Term {
            name: "shifted-cross-entropy".into(),
            ..presets::cross_entropy(on)
        }
        .with(Combinator::Shift(Shift::PerRow)),
        L::StoredFeaturesL2 => {
            presets::feature_l2(on, Reference::StoredFeatures, Normalisation::ElementMean)
        }
        L::ThresholdMargin => presets::threshold_margin(on),
        // Padded where old and new classes compete, which the experience tells.
        L::PaddedDistillation => presets::distillation(on, teacher, t(1.0)),
        L::BalancedDistillation | L::BalancedDistillationReversed => {
            // Card S175's width, in nats.
            let reversed = spec.loss == L::BalancedDistillationReversed;
            let kappa = if reversed { -0.5 } else { 0.5 };
            let both = presets::balanced_distillation(on, t(1.0), kappa);
            return both.map(|term| wrap(spec, of_rows(term))).to_vec();
        }
    };
    vec![wrap(spec, one)]
}

fn wrap(spec: &TermSpec, mut term: Term) -> Term {
    if let Some(threshold) = spec.gate {
        term = term.with(Combinator::Gate(threshold));
    }
    if spec.balanced {
        term = term.with(Combinator::Weight(Weighting::AsLabels));
    }
    term.weighted(spec.weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    /// The terms at each of the first two experiences: name, reference, and the classes of the
    /// mask that the recipe's `classes` made.
    fn lowered(scenario: &str, terms: &str) -> [Vec<(String, Reference, Vec<usize>)>; 2] {
        let stream =
            format!("[stream]\ndataset = \"digits\"\nsplit = 5\nscenario = \"{scenario}\"\n");
        let memory =
            "memory = { capacity = 50, keep = \"reservoir\" }\ndraw.a = { select = \"uniform\" }\n";
        let recipe = Recipe::parse(&format!("{memory}term = [{terms}]\n{stream}"), &[]);
        let recipe = recipe.expect("a recipe");
        let file = recipe.file();
        let stream = file.stream.build(&std::env::temp_dir(), 0).expect("digits");
        [0, 1].map(|index| {
            let objective = objective(file, &stream, index);
            objective.validate().expect("terms that fit");
            let set = |c: &Combinator| match c {
                Combinator::Mask(Classes::Only(set)) => {
                    Some((0..set.len()).filter(|&c| set[c]).collect())
                }
                _ => None,
            };
            let each = |t: &Term| {
                let classes = t.combinators.iter().find_map(set);
                (t.name.clone(), t.reference, classes.unwrap_or_default())
            };
            objective.terms.iter().map(each).collect()
        })
    }

    #[test]
    fn new_and_old_classes_divide_the_loss_of_icarl() {
        let terms = r#"{ on = "all", loss = "bernoulli", classes = "new" },
                       { on = "all", loss = "bernoulli-distillation", classes = "old" }"#;
        let name = || "bernoulli".to_owned();
        let [first, second] = lowered("class", terms);
        assert_eq!(first, [(name(), Reference::Label, vec![0, 1])]);
        assert_eq!(
            second,
            [
                (name(), Reference::Label, vec![2, 3]),
                (name(), Reference::Teacher, vec![0, 1])
            ]
        );
        let [_, second] = lowered("task", terms);
        assert_eq!(second[0].2, [2, 3]); // the head of the second task
        assert_eq!(second[1].2, [0, 1]);
    }

    /// `share` is the weighting of van de Ven & Tolias: `1/t` on the new rows, `1 − 1/t` on the old,
    /// divided among heads; `per-class` divides by the classes the student's softmax runs over.
    #[test]
    fn shares_follow_the_number_of_experiences() {
        let terms = r#"{ on = "new", loss = "cross-entropy", share = "new" },
                       { on = "new", loss = "padded-distillation", temperature = 2.0,
                         share = "old", per-class = true, weight = 3.0 }"#;
        let weights = |scenario: &str, index: usize| {
            let text = format!(
                "term = [{terms}]\n[train]\nclasses = \"seen\"\n\
                 [stream]\ndataset = \"digits\"\nsplit = 5\nscenario = \"{scenario}\"\n"
            );
            let recipe = Recipe::parse(&text, &[]).expect("a recipe");
            let stream = recipe.file().stream.build(&std::env::temp_dir(), 0);
            let objective = objective(recipe.file(), &stream.expect("digits"), index);
            objective.validate().expect("terms that fit");
            (objective.terms.iter().map(|t| t.weight)).collect::<Vec<f64>>()
        };
        assert_eq!(weights("class", 0), [1.0]);
        // The fourth of five experiences: eight classes compete, of which the teacher knows six.
        assert_eq!(weights("class", 3), [0.25, 3.0 * 0.75 / 8.0]);
        assert_eq!(weights("domain", 3), [0.25, 3.0 * 0.75 / 2.0]);
        let head = 3.0 * (1.0 - 0.25) / 3.0 / 2.0;
        assert_eq!(weights("task", 3), [0.25, head, head, head]);
    }

    /// Where an experience brings no class that is new, a term on the new classes teaches nothing.
    #[test]
    fn old_classes_alone_are_taught_by_cross_entropy() {
        let recipe = Recipe::parse(
            "method = \"icarl\"\n[stream]\ndataset = \"digits\"\nsplit = 5\nscenario = \"class\"\n",
            &[],
        );
        let recipe = recipe.expect("a recipe");
        let file = recipe.file();
        let mut stream = file.stream.build(&std::env::temp_dir(), 0).expect("digits");
        let own = |stream: &Stream| {
            let terms = objective(file, stream, 1).terms;
            terms.iter().map(|t| t.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(own(&stream), ["bernoulli", "bernoulli"]);
        stream.experiences[1] = stream.experiences[0].clone();
        assert_eq!(own(&stream), ["cross-entropy", "bernoulli"]);
    }

    #[test]
    fn cross_entropy_is_added_where_no_term_teaches_the_new_labels() {
        let names = |terms: &str| {
            lowered("class", terms).map(|terms| {
                let names = terms.into_iter().map(|(name, ..)| name);
                names.collect::<Vec<_>>().join(" ")
            })
        };
        for (terms, first, second) in [
            ("", "cross-entropy", "cross-entropy"),
            (
                r#"{ on = "new", loss = "plackett-luce" }"#,
                "cross-entropy",
                "plackett-luce",
            ),
            (
                r#"{ on = "new", loss = "plackett-luce", classes = "old" }"#,
                "cross-entropy",
                "cross-entropy plackett-luce",
            ),
            (
                r#"{ on = "all", loss = "proxy-contrast" }"#,
                "proxy-contrast",
                "proxy-contrast",
            ),
            (
                r#"{ on = "replay", loss = "proxy-contrast" }, { on = "all", loss = "sup-con" }"#,
                "cross-entropy proxy-contrast sup-con",
                "cross-entropy proxy-contrast sup-con",
            ),
            (
                r#"{ on = "new", loss = "balanced-distillation", temperature = 2.0 }"#,
                "cross-entropy",
                "cross-entropy balanced-forward balanced-reverse",
            ),
        ] {
            assert_eq!(names(terms), [first, second], "{terms}");
        }
    }
}
