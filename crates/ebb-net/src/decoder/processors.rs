//! What happens to logits before a token is chosen from them.
//!
//! A [`Processor`] changes the logits of one row in place, knowing what stands before; a list of
//! them is applied in order. Penalties come before the temperature, `TopK` and `TopP` last: they
//! read what is left by the others. A token is forbidden by a logit of −∞.

use crate::{Error, Result};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// What stands before the token to be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// What was given.
    pub prompt: &'a [u32],
    /// What was made since.
    pub text: &'a [u32],
}

/// A change of one row's logits.
pub trait Processor: Debug + Send + Sync {
    /// Changes `logits` (one for each token of the vocabulary) in place.
    fn apply(&self, before: Before, logits: &mut [f32]);
}

fn refuse<T>(reason: impl Into<String>) -> Result<T> {
    Err(Error::Spec {
        reason: reason.into(),
    })
}

/// `l / T`: below 1 the likely becomes likelier, above 1 everything more even.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature(f64);

impl Temperature {
    /// Temperature `t`, above 0. (For the likeliest token take [`Choice::Greedy`](super::Choice).)
    ///
    /// # Errors
    /// [`Error::Spec`] for another value.
    pub fn new(t: f64) -> Result<Self> {
        match t.is_finite() && t > 0.0 {
            true => Ok(Self(t)),
            false => refuse(format!(
                "a temperature must be above 0, it is {t}; choose greedily instead of 0"
            )),
        }
    }
}

impl Processor for Temperature {
    fn apply(&self, _: Before, logits: &mut [f32]) {
        for l in logits {
            *l = (f64::from(*l) / self.0) as f32;
        }
    }
}

/// Keeps the `k` largest logits, and what ties with the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopK(usize);

impl TopK {
    /// At least one.
    ///
    /// # Errors
    /// [`Error::Spec`] for 0.
    pub fn new(k: usize) -> Result<Self> {
        match k {
            0 => refuse("top-k keeps one token at least"),
            k => Ok(Self(k)),
        }
    }
}

impl Processor for TopK {
    fn apply(&self, _: Before, logits: &mut [f32]) {
        if self.0 >= logits.len() {
            return;
        }
        let mut order = logits.to_vec();
        let (_, last, _) = order.select_nth_unstable_by(self.0 - 1, |a, b| b.total_cmp(a));
        let last = *last;
        forbid(logits, |_, l| l < last);
    }
}

/// Keeps the likeliest tokens until they hold probability `p` together: the smallest such set
/// (Holtzman et al., 2020). Of equally likely tokens the one with the lower id comes first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopP(f64);

impl TopP {
    /// Above 0 and at most 1.
    ///
    /// # Errors
    /// [`Error::Spec`] for another value.
    pub fn new(p: f64) -> Result<Self> {
        match p > 0.0 && p <= 1.0 {
            true => Ok(Self(p)),
            false => refuse(format!(
                "the probability of top-p lies in (0, 1], it is {p}"
            )),
        }
    }
}

impl Processor for TopP {
    fn apply(&self, _: Before, logits: &mut [f32]) {
        if self.0 == 1.0 {
            return;
        }
        let p = softmax(logits);
        // All tokens below (1 - p) / n together hold less than 1 - p: none of them is in the set,
        // and few are left to sort.
        let floor = (1.0 - self.0) / p.len() as f64;
        let mut likely: Vec<usize> = (0..p.len()).filter(|&i| p[i] >= floor).collect();
        likely.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
        let mut held = 0.0;
        let kept = likely.iter().take_while(|&&i| {
            let more = held < self.0;
            held += p[i];
            more
        });
        let mut keep = vec![false; p.len()];
        kept.for_each(|&i| keep[i] = true);
        forbid(logits, |i, _| !keep[i]);
    }
}

/// Divides positive and multiplies negative logits of tokens that occurred by `θ`, once each
/// however often they did (Keskar et al., 2019). The prompt counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Repetition {
    penalty: f64,
    window: Option<usize>,
    exempt: Vec<u32>,
}

impl Repetition {
    /// `θ`; above 1 repetition becomes rarer.
    ///
    /// # Errors
    /// [`Error::Spec`] unless it is above 0.
    pub fn new(penalty: f64) -> Result<Self> {
        match penalty.is_finite() && penalty > 0.0 {
            true => Ok(Self {
                penalty,
                window: None,
                exempt: Vec::new(),
            }),
            false => refuse(format!(
                "a penalty on repetition must be above 0, it is {penalty}"
            )),
        }
    }

    /// Looks at the last `window` tokens only.
    #[must_use]
    pub fn within(self, window: usize) -> Self {
        Self {
            window: Some(window),
            ..self
        }
    }

