//! L2 towards the weights after the last experience.
//!
//! **What it does.** Pulls every weight (or those a pattern names) back with the same strength.
//! **Source.** Smith et al., CVPR Workshops 2023, "A closer look at rehearsal-free continual
//! learning" (card S123), where it beats EWC on pre-trained models when put on attention alone (of
//! a language model of the Llama family: `on = ["*self_attn*"]`); also the baseline of Kirkpatrick
//! et al. 2017.
//! **Equation.** `L(θ) = L_new(θ) + β/2 · Σ_{i ∈ on} (θ_i − θ*_i)²`.
//! **Use it** as the control of every weight penalty, or on pre-trained models. **Not** alone on
//! class-incremental data (refused unless accepted by name).
//! **Stores** one copy of the weights. **Costs** one fused multiply-add over them a step.

use crate::error::{Error, Result};
use crate::methods::{MethodCard, settings};
use crate::oracle::Oracle;
use crate::penalty::Penalty;
use crate::seen::Seen;
use crate::spec::{Parts, PenaltySpec};
use ebb_space::{Mask, Weights};
use serde::{Deserialize, Serialize};

/// L2's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct L2Settings {
    /// Strength, in the ½-form.
    pub beta: f64,
    /// Paths (with `*`) it acts on; left empty: all.
    pub on: Vec<String>,
    /// Sum over an anchor an experience, as a multi-anchor EWC with a Fisher of ones.
    pub accumulate: bool,
}

impl Default for L2Settings {
    fn default() -> Self {
        Self {
            beta: 1.0,
            on: Vec::new(),
            accumulate: false,
        }
    }
}

/// The penalty.
pub struct L2 {
    settings: L2Settings,
    /// The mean of the anchors, and how many there are.
    anchor: Option<(Weights, u32)>,
    on: Option<Mask>,
}

impl L2 {
    /// Nothing remembered yet.
    pub fn new(settings: L2Settings) -> Self {
        Self {
            settings,
            anchor: None,
            on: None,
        }
    }

    fn strength(&self) -> f64 {
        match &self.anchor {
            Some((_, n)) if self.settings.accumulate => self.settings.beta * f64::from(*n),
            _ => self.settings.beta,
        }
    }

    fn remember(&mut self, at: &Weights) -> Result<()> {
        if !self.settings.on.is_empty() {
            let patterns: Vec<&str> = self.settings.on.iter().map(String::as_str).collect();
            let (mask, unmatched) = Mask::from_globs(at.layout(), &patterns);
            if let Some(pattern) = unmatched.first() {
                return Err(Error::no_such_path(pattern, at.layout()));
            }
            self.on = Some(mask);
        }
        match &mut self.anchor {
            Some((mean, n)) if self.settings.accumulate => {
                *n += 1;
                mean.lerp(1.0 / *n as f32, at);
            }
            slot => *slot = Some((at.clone(), 1)),
        }
        Ok(())
    }
}

impl Penalty for L2 {
    fn name(&self) -> &'static str {
        "l2"
    }

    fn active(&self) -> bool {
        self.anchor.is_some() && self.settings.beta != 0.0
    }

    fn add_gradient(&self, theta: &Weights, gradient: &mut Weights) {
        let Some((anchor, _)) = &self.anchor else {
            return;
        };
        let strength = self.strength() as f32;
        match &self.on {
            None => gradient.add_difference(strength, theta, anchor),
            Some(mask) => {
                let mut pull = theta.zeros_like();
                pull.add_difference(strength, theta, anchor);
                mask.complement().zero_gradient(&mut pull);
                gradient.axpy(1.0, &pull);
            }
        }
    }

    fn value(&self, theta: &Weights) -> f64 {
        let Some((anchor, _)) = &self.anchor else {
            return 0.0;
        };
        let mut away = theta.zeros_like();
        away.add_difference(1.0, theta, anchor);
        if let Some(mask) = &self.on {
            mask.complement().zero_gradient(&mut away);
        }
        0.5 * self.strength() * away.dot(&away)
    }

    fn end_of_experience(&mut self, oracle: &mut Oracle, _seen: &Seen) -> Result<()> {
        let at = oracle.model.weights();
        self.remember(&at)
    }

    fn state(&self) -> Vec<(String, &Weights)> {
        match &self.anchor {
            Some((anchor, n)) => vec![(format!("anchor.{n}"), anchor)],
            None => Vec::new(),
        }
    }

    fn restore(
        &mut self,
        names: &[String],
        load: &mut dyn FnMut(&str) -> Result<Weights>,
    ) -> Result<()> {
        self.anchor = None;
        if let Some(name) = names.first() {
            let count = name.rsplit('.').next().and_then(|n| n.parse().ok());
            let at = load(name)?;
            self.remember(&at)?;
            if let (Some((_, n)), Some(count)) = (&mut self.anchor, count) {
                *n = count;
            }
        }
        Ok(())
    }
}

/// L2 in the table of methods.
pub const L2_METHOD: MethodCard = MethodCard {
    name: "l2",
    aliases: &["l2-sp"],
    title: "L2 towards earlier weights",
    source: "Smith et al., CVPRW 2023",
    card: "S123",
    family: "weight penalty",
    use_it: "the control of every weight penalty; on attention blocks of pre-trained models",
    not_for: "class-incremental streams on its own (refused unless accepted by name)",
    stores: "one copy of the weights",
    costs: "one fused multiply-add over the weights a step",
    defaults: || settings(&L2Settings::default()),
    expand: |with, _| {
        Ok(Parts {
            penalty: vec![PenaltySpec::L2(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_space::{Key, Layout};

    #[test]
    fn gradient_follows_from_the_value_and_stays_on_its_paths() {
        let layout = Layout::new([("a.w".to_owned(), vec![3]), ("b.w".to_owned(), vec![2])])
            .expect("two tensors");
        let random = |key: &str| {
            let mut s = Key::new(1, key).stream();
            Weights::from_vec(&layout, (0..5).map(|_| s.normal() as f32).collect()).expect("five")
        };
        for (on, accumulate) in [(vec![], true), (vec!["b.*".to_owned()], false)] {
            let mut l2 = L2::new(L2Settings {
                beta: 3.0,
                on: on.clone(),
                accumulate,
            });
            let anchors = [random("1"), random("2")];
            for a in &anchors {
                l2.remember(a).expect("paths exist");
            }
            let theta = random("theta");
            let mut gradient = theta.zeros_like();
            l2.add_gradient(&theta, &mut gradient);
            for i in 0..5 {
                let away = |k: usize| theta.as_slice()[i] - anchors[k].as_slice()[i];
                let exact = match (accumulate, on.is_empty() || i >= 3) {
                    (true, _) => 3.0 * (away(0) + away(1)),
                    (false, true) => 3.0 * away(1),
                    (false, false) => 0.0,
                };
                assert!((gradient.as_slice()[i] - exact).abs() < 1e-5);
            }
        }
    }
}
