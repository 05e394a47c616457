//! Published losses as terms: the table of objective.md 0.5, as far as the algebra reaches.
//! Each is of weight 1; change it with [`Term::weighted`].

use crate::term::{Carrier, Classes, Combinator, Divergence, Reference, Shift, Target, Term};
use crate::{BatchLoss, Bregman, Choices, Generator, Normalisation, Weighting};

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

/// Distillation from a teacher that answers among the `known` classes alone, 0 for all others, to a
/// student whose softmax runs over the row's classes: new classes count against the old ones, as in
/// the public code of van de Ven & Tolias (2019).
pub fn padded_distillation(on: &str, known: Vec<bool>, t: f64) -> Term {
    Term {
        name: "padded-distillation".into(),
        ..distillation(on, Reference::Teacher, t)
    }
    .with(Combinator::Mask(Classes::Row))
    .with(Combinator::Known(known))
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

/// How far features lie outside of the bands they were in, the mean over those that do: GeRe's
/// threshold-margin loss.
pub fn threshold_margin(on: &str) -> Term {
    let divergence = Divergence::Batch(BatchLoss::Margin);
    Term::new(
        "threshold-margin",
        on,
        Carrier::Features,
        divergence,
        Reference::Bands,
    )
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

/// `−Σ_j [t_j ln σ(z_j) + (1−t_j) ln(1 − σ(z_j))]` with t from `reference`: the label, or the
/// sigmoids of a teacher's or stored logits. iCaRL is this with labels over the new classes plus
/// this with the teacher over the old ones.
pub fn bernoulli(on: &str, reference: Reference) -> Term {
    Term::new(
        "bernoulli",
        on,
        Carrier::Logits,
        Divergence::Bernoulli,
        reference,
    )
}

/// The label first, then the teacher's order: a ranking whose choices count as `choices` says.
/// PLD (S165) with [`Choices::TeacherMass`], ListMLE with [`Choices::Equal`]. The first choice is
/// the cross-entropy, so none is added (with PLD it counts by the teacher's belief in the label).
pub fn plackett_luce(on: &str, choices: Choices) -> Term {
    Term::new(
        "plackett-luce",
        on,
        Carrier::Logits,
        Divergence::PlackettLuce(choices),
        Reference::Teacher,
    )
}

/// Transport of the batch of tempered probabilities to the teacher's, ε = 0.1 in 20 rounds: SinKD
/// (S189), without `t²`. Beside a loss of single rows only.
pub fn sinkhorn(on: &str, t: f64) -> Term {
    let loss = BatchLoss::Sinkhorn {
        epsilon: 0.1,
        rounds: 20,
    };
    Term::new(
        "sinkhorn",
        on,
        Carrier::Probs,
        Divergence::Batch(loss),
        Reference::Teacher,
    )
    .with(Combinator::Temper { t, squared: false })
}

/// Supervised contrast of the features: rows of one label together, the others apart (Khosla et
/// al. 2020; S128 has t = 0.1).
pub fn sup_con(on: &str, t: f64) -> Term {
    let divergence = Divergence::Batch(BatchLoss::Contrast { t });
    Term::new(
        "sup-con",
        on,
        Carrier::Features,
        divergence,
        Reference::Label,
    )
}

/// Cross-entropy between the likenesses of features to one another, those of `reference` as the
/// target: SCD of HPCR (S131), with stored features and t = 0.09.
pub fn similarity_distillation(on: &str, reference: Reference, t: f64) -> Term {
    Term {
        name: "similarity-distillation".into(),
        reference,
        ..sup_con(on, t)
    }
}

/// Keeps how each class ranks the rows of the batch: the prototype-sample relation of PRD (S128),
/// whose prototypes are the columns of the classifier. Its other axis, over classes for each row,
/// is [`distillation`].
pub fn prototype_relation(on: &str, t: f64) -> Term {
    Term::new(
        "prototype-relation",
        on,
        Carrier::Logits,
        Divergence::Batch(BatchLoss::Relation),
        Reference::Teacher,
    )
    .with(Combinator::Temper { t, squared: false })
}

/// One against all between the means of a class's logits and of its answers, by the label or a
/// teacher: the relation between classes of HFC (S068).
pub fn class_means(on: &str, reference: Reference) -> Term {
    Term::new(
        "class-means",
        on,
        Carrier::Logits,
        Divergence::Batch(BatchLoss::ClassMeans),
        reference,
    )
}

/// Contrast of each row with the proxies of the batch's labels, repeated as they occur (PCR,
/// S131): cross-entropy with the classes' counts as a shift. Proxies are the columns of the
/// classifier; PCR takes cosines, and t = 0.09. The paper's value is greater by `ln n_y` a row,
/// which has no gradient.
pub fn proxy_contrast(on: &str, t: f64) -> Term {
    Term {
        name: "proxy-contrast".into(),
        ..cross_entropy(on)
    }
    .with(Combinator::Temper { t, squared: false })
    .with(Combinator::Shift(Shift::BatchCounts))
}

/// Squared distance to the stored logits at the columns of the batch's labels, repeated as they
/// occur: PCD of HPCR (S131).
pub fn proxy_distillation(on: &str) -> Term {
    Term {
        name: "proxy-distillation".into(),
        ..logits_l2(on, Normalisation::LabelMean)
    }
}

/// `t² [ω KL(q‖p) + (1−ω) KL(p‖q)]` with the teacher's q and `ω = σ((H(q) − H(p))/κ)`, detached: a
/// student that is too sure is made to cover, one that is unsure to seek (BD-KD, S175; the rule is
/// the card's, κ = 0.5). A negative κ turns the rule round.
pub fn balanced_distillation(on: &str, t: f64, kappa: f64) -> [Term; 2] {
    [
        ("balanced-forward", Generator::ForwardKl, kappa),
        ("balanced-reverse", Generator::ReverseKl, -kappa),
    ]
    .map(|(name, generator, kappa)| {
        Term {
            name: name.into(),
            divergence: Divergence::F(generator),
            ..distillation(on, Reference::Teacher, t)
        }
        .with(Combinator::Weight(Weighting::EntropyGap { kappa }))
    })
}

/// Cross-entropy whose gradient is that of being right at least once in `n` draws: DCO (S216).
pub fn coverage(on: &str, n: f64) -> Term {
    Term {
        name: "coverage".into(),
        ..cross_entropy(on)
    }
    .with(Combinator::Weight(Weighting::Coverage { n }))
}

/// `max(0, ‖φ − c‖ − τ)`: features may stay within τ of their reference.
pub fn feature_margin(on: &str, reference: Reference, tau: f64) -> Term {
    Term {
        name: "feature-margin".into(),
        ..feature_l2(on, reference, Normalisation::HalfSum)
    }
    .with(Combinator::Root)
    .with(Combinator::Gate(tau))
}

/// `‖z‖²`, the squared length of the outputs, whose gradient MAS measures importance by.
pub fn output_norm(on: &str) -> Term {
    Term {
        name: "output-norm".into(),
        reference: Reference::Zero,
        ..logits_l2(on, Normalisation::HalfSum)
    }
    .with(Combinator::Scale(2.0))
}