    /// Leaves these tokens alone (special tokens, line ends).
    #[must_use]
    pub fn sparing(self, exempt: impl Into<Vec<u32>>) -> Self {
        Self {
            exempt: exempt.into(),
            ..self
        }
    }
}

impl Processor for Repetition {
    fn apply(&self, before: Before, logits: &mut [f32]) {
        let newest = before.text.iter().rev().chain(before.prompt.iter().rev());
        let mut seen: Vec<u32> = newest
            .take(self.window.unwrap_or(usize::MAX))
            .copied()
            .filter(|id| !self.exempt.contains(id))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some(l) = logits.get_mut(id as usize) {
                // Dividing a negative logit would raise it.
                let factor = if *l > 0.0 {
                    1.0 / self.penalty
                } else {
                    self.penalty
                };
                *l = (f64::from(*l) * factor) as f32;
            }
        }
    }
}

/// `l − α · n` for a token that occurs `n` times in the text made so far; the prompt does not count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frequency(f64);

impl Frequency {
    /// `α`; below 0 it favours repetition.
    ///
    /// # Errors
    /// [`Error::Spec`] unless it is finite.
    pub fn new(penalty: f64) -> Result<Self> {
        finite(penalty).map(Self)
    }
}

impl Processor for Frequency {
    fn apply(&self, before: Before, logits: &mut [f32]) {
        for (id, n) in counts(before.text) {
            lower(logits, id, self.0 * f64::from(n));
        }
    }
}

/// `l − β` for a token that occurs in the text made so far; the prompt does not count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Presence(f64);

impl Presence {
    /// `β`; below 0 it favours repetition.
    ///
    /// # Errors
    /// [`Error::Spec`] unless it is finite.
    pub fn new(penalty: f64) -> Result<Self> {
        finite(penalty).map(Self)
    }
}

impl Processor for Presence {
    fn apply(&self, before: Before, logits: &mut [f32]) {
        for (id, _) in counts(before.text) {
            lower(logits, id, self.0);
        }
    }
}

/// `l − λ` for the tokens that end a text, while it is shorter than `target`.
#[derive(Clone, Debug, PartialEq)]
pub struct LengthPenalty {
    ends: Vec<u32>,
    target: usize,
    penalty: f64,
}

impl LengthPenalty {
    /// `λ = penalty` on the tokens `ends` until the text has `target` tokens.
    ///
    /// # Errors
    /// [`Error::Spec`] unless the penalty is finite.
    pub fn new(ends: impl Into<Vec<u32>>, target: usize, penalty: f64) -> Result<Self> {
        Ok(Self {
            ends: ends.into(),
            target,
            penalty: finite(penalty)?,
        })
    }
}

impl Processor for LengthPenalty {
    fn apply(&self, before: Before, logits: &mut [f32]) {
        if before.text.len() < self.target {
            for &id in &self.ends {
                lower(logits, id, self.penalty);
            }
        }
    }
}

/// Penalty decoding.
///
/// **What it does.** A token that was just used is likelier to be used again, and each time more
/// so. A penalty on repetition breaks that; one that forgets distant tokens does so without
/// banning every common word, and a penalty on the end keeps the text from stopping early.
/// **Source.** Zhu et al., EMNLP 2023 (card S085). The form of the length penalty is this
/// project's reading: the published program has the repetition penalty alone.
/// **Equation.** With `W` the tokens of the last `w` positions (the prompt's among them):
/// `l_v ← l_v / θ` for `v ∈ W` where `l_v > 0`, `l_v · θ` where not;
/// `l_end ← l_end − λ` while the text has fewer than `target` tokens; then the largest.
/// **Use it** with greedy choice on open-ended text. **Not** where answers must repeat the prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct PenaltyDecoding {
    /// `θ`, about 1.2 to 1.5.
    pub penalty: f64,
    /// `w`, tokens.
    pub window: usize,
    /// Tokens that may repeat (special tokens, line ends).
    pub exempt: Vec<u32>,
    /// Tokens that end a text.
    pub ends: Vec<u32>,
    /// Tokens a text should have.
    pub target: usize,
    /// `λ`, in nats.
    pub length_penalty: f64,
}

impl PenaltyDecoding {
    /// The processors it consists of, in order.
    ///
    /// # Errors
    /// [`Error::Spec`] for a penalty that is none.
    pub fn processors(&self) -> Result<Vec<Box<dyn Processor>>> {
        let repetition = Repetition::new(self.penalty)?
            .within(self.window)
            .sparing(self.exempt.as_slice());
        let length = LengthPenalty::new(self.ends.as_slice(), self.target, self.length_penalty)?;
        Ok(vec![Box::new(repetition), Box::new(length)])
    }
}

