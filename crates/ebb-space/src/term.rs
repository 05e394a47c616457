//! A term of an objective: six independent choices. Nearly every published loss is one row of
//! choices, not a new piece of code.

use crate::{BatchLoss, Bregman, Choices, Error, Generator, Key, Normalisation, Result, Weighting};

/// One weighted term, `w · mean over its rows of combinators(D(carrier, reference))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// What reports call it.
    pub name: String,
    /// Which rows it is on.
    pub on: Support,
    /// What of the network it looks at.
    pub carrier: Carrier,
    /// How far that is from the reference.
    pub divergence: Divergence,
    /// What it is compared with.
    pub reference: Reference,
    /// How the divergence is computed.
    pub estimator: Estimator,
    /// What happens on the way, in order.
    pub combinators: Vec<Combinator>,
    /// The coefficient w.
    pub weight: f64,
}

/// The rows of a term, by the name of their support: `all` is every row, `replay` is `replay` and
/// every `replay:…`, anything else is itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Support(pub String);

impl Support {
    /// Whether rows of the support `name` belong to it.
    pub fn contains(&self, name: &str) -> bool {
        self.0 == "all"
            || name
                .strip_prefix(&*self.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }
}

impl From<&str> for Support {
    fn from(name: &str) -> Support {
        Support(name.to_string())
    }
}

/// What of the network a term looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// The logits as they are.
    Logits,
    /// Their softmax over the allowed classes.
    Probs,
    /// The features before the last map.
    Features,
}

/// How far a carrier is from its reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// An f-divergence of probabilities.
    F(Generator),
    /// `−Σ q ln p`, the forward KL plus the entropy of q; q need not sum to one.
    CrossEntropy,
    /// A Bregman divergence.
    Bregman(Bregman),
    /// One against all: `−Σ_j [t_j ln σ(z_j) + (1−t_j) ln(1 − σ(z_j))]` over the allowed classes,
    /// with t the one-hot label or the sigmoids of reference logits. A label outside the allowed
    /// classes makes every t 0, so that two terms with masks can divide the classes (iCaRL).
    Bernoulli,
    /// Plackett–Luce: the ranking with the label first and the others by descending reference
    /// logits, as a sequence of weighted choices. A label outside the allowed classes leaves the
    /// reference's order alone.
    PlackettLuce(Choices),
    /// A loss of all active rows of the support together. It counts as the value of each of them,
    /// so that under every [`Reduction`](crate::Reduction) its share is that of a mean over rows.
    Batch(BatchLoss),
}

/// What a carrier is compared with. Logits become probabilities where the carrier is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The row's label, one-hot.
    Label,
    /// The uniform distribution over the allowed classes.
    Uniform,
    /// [`References::stored_logits`](crate::References::stored_logits).
    StoredLogits,
    /// [`References::stored_features`](crate::References::stored_features).
    StoredFeatures,
    /// ln q of the label alone, [`References::stored_log_probs`](crate::References): all that
    /// [`Estimator::ReferenceSampled`] needs.
    StoredLogProbs,
    /// The frozen model's logits, or its features if the carrier is features.
    Teacher,
    /// [`References::prototypes`](crate::References::prototypes).
    Prototype,
    /// [`References::bands`](crate::References::bands).
    Bands,
    /// Zero, for squared norms.
    Zero,
}

/// How the divergence is computed; the numbers are the uses of objective.md 0.2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Estimator {
    /// (1) All outcomes are summed.
    Exact,
    /// (2) The label is one outcome drawn from the reference: f(u) at it, with u = p/q.
    ReferenceSampled,
    /// (3) The outcome was drawn from the student: a score function.
    OnPolicy,
    /// (4) The outcome was drawn from a behaviour policy; importance weights up to `clip`.
    OffPolicy {
        /// Greatest importance weight.
        clip: f64,
    },
    /// (5) Pairs of a preferred and a refused outcome.
    Pairwise {
        /// Scale β of the scores.
        beta: f64,
    },
    /// (6) A difference of scores, for generators without densities.
    ScoreDifference,
    /// (7) The second-order expansion `½ f''(1) δᵀFδ` around the reference logits.
    LocalQuadratic,
}

