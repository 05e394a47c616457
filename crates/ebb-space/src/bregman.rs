//! Bregman divergences of carriers, `B(a‖b) = Φ(a) − Φ(b) − ⟨∇Φ(b), a − b⟩`.

/// The convex function Φ that a Bregman divergence comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bregman {
    /// Φ = ½‖·‖²: the squared distance of logits (DER), probabilities or features.
    Squared(Normalisation),
    /// Φ = log-sum-exp on logits: `B(z‖r) = KL(softmax r ‖ softmax z)`. It is evaluated by the
    /// forward KL; there is one implementation of both.
    LogSumExp,
}

/// Papers and code scale squared distances differently, so the scale has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalisation {
    /// `½ Σ_j (a_j − b_j)²` a row, as in the papers.
    HalfSum,
    /// `(1/C) Σ_j (a_j − b_j)²` a row, so that a mean over rows is the mean over rows and
    /// columns, without the half: DER's public code. With a mask, C counts the allowed classes.
    ElementMean,
    /// `Σ_c (n_c/n) (a_c − b_c)²` a row, with n_c of the n active rows of the pass labelled c: the
    /// mean over the columns of the batch's labels, repeated as they occur (HPCR's PCD, S131).
    LabelMean,
}

/// The squared distance of two rows and its gradient by the first; `share` holds the n_c/n of
/// [`Normalisation::LabelMean`].
pub(crate) fn squared(
    a: &[f64],
    b: &[f64],
    scale: Normalisation,
    share: &[f64],
    gradient: &mut [f64],
) -> f64 {
    let mut sum = 0.0;
    let c = match scale {
        Normalisation::HalfSum => 0.5,
        Normalisation::ElementMean => 1.0 / a.len().max(1) as f64,
        Normalisation::LabelMean => {
            for (((a, b), share), g) in a.iter().zip(b).zip(share).zip(gradient) {
                sum += share * (a - b) * (a - b);
                *g = 2.0 * share * (a - b);
            }
            return sum;
        }
    };
    for ((a, b), g) in a.iter().zip(b).zip(gradient) {
        sum += (a - b) * (a - b);
        *g = 2.0 * c * (a - b);
    }
    c * sum
}