fn finite(penalty: f64) -> Result<f64> {
    match penalty.is_finite() {
        true => Ok(penalty),
        false => refuse(format!("a penalty must be a number, it is {penalty}")),
    }
}

fn forbid(logits: &mut [f32], which: impl Fn(usize, f32) -> bool) {
    for (i, l) in logits.iter_mut().enumerate() {
        if which(i, *l) {
            *l = f32::NEG_INFINITY;
        }
    }
}

fn lower(logits: &mut [f32], id: u32, by: f64) {
    if let Some(l) = logits.get_mut(id as usize) {
        *l = (f64::from(*l) - by) as f32;
    }
}

fn counts(text: &[u32]) -> BTreeMap<u32, u32> {
    let mut counts = BTreeMap::new();
    for &id in text {
        *counts.entry(id).or_insert(0) += 1;
    }
    counts
}

/// Probabilities in f64; all NaN where a logit is NaN or all are −∞.
fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let mut p: Vec<f64> = logits
        .iter()
        .map(|&l| (f64::from(l) - largest).exp())
        .collect();
    let total: f64 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= total);
    p
}

/// The largest logit, the one with the lowest id of several; `None` where one is NaN or all are −∞.
pub fn likeliest(logits: &[f32]) -> Option<u32> {
    let mut best = None;
    for (i, l) in logits.iter().enumerate() {
        match l.partial_cmp(&best.map_or(f32::NEG_INFINITY, |(_, l)| l)) {
            None => return None,
            Some(Ordering::Greater) => best = Some((i as u32, *l)),
            Some(_) => {}
        }
    }
    best.map(|(i, _)| i)
}

