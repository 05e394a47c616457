//! Averaged gradient episodic memory.
//!
//! **What it does.** As GEM, with one constraint: the gradient of a random batch of the memory.
//! **Source.** Chaudhry et al., ICLR 2019 (card S087).
//! **Equation.** If `⟨g, g_ref⟩ < 0`: `g ← g − (⟨g, g_ref⟩ / ⟨g_ref, g_ref⟩) g_ref`.
//! **Use it** where GEM is too dear. **Not** with momentum or Adam (refused unless accepted by
//! name).
//! **Stores** `capacity` examples. **Costs** one more pass over `reference` rows a step.

use crate::error::Result;
use crate::methods::{MethodCard, memory_and, settings_beside};
use crate::oracle::PassResult;
use crate::spec::{KeepSpec, Parts, UpdateSpec};
use crate::update::{StepContext, Update};
use ebb_space::Weights;
use serde::{Deserialize, Serialize};

/// A-GEM's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct AGemSettings {
    /// Rows of memory the reference gradient is taken over.
    pub reference: usize,
}

impl Default for AGemSettings {
    fn default() -> Self {
        Self { reference: 256 }
    }
}

/// The update rule.
pub struct AGem {
    settings: AGemSettings,
    reference: Option<Weights>,
}

impl AGem {
    /// An update with these settings.
    pub fn new(settings: AGemSettings) -> Self {
        Self {
            settings,
            reference: None,
        }
    }
}

impl Update for AGem {
    fn gradient(&mut self, step: &mut StepContext, gradient: &mut Weights) -> Result<PassResult> {
        let pass = step
            .oracle
            .gradient(step.objective, step.batch, None, gradient)?;
        if let Some(remembered) = step.memory_batch("a-gem", self.settings.reference)? {
            let reference = self.reference.get_or_insert_with(|| gradient.zeros_like());
            step.oracle
                .gradient(step.remembering, &remembered, None, reference)?;
            project(gradient, reference);
        }
        Ok(pass)
    }
}

/// Takes out of `g` its part against `reference`, if it points that way.
pub fn project(g: &mut Weights, reference: &Weights) -> bool {
    let along = g.dot(reference);
    let square = reference.dot(reference);
    if along >= 0.0 || square == 0.0 {
        return false;
    }
    g.axpy((-along / square) as f32, reference);
    true
}

/// A-GEM in the table of methods.
pub const A_GEM: MethodCard = MethodCard {
    name: "a-gem",
    aliases: &["agem"],
    title: "Averaged gradient episodic memory",
    source: "Chaudhry et al., ICLR 2019",
    card: "S087",
    family: "projection",
    use_it: "where GEM is too dear",
    not_for: "momentum or Adam (refused unless accepted by name)",
    stores: "`capacity` examples",
    costs: "one more pass over `reference` rows a step",
    defaults: || settings_beside(256, &AGemSettings::default()),
    expand: |with, situation| {
        let (memory, own) = memory_and(with, KeepSpec::Ring, situation.experiences)?;
        Ok(Parts {
            memory: Some(memory),
            update: UpdateSpec::AGem(own),
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_space::Layout;

    #[test]
    fn the_projection_is_the_published_one() {
        let layout = Layout::new([("w".to_owned(), vec![2])]).expect("one tensor");
        let w = |a: f32, b: f32| Weights::from_vec(&layout, vec![a, b]).expect("two values");
        let reference = w(0.0, 2.0);
        let mut g = w(1.0, -3.0);
        assert!(project(&mut g, &reference));
        assert_eq!(g.as_slice(), [1.0, 0.0]);
        let mut agrees = w(1.0, 3.0);
        assert!(!project(&mut agrees, &reference));
        assert_eq!(agrees.as_slice(), [1.0, 3.0]);
    }
}