/// Something that wraps a term. `Temper`, `Shift`, `Mask`, `Target`, `Scramble` and `Known` change
/// what is compared; `Scale`, `Weight`, `Gate`, `Root` and the `T²` of `Temper` change the row's value.
/// Each group acts in the order of the list.
#[derive(Clone, Debug, PartialEq)]
pub enum Combinator {
    /// `D ← c D`
    Scale(f64),
    /// Logits (and reference logits) divided by `t`; if `squared`, D times t², which keeps the
    /// size of the gradient.
    Temper {
        /// The temperature, above 0.
        t: f64,
        /// Multiply the loss by t².
        squared: bool,
    },
    /// `D ← ω D` with ω detached.
    Weight(Weighting),
    /// `D ← max(0, D − τ)`; where it is closed the gradient is exactly 0.
    Gate(f64),
    /// `D ← √(2D)`: a norm from half its square; gradient 0 at 0.
    Root,
    /// `z ← z + b` on the student's logits.
    Shift(Shift),
    /// `q ← g(q, y)`
    Target(Target),
    /// Logits outside the set become −∞: probability 0 and gradient exactly 0. Several masks
    /// intersect. Without a mask a term uses every class, whatever class set the row has.
    Mask(Classes),
    /// The reference logits of the allowed classes but the label change places, by a permutation
    /// that the key draws for each row: a control that keeps a teacher's confidence and takes away
    /// what it knows of the wrong classes.
    Scramble(Key),
    /// What the reference knows: its logits outside the set become −∞, so that its probability is 0
    /// there, while the student's softmax still runs over all allowed classes (distillation padded
    /// with zeros).
    Known(Vec<bool>),
}

/// An additive bias on the student's logits.
#[derive(Clone, Debug, PartialEq)]
pub enum Shift {
    /// One bias a class, for every row.
    PerClass(Vec<f32>),
    /// [`References::shifts`](crate::References::shifts).
    PerRow,
    /// `ln n_c`, with n_c the active rows of the whole pass, of whatever support, whose label is c.
    /// Classes that do not occur are masked, as `ln 0` says. A softmax over logits shifted like
    /// this is one over the batch's rows, each standing for its class's proxy (PCR, S131).
    BatchCounts,
}

/// What becomes of the reference distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// `(1−ε) q + ε/K` over the K allowed classes: label smoothing.
    Smooth(f64),
    /// `(q + 1_y)^γ − 1_y`, OFA's strengthened target. It does not sum to one unless γ = 1, so it
    /// goes with [`Divergence::CrossEntropy`] alone.
    Amplify(f64),
}

/// A set of classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Classes {
    /// The row's class set, [`Rows::class_set`](crate::Rows); every class if there is none.
    Row,
    /// The classes the row's teacher knew,
    /// [`References::teacher_class_set`](crate::References::teacher_class_set).
    Teacher,
    /// Number so and so of [`Rows::class_sets`](crate::Rows), for every row.
    Set(u16),
    /// These, for every row.
    Only(Vec<bool>),
}

impl Term {
    /// A plain term of weight 1: exact, without combinators.
    pub fn new(
        name: &str,
        on: &str,
        carrier: Carrier,
        divergence: Divergence,
        reference: Reference,
    ) -> Term {
        Term {
            name: name.to_string(),
            on: on.into(),
            carrier,
            divergence,
            reference,
            estimator: Estimator::Exact,
            combinators: Vec::new(),
            weight: 1.0,
        }
    }

    /// The same term wrapped in one more combinator.
    #[must_use]
    pub fn with(mut self, combinator: Combinator) -> Term {
        self.combinators.push(combinator);
        self
    }

