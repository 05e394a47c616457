//! Lowers the terms of a recipe to the objective of one experience.

use crate::seen::{head, outputs, seen_columns, seen_heads};
use crate::spec::{ClassesSpec, LossSpec, RecipeFile, ReductionSpec, TermSpec};
use ebb_data::{Scenario, Stream};
use ebb_space::{
    Classes, Combinator, Normalisation, Objective, Reduction, Reference, Term, presets,
};

/// The objective while experience `index` is trained. Terms that look at old classes come in from
/// the second experience on; with a head a task there is one for each earlier head.
pub fn objective(recipe: &RecipeFile, stream: &Stream, index: usize) -> Objective {
    let reduction = match recipe.train.reduction.unwrap_or_default() {
        ReductionSpec::MeanOverRows => Reduction::MeanOverRows,
        ReductionSpec::SumOfMeans => Reduction::SumOfMeans,
    };
    let mut terms: Vec<Term> = recipe
        .term
        .iter()
        .flat_map(|spec| lower(spec, stream, index))
        .collect();
    let on_new =
        |t: &TermSpec| t.loss == LossSpec::CrossEntropy && (t.on == "new" || t.on == "all");
    if !recipe.term.iter().any(on_new) {
        terms.insert(0, presets::cross_entropy("new"));
    }
    Objective { terms, reduction }
}

/// Cross-entropy over everything in a batch: what gradients on remembered rows are taken of.
pub fn remembering() -> Objective {
    Objective {
        terms: vec![presets::cross_entropy("all")],
        reduction: Reduction::MeanOverRows,
    }
}

fn lower(spec: &TermSpec, stream: &Stream, index: usize) -> Vec<Term> {
    let term = base(spec);
    if index == 0 && term.reference == Reference::Teacher {
        return Vec::new();
    }
    match spec.classes {
        ClassesSpec::Scenario => vec![term],
        ClassesSpec::All => vec![over(term, vec![true; outputs(stream)])],
        ClassesSpec::Old if index == 0 => Vec::new(),
        ClassesSpec::Old => match stream.scenario {
            Scenario::Task => seen_heads(stream, index)
                .into_iter()
                .filter(|h| *h != stream.experiences[index].task)
                .map(|h| over(term.clone(), members(stream, head(stream, h))))
                .collect(),
            Scenario::Domain => vec![over(term, vec![true; outputs(stream)])],
            Scenario::Class => {
                vec![over(term, members(stream, seen_columns(stream, index)))]
            }
        },
    }
}

fn members(stream: &Stream, columns: impl IntoIterator<Item = usize>) -> Vec<bool> {
    let mut set = vec![false; outputs(stream)];
    for c in columns {
        set[c] = true;
    }
    set
}

fn over(mut term: Term, classes: Vec<bool>) -> Term {
    term.combinators
        .push(Combinator::Mask(Classes::Only(classes)));
    term
}

fn base(spec: &TermSpec) -> Term {
    let on = spec.on.as_str();
    let mut term = match spec.loss {
        LossSpec::CrossEntropy => presets::cross_entropy(on),
        LossSpec::LogitsL2 => presets::logits_l2(on, Normalisation::ElementMean),
        LossSpec::Distillation => {
            let t = spec.temperature.unwrap_or(1.0);
            let term = presets::distillation(on, Reference::Teacher, t);
            match spec.classes {
                ClassesSpec::Scenario => term.with(Combinator::Mask(Classes::Row)),
                ClassesSpec::All | ClassesSpec::Old => term,
            }
        }
        LossSpec::LogitsKl => {
            let t = spec.temperature.unwrap_or(1.0);
            presets::distillation(on, Reference::StoredLogits, t)
                .with(Combinator::Mask(Classes::Row))
        }
        LossSpec::FeaturesL2 => presets::feature_l2(on, Reference::Teacher, Normalisation::HalfSum),
        LossSpec::Confidence => presets::cpr(on),
    };
    if let Some(threshold) = spec.gate {
        term = term.with(Combinator::Gate(threshold));
    }
    term.weighted(spec.weight)
}
