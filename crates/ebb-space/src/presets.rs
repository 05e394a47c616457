//! Published losses as terms: the table of objective.md 0.5, as far as the algebra reaches.
//! Each is of weight 1; change it with [`Term::weighted`].

use crate::term::{Carrier, Classes, Combinator, Divergence, Reference, Target, Term};
use crate::{Bregman, Generator, Normalisation};

/// Cross-entropy at the labels, within each row's class set. On `replay` it is experience replay.
pub fn cross_entropy(on: &str) -> Term {
    Term::new(
        "cross-entropy",
        on,
        Carrier::Probs,
        Divergence::CrossEntropy,
        Reference::Label,
    )
    .with(Combinator::Mask(Classes::Row))
}

/// Cross-entropy against `(1−ε) 1_y + ε/K`, within each row's class set.
pub fn smoothed_cross_entropy(on: &str, epsilon: f64) -> Term {
    cross_entropy(on).with(Combinator::Target(Target::Smooth(epsilon)))
}

/// Squared distance to the stored logits: DER (with labels on a second draw, DER++). The paper
/// has [`Normalisation::HalfSum`] up to a factor, its public code
/// [`Normalisation::ElementMean`].
pub fn logits_l2(on: &str, scale: Normalisation) -> Term {
    let divergence = Divergence::Bregman(Bregman::Squared(scale));
    Term::new(
        "logits-l2",
        on,
        Carrier::Logits,
        divergence,
        Reference::StoredLogits,
    )
}

/// `t² KL(softmax(r/t) ‖ softmax(z/t))` with r from `reference`: distillation.
pub fn distillation(on: &str, reference: Reference, t: f64) -> Term {
    Term::new(
        "distillation",
        on,
        Carrier::Probs,
        Divergence::F(Generator::ForwardKl),
        reference,
    )
    .with(Combinator::Temper { t, squared: true })
}

/// Distillation from the frozen old model at T = 2, over the given (old) classes: LwF.
pub fn lwf(on: &str, old: Classes) -> Term {
    Term {
        name: "lwf".into(),
        ..distillation(on, Reference::Teacher, 2.0)
    }
    .with(Combinator::Mask(old))
}

/// `‖softmax z − softmax r‖₂`, not squared, against the stored logits: FDR.
pub fn fdr(on: &str) -> Term {
    let divergence = Divergence::Bregman(Bregman::Squared(Normalisation::HalfSum));
    Term::new(
        "fdr",
        on,
        Carrier::Probs,
        divergence,
        Reference::StoredLogits,
    )
    .with(Combinator::Root)
}

/// `KL(p ‖ uniform) = ln K − H(p)` within each row's class set: CPR's reward for entropy.
pub fn cpr(on: &str) -> Term {
    let divergence = Divergence::F(Generator::ReverseKl);
    Term::new("cpr", on, Carrier::Probs, divergence, Reference::Uniform)
        .with(Combinator::Mask(Classes::Row))
}

/// Squared distance of features to stored ones, a teacher's or prototypes: hint, feature
/// distillation, centre loss.
pub fn feature_l2(on: &str, reference: Reference, scale: Normalisation) -> Term {
    let divergence = Divergence::Bregman(Bregman::Squared(scale));
    Term::new("feature-l2", on, Carrier::Features, divergence, reference)
}

/// `−Σ_j [(q_j + 1_{j=y})^γ − 1_{j=y}] ln p_j` with q the teacher's: OFA. γ = 1 is plain soft-label
/// distillation.
pub fn ofa(on: &str, gamma: f64) -> Term {
    Term::new(
        "ofa",
        on,
        Carrier::Probs,
        Divergence::CrossEntropy,
        Reference::Teacher,
    )
    .with(Combinator::Target(Target::Amplify(gamma)))
}