    /// The same term with this coefficient.
    #[must_use]
    pub fn weighted(self, weight: f64) -> Term {
        Term { weight, ..self }
    }

    /// Whether it is the loss at labels, whose value is worth knowing row by row.
    pub fn is_at_labels(&self) -> bool {
        self.reference == Reference::Label && !matches!(self.divergence, Divergence::Batch(_))
    }

    /// Whether the choices fit together; a meaningless combination is refused with its reason.
    ///
    /// # Errors
    /// [`Error::BadTerm`], [`Error::EstimatorUnavailable`], [`Error::BadGenerator`].
    pub fn validate(&self) -> Result<()> {
        let refuse = |why: &'static str| {
            Err(Error::BadTerm {
                term: self.name.clone(),
                why,
            })
        };
        if !self.weight.is_finite() {
            return refuse("its weight must be a finite number");
        }
        if let Divergence::F(generator) = self.divergence {
            generator.validate()?;
        }
        let unavailable = |estimator: &'static str, needs: &'static str| {
            Err(Error::EstimatorUnavailable {
                term: self.name.clone(),
                estimator,
                needs,
            })
        };
        match self.estimator {
            Estimator::Exact => self.validate_exact()?,
            Estimator::ReferenceSampled => self.validate_sampled()?,
            Estimator::LocalQuadratic => self.validate_local()?,
            Estimator::OnPolicy => unavailable("on-policy", "outcomes drawn from the student")?,
            Estimator::OffPolicy { .. } => {
                unavailable(
                    "off-policy",
                    "outcomes and probabilities of a behaviour policy",
                )?;
            }
            Estimator::Pairwise { .. } => unavailable("pairwise", "pairs of outcomes")?,
            Estimator::ScoreDifference => unavailable("score-difference", "scores of a generator")?,
        }
        self.combinators
            .iter()
            .try_for_each(|combinator| self.validate_combinator(combinator))
    }

    fn validate_exact(&self) -> Result<()> {
        use Reference as R;
        let refuse = |why: &'static str| {
            Err(Error::BadTerm {
                term: self.name.clone(),
                why,
            })
        };
        match (self.carrier, self.divergence, self.reference) {
            (_, _, R::StoredLogProbs) => refuse(
                "the log-probability of one label is no distribution: use the reference-sampled estimator",
            ),
            (carrier, Divergence::Batch(loss), reference) => {
                loss.refuses(carrier, reference).map_or(Ok(()), refuse)
            }
            (Carrier::Logits, Divergence::Bernoulli, R::Label | R::StoredLogits | R::Teacher) => {
                Ok(())
            }
            (_, Divergence::Bernoulli, _) => refuse(
                "one against all needs the carrier logits, and labels, stored logits or a teacher",
            ),
            (Carrier::Logits, Divergence::PlackettLuce(choices), R::StoredLogits | R::Teacher) => {
                match choices {
                    Choices::TeacherMass { t } if !(t > 0.0 && t.is_finite()) => {
                        refuse("a teacher's temperature must be positive")
                    }
                    _ => Ok(()),
                }
            }
            (_, Divergence::PlackettLuce(_), _) => refuse(
                "a ranking needs the carrier logits, and stored logits or a teacher to rank by",
            ),
            (Carrier::Features, Divergence::Bregman(Bregman::Squared(scale)), r) => match r {
                _ if scale == Normalisation::LabelMean => {
                    refuse("features have no labels to count")
                }
                R::StoredFeatures | R::Teacher | R::Prototype | R::Zero => Ok(()),
                _ => refuse("features are compared with stored features, a teacher or prototypes"),
            },
            (Carrier::Features, _, _) => {
                refuse("features carry squared distances and contrast only")
            }
            (_, _, R::Bands) => refuse("bands need the threshold margin, on features"),
            (_, _, R::StoredFeatures | R::Prototype) => {
                refuse("stored features and prototypes need the carrier features")
            }
            (Carrier::Logits, Divergence::Bregman(Bregman::Squared(_)), R::Zero) => Ok(()),
            (_, _, R::Zero) => {
                refuse("zero is no distribution: take the squared norm of logits, or use uniform")
            }
            (Carrier::Logits, Divergence::Bregman(_), R::StoredLogits | R::Teacher) => Ok(()),
            (Carrier::Logits, Divergence::Bregman(_), _) => {
                refuse("logits are compared with stored logits or a teacher")
            }
            (Carrier::Logits, _, _) => {
                refuse("f-divergences and cross-entropy need the carrier probs")
            }
            (Carrier::Probs, Divergence::Bregman(Bregman::LogSumExp), _) => {
                refuse("log-sum-exp is a function of logits: use the carrier logits")
            }
            (Carrier::Probs, Divergence::F(generator), R::Label)
                if !generator.finite_at_zero_reference() && !self.smooths() =>
            {
                refuse(
                    "this divergence is infinite against a one-hot label: smooth the target or turn the divergence round",
                )
            }
            (Carrier::Probs, _, _) => Ok(()),
        }
    }

    fn validate_sampled(&self) -> Result<()> {
        let refuse = |why: &'static str| {
            Err(Error::BadTerm {
                term: self.name.clone(),
                why,
            })
        };
        match (self.carrier, self.divergence, self.reference) {
            (
                Carrier::Probs,
                Divergence::F(_),
                Reference::StoredLogProbs | Reference::StoredLogits | Reference::Teacher,
            ) => Ok(()),
            _ => refuse(
                "reference-sampled needs probs, an f-divergence, and stored log-probabilities, stored logits or a teacher",
            ),
        }
    }

    fn validate_local(&self) -> Result<()> {
        let refuse = |why: &'static str| {
            Err(Error::BadTerm {
                term: self.name.clone(),
                why,
            })
        };
        match (self.carrier, self.divergence, self.reference) {
            (
                Carrier::Probs,
                Divergence::F(generator),
                Reference::StoredLogits | Reference::Teacher,
            ) if generator.second().is_some() => Ok(()),
            _ => refuse(
                "the local quadratic needs probs, a smooth f-divergence, and stored logits or a teacher",
            ),
        }
    }

    fn validate_combinator(&self, combinator: &Combinator) -> Result<()> {
        let check = |ok: bool, why: &'static str| {
            if ok {
                Ok(())
            } else {
                Err(Error::BadTerm {
                    term: self.name.clone(),
                    why,
                })
            }
        };
        let on_features = self.carrier == Carrier::Features;
        match combinator {
            Combinator::Scale(c) => check(c.is_finite(), "a scale must be finite"),
            Combinator::Gate(tau) => check(tau.is_finite(), "a gate's threshold must be finite"),
            Combinator::Root => Ok(()),
            Combinator::Weight(weighting) => self.validate_weighting(*weighting),
            Combinator::Scramble(_) => check(
                !on_features
                    && matches!(self.reference, Reference::StoredLogits | Reference::Teacher),
                "only reference logits can be scrambled",
            ),
            Combinator::Known(_) => check(
                self.carrier == Carrier::Probs
                    && self.estimator == Estimator::Exact
                    && matches!(self.reference, Reference::StoredLogits | Reference::Teacher)
                    && matches!(
                        self.divergence,
                        Divergence::F(Generator::ForwardKl) | Divergence::CrossEntropy
                    ),
                "only stored logits or a teacher's can be cut to what they know, in a forward KL or cross-entropy",
            ),
            Combinator::Temper { t, .. } => {
                check(!on_features, "features have no temperature")?;
                check(*t > 0.0 && t.is_finite(), "a temperature must be positive")
            }
            Combinator::Shift(_) => check(!on_features, "features have no logits to shift"),
            Combinator::Mask(_) => check(!on_features, "features have no classes to mask"),
            Combinator::Target(target) => {
                check(
                    self.carrier == Carrier::Probs && self.estimator == Estimator::Exact,
                    "a target needs probs and the exact estimator",
                )?;
                match target {
                    Target::Smooth(e) => {
                        check((0.0..=1.0).contains(e), "smoothing needs 0 <= ε <= 1")
                    }
                    Target::Amplify(gamma) => {
                        check(
                            self.divergence == Divergence::CrossEntropy,
                            "an amplified target is no distribution: use the cross-entropy",
                        )?;
                        check(*gamma > 0.0 && gamma.is_finite(), "amplifying needs γ > 0")
                    }
                }
            }
        }
    }

    fn validate_weighting(&self, weighting: Weighting) -> Result<()> {
        let f_or_ce = matches!(self.divergence, Divergence::F(_) | Divergence::CrossEntropy);
        let amplifies = |c: &Combinator| matches!(c, Combinator::Target(Target::Amplify(_)));
        // Class means take factors by row as one factor a class.
        let of_a_batch =
            matches!(self.divergence, Divergence::Batch(loss) if loss != BatchLoss::ClassMeans);
        let why = match weighting {
            Weighting::PerRow if of_a_batch => "a loss of the whole batch has no weights by row",
            Weighting::Coverage { n } if !(n >= 1.0 && n.is_finite()) => {
                "coverage needs a number of draws of at least 1"
            }
            Weighting::Coverage { .. }
                if !(self.divergence == Divergence::CrossEntropy
                    && self.reference == Reference::Label) =>
            {
                "coverage weighs the cross-entropy at labels"
            }
            Weighting::AsLabels if !matches!(self.divergence, Divergence::Batch(_)) => {
                "a weight that makes a term as large as the loss at labels needs one value: a loss of the whole batch"
            }
            Weighting::EntropyGap { kappa } if !(kappa != 0.0 && kappa.is_finite()) => {
                "the width of an entropy gap must be a finite number other than 0"
            }
            Weighting::EntropyGap { .. }
                if !(self.carrier == Carrier::Probs
                    && self.estimator == Estimator::Exact
                    && f_or_ce
                    && self.reference != Reference::Label
                    && !self.combinators.iter().any(amplifies)) =>
            {
                "an entropy gap needs probs, an f-divergence or cross-entropy, and a distribution to compare with"
            }
            _ => return Ok(()),
        };
        Err(Error::BadTerm {
            term: self.name.clone(),
            why,
        })
    }

    /// Whether it needs to know how often each class occurs in the pass.
    pub(crate) fn counts_labels(&self) -> bool {
        self.squared() == Some(Normalisation::LabelMean)
            || self
                .combinators
                .contains(&Combinator::Shift(Shift::BatchCounts))
    }

    fn smooths(&self) -> bool {
        let smooths =
            |c: &Combinator| matches!(c, Combinator::Target(Target::Smooth(e)) if *e > 0.0);
        self.combinators.iter().any(smooths)
    }

    /// The hot case: the loss at one-hot labels, with nothing done to logits but masking.
    pub(crate) fn is_plain_cross_entropy(&self) -> bool {
        let at_one_hot = matches!(
            self.divergence,
            Divergence::CrossEntropy | Divergence::F(Generator::ForwardKl)
        );
        at_one_hot
            && self.carrier == Carrier::Probs
            && self.reference == Reference::Label
            && self.estimator == Estimator::Exact
            && !self.combinators.iter().any(|c| {
                matches!(
                    c,
                    Combinator::Temper { .. } | Combinator::Shift(_) | Combinator::Target(_)
                )
            })
    }

    /// The scale of the squared distance, if that is the divergence.
    pub(crate) fn squared(&self) -> Option<Normalisation> {
        match self.divergence {
            Divergence::Bregman(Bregman::Squared(scale)) => Some(scale),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supports_are_names_and_families_of_names() {
        for (on, name, want) in [
            ("all", "new", true),
            ("new", "new", true),
            ("new", "newer", false),
            ("replay", "replay:a", true),
            ("replay", "replay", true),
            ("replay:a", "replay:b", false),
            ("replay:a", "replay", false),
        ] {
            assert_eq!(Support::from(on).contains(name), want, "{on} {name}");
        }
    }

    #[test]
    fn meaningless_combinations_are_refused_with_a_reason() {
        let kl = Divergence::F(Generator::ForwardKl);
        let half = Divergence::Bregman(Bregman::Squared(Normalisation::HalfSum));
        let lse = Divergence::Bregman(Bregman::LogSumExp);
        let margin = Divergence::Batch(BatchLoss::Margin);
        let counted = Divergence::Bregman(Bregman::Squared(Normalisation::LabelMean));
        let pl = |t| Divergence::PlackettLuce(Choices::TeacherMass { t });
        let sinkhorn = |epsilon, rounds| Divergence::Batch(BatchLoss::Sinkhorn { epsilon, rounds });
        let contrast = |t| Divergence::Batch(BatchLoss::Contrast { t });
        let relation = Divergence::Batch(BatchLoss::Relation);
        let coverage = |n| Weighting::Coverage { n };
        let gap = |kappa| Weighting::EntropyGap { kappa };
        let term = |c, d, r| Term::new("t", "new", c, d, r);
        use {Carrier::*, Combinator as C, Reference::*};
        let good = [
            term(Probs, kl, Label),
            term(Probs, Divergence::CrossEntropy, Teacher).with(C::Target(Target::Amplify(1.5))),
            term(Logits, half, StoredLogits),
            term(Logits, lse, Teacher),
            term(Probs, half, Label),
            term(Features, half, Prototype),
            term(Probs, Divergence::F(Generator::ReverseKl), Label)
                .with(C::Target(Target::Smooth(0.1))),
            Term {
                estimator: Estimator::ReferenceSampled,
                ..term(Probs, kl, StoredLogProbs)
            },
            Term {
                estimator: Estimator::LocalQuadratic,
                ..term(Probs, kl, Teacher)
            },
            term(Logits, Divergence::Bernoulli, Label).with(C::Mask(Classes::Row)),
            term(Logits, Divergence::Bernoulli, StoredLogits),
            term(Logits, pl(2.0), Teacher).with(C::Scramble(Key::new(0, "t"))),
            term(
                Logits,
                Divergence::PlackettLuce(Choices::Equal),
                StoredLogits,
            ),
            term(Probs, sinkhorn(0.1, 20), Teacher).with(C::Gate(0.1)),
            term(Features, contrast(0.1), Label),
            term(Features, contrast(0.1), StoredFeatures).with(C::Root),
            term(Logits, relation, Teacher).with(C::Mask(Classes::Set(0))),
            term(Features, margin, Bands).with(C::Weight(Weighting::AsLabels)),
            term(Logits, half, Zero),
            term(Features, half, Zero),
            term(Logits, counted, StoredLogits),
            term(Probs, kl, Label).with(C::Shift(Shift::BatchCounts)),
            term(Probs, Divergence::CrossEntropy, Label).with(C::Weight(coverage(1.0))),
            term(Probs, kl, Teacher).with(C::Weight(gap(-0.5))),
            term(Probs, kl, Teacher).with(C::Known(vec![true])),
        ];
        good.iter().for_each(|t| t.validate().unwrap());
        let bad = [
            term(Logits, kl, Teacher),
            term(Logits, half, Label),
            term(Probs, lse, Teacher),
            term(Probs, kl, StoredFeatures),
            term(Probs, kl, StoredLogProbs),
            term(Features, kl, Teacher),
            term(Features, half, StoredLogits),
            term(Features, half, Teacher).with(C::Temper {
                t: 2.0,
                squared: true,
            }),
            term(Features, half, Teacher).with(C::Mask(Classes::Row)),
            term(Probs, Divergence::F(Generator::ReverseKl), Label),
            term(Probs, Divergence::F(Generator::Pearson), Label),
            term(Probs, kl, Teacher).with(C::Target(Target::Amplify(1.5))),
            term(Probs, kl, Teacher).with(C::Target(Target::Smooth(1.5))),
            term(Probs, kl, Teacher).with(C::Temper {
                t: 0.0,
                squared: true,
            }),
            term(Probs, kl, Teacher).with(C::Gate(f64::NAN)),
            term(Probs, kl, Teacher).weighted(f64::INFINITY),
            Term {
                estimator: Estimator::ReferenceSampled,
                ..term(Probs, kl, Label)
            },
            Term {
                estimator: Estimator::LocalQuadratic,
                ..term(Probs, Divergence::F(Generator::TotalVariation), Teacher)
            },
            term(Probs, Divergence::Bernoulli, Label),
            term(Logits, Divergence::Bernoulli, Uniform),
            term(Logits, Divergence::Bernoulli, Zero),
            term(Logits, Divergence::Bernoulli, Label).with(C::Target(Target::Smooth(0.1))),
            term(Features, Divergence::Bernoulli, Teacher),
            term(Probs, pl(1.0), Teacher),
            term(Logits, pl(1.0), Label),
            term(Logits, pl(0.0), Teacher),
            term(Logits, sinkhorn(0.1, 20), Teacher),
            term(Probs, sinkhorn(0.1, 20), Label),
            term(Probs, sinkhorn(0.0, 20), Teacher),
            term(Probs, sinkhorn(0.1, 0), Teacher),
            term(Probs, sinkhorn(0.1, 20), Teacher).with(C::Weight(Weighting::PerRow)),
            term(Features, contrast(0.1), Prototype),
            term(Features, contrast(-0.1), Label),
            term(Logits, contrast(0.1), Label),
            term(Probs, relation, Teacher),
            term(Logits, relation, Label),
            term(Logits, margin, Bands),
            term(Features, margin, StoredFeatures),
            term(Features, half, Bands),
            term(Probs, kl, Bands),
            term(Features, half, Teacher).with(C::Weight(Weighting::AsLabels)),
            term(Features, counted, Teacher),
            term(Probs, half, Zero),
            term(Logits, lse, Zero),
            term(Probs, kl, Zero),
            term(Features, half, Teacher).with(C::Shift(Shift::BatchCounts)),
            term(Probs, kl, Uniform).with(C::Scramble(Key::new(0, "t"))),
            term(Probs, kl, Teacher).with(C::Weight(coverage(4.0))),
            term(Probs, Divergence::CrossEntropy, Label).with(C::Weight(coverage(0.5))),
            term(Probs, kl, Teacher).with(C::Weight(gap(0.0))),
            term(Probs, kl, Label).with(C::Weight(gap(0.5))),
            term(Probs, half, Teacher).with(C::Weight(gap(0.5))),
            term(Probs, kl, Label).with(C::Known(vec![true])),
            term(Probs, Divergence::F(Generator::ReverseKl), Teacher).with(C::Known(vec![true])),
            Term {
                estimator: Estimator::ReferenceSampled,
                ..term(Logits, pl(1.0), Teacher)
            },
            Term {
                estimator: Estimator::LocalQuadratic,
                ..term(Probs, sinkhorn(0.1, 20), Teacher)
            },
        ];
        for t in bad {
            assert!(matches!(t.validate(), Err(Error::BadTerm { .. })), "{t:?}");
        }
        for estimator in [
            Estimator::OnPolicy,
            Estimator::OffPolicy { clip: 2.0 },
            Estimator::Pairwise { beta: 0.1 },
            Estimator::ScoreDifference,
        ] {
            let t = Term {
                estimator,
                ..term(Probs, kl, Teacher)
            };
            assert!(matches!(
                t.validate(),
                Err(Error::EstimatorUnavailable { .. })
            ));
        }
    }
}