/// The token at `u ∈ [0, 1)` of the distribution that `logits` are of, ids in ascending order;
/// `None` where one is NaN or all are −∞.
pub fn drawn(logits: &[f32], u: f64) -> Option<u32> {
    likeliest(logits)?;
    let p = softmax(logits);
    let mut below = 0.0;
    let mut last = None;
    for (i, p) in p.into_iter().enumerate().filter(|(_, p)| *p > 0.0) {
        below += p;
        last = Some(i as u32);
        if u < below {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_space::Key;

    fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut stream = Key::new(seed, "logits").stream();
        (0..n).map(|_| (2.5 * stream.normal()) as f32).collect()
    }

    fn before<'a>(prompt: &'a [u32], text: &'a [u32]) -> Before<'a> {
        Before { prompt, text }
    }

    fn applied(processor: &dyn Processor, before: Before, logits: &[f32]) -> Vec<f32> {
        let mut changed = logits.to_vec();
        processor.apply(before, &mut changed);
        changed
    }

    fn kept(processor: &dyn Processor, logits: &[f32]) -> Vec<usize> {
        let changed = applied(processor, before(&[], &[]), logits);
        for (a, b) in changed.iter().zip(logits) {
            assert!(a == b || *a == f32::NEG_INFINITY);
        }
        (0..logits.len())
            .filter(|&i| changed[i] != f32::NEG_INFINITY)
            .collect()
    }

    #[test]
    fn top_p_keeps_a_token_while_those_before_it_hold_less_than_p() {
        for seed in 0..20 {
            let mut logits = noise(200, seed);
            logits[17] = logits[3];
            logits[5] = f32::NEG_INFINITY;
            let e: Vec<f64> = logits.iter().map(|&l| f64::from(l).exp()).collect();
            let total: f64 = e.iter().sum();
            for p in [0.01, 0.3, 0.9, 0.999] {
                let ahead = |i: usize, j: usize| e[j] > e[i] || (e[j] == e[i] && j < i);
                let expected: Vec<usize> = (0..200)
                    .filter(|&i| {
                        let held: f64 = (0..200).filter(|&j| ahead(i, j)).map(|j| e[j]).sum();
                        held / total < p && e[i] > 0.0
                    })
                    .collect();
                let top = TopP::new(p).expect("a probability");
                assert_eq!(kept(&top, &logits), expected, "seed {seed}, p {p}");
            }
        }
        let all = TopP::new(1.0).expect("a probability");
        assert_eq!(kept(&all, &noise(9, 1)).len(), 9);
    }

    #[test]
    fn top_k_keeps_k_and_ties() {
        let logits = [1.0, 3.0, 2.0, 3.0, -1.0, 2.0];
        let kept = |k| kept(&TopK::new(k).expect("above 0"), &logits);
        assert_eq!(kept(2), [1, 3]);
        assert_eq!(kept(3), [1, 2, 3, 5], "ids 2 and 5 tie for the third place");
        assert_eq!(kept(6).len(), 6);
        assert_eq!(kept(60).len(), 6);
    }

    #[test]
    fn penalties_are_their_formulas() {
        let logits = noise(12, 3);
        let (prompt, text) = ([1, 2, 3, 3], [4, 5, 4, 6, 4]);
        let written = |f: &dyn Fn(u32, f64) -> f64, processor: &dyn Processor| {
            let got = applied(processor, before(&prompt, &text), &logits);
            for (i, (got, &l)) in got.iter().zip(&logits).enumerate() {
                let expected = f(i as u32, f64::from(l));
                assert!(
                    (f64::from(*got) - expected).abs() < 1e-6,
                    "{processor:?} {i}"
                );
            }
        };
        let penalised = |l: f64| if l > 0.0 { l / 1.3 } else { l * 1.3 };
        let repetition = || Repetition::new(1.3).expect("above 0");
        let all = |i, l| {
            if (1..=6).contains(&i) {
                penalised(l)
            } else {
                l
            }
        };
        written(&all, &repetition());
        let near = |i, l| if [4, 6].contains(&i) { penalised(l) } else { l };
        written(&near, &repetition().within(3));
        let over = |i, l| {
            if (3..=5).contains(&i) {
                penalised(l)
            } else {
                l
            }
        };
        written(&over, &repetition().within(6).sparing([6]));
        let times = |i| text.iter().filter(|&&t| t == i).count() as f64;
        let frequency = Frequency::new(0.7).expect("finite");
        written(&|i, l| l - 0.7 * times(i), &frequency);
        let presence = Presence::new(0.4).expect("finite");
        written(
            &|i, l| l - if times(i) > 0.0 { 0.4 } else { 0.0 },
            &presence,
        );
        let cold = Temperature::new(0.25).expect("above 0");
        written(&|_, l| l / 0.25, &cold);
        let length = |target| LengthPenalty::new([0, 7], target, 2.5).expect("finite");
        let early = |i, l| if i == 0 || i == 7 { l - 2.5 } else { l };
        written(&early, &length(6));
        written(&|_, l| l, &length(5));
        assert!(logits.iter().any(|&l| l < 0.0) && logits.iter().any(|&l| l > 0.0));
    }

    #[test]
    fn penalty_decoding_forgets_what_is_far() {
        let method = PenaltyDecoding {
            penalty: 1.5,
            window: 2,
            exempt: vec![2],
            ends: vec![0],
            target: 8,
            length_penalty: 1.0,
        };
        let mut logits = vec![2.5, 3.0, 3.0, 2.0];
        for processor in method.processors().expect("penalties") {
            processor.apply(before(&[3], &[1, 2]), &mut logits);
        }
        assert_eq!(logits, [1.5, 2.0, 3.0, 2.0]);
        let wrong = PenaltyDecoding {
            penalty: 0.0,
            ..method
        };
        assert!(wrong.processors().is_err());
    }

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [0.5, -1.0, f32::NEG_INFINITY, 2.0, 1.0];
        let key = Key::new(1, "draws");
        let n = 40_000u32;
        let mut found = [0u32; 5];
        for example in 0..n {
            let id = drawn(&logits, key.uniform(u64::from(example))).expect("a token");
            found[id as usize] += 1;
        }
        let e = logits.map(|l| f64::from(l).exp());
        let total: f64 = e.iter().sum();
        let n = f64::from(n);
        for (found, e) in found.iter().zip(e) {
            let p = e / total;
            let off = (f64::from(*found) - n * p).abs();
            assert!(off <= 4.0 * (n * p * (1.0 - p)).sqrt(), "{found} for {p}");
        }
        assert_eq!(drawn(&logits, 0.0), Some(0));
        assert_eq!(drawn(&logits, 1.0 - f64::EPSILON), Some(4));
    }

    #[test]
    fn the_likeliest_is_the_first_of_equals_and_no_number_is_no_token() {
        assert_eq!(likeliest(&[0.0, 2.0, 2.0, -1.0]), Some(1));
        assert_eq!(likeliest(&[f32::NEG_INFINITY, -3.0]), Some(1));
        for none in [[0.0, f32::NAN], [f32::NEG_INFINITY; 2], [f32::NAN, 0.0]] {
            assert_eq!(likeliest(&none), None);
            assert_eq!(drawn(&none, 0.5), None);
        }
    }

    #[test]
    fn settings_that_mean_nothing_are_refused() {
        for error in [
            Temperature::new(0.0).err(),
            TopK::new(0).err(),
            TopP::new(0.0).err(),
            TopP::new(1.1).err(),
            TopP::new(f64::NAN).err(),
            Repetition::new(-1.0).err(),
            Frequency::new(f64::INFINITY).err(),
            LengthPenalty::new([], 1, f64::NAN).err(),
        ] {
            assert!(error.is_some());
        }
    }
}
