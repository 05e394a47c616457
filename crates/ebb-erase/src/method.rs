//! Erasers by name.

use crate::error::{Error, Result};
use crate::{Eraser, Famr, FineTune, GradDiff, Iau, Npo, Ssd};
use serde::{Deserialize, Serialize};

/// Names of the erasers, what each does, and its card.
pub const METHODS: &[(&str, &str, &str)] = &[
    (
        "ssd",
        "dampens weights that matter for the records alone",
        "S015",
    ),
    (
        "grad-diff",
        "raises the loss on the records, lowers it on others",
        "X12",
    ),
    ("npo", "the same, fading where a record is forgotten", "X13"),
    (
        "famr",
        "uniform answers to the records, near the old weights",
        "S120",
    ),
    ("iau", "one step against what the records did", "S078"),
    ("fine-tune", "goes on with all others: a baseline", "S015"),
];

/// An eraser with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "method")]
pub enum Method {
    /// Selective synaptic dampening.
    Ssd(Ssd),
    /// Gradient ascent, alone or with descent on what stays.
    GradDiff(GradDiff),
    /// Negative preference optimisation.
    Npo(Npo),
    /// Anchored forgetting.
    Famr(Famr),
    /// Influence approximation.
    Iau(Iau),
    /// Going on with what stays.
    FineTune(FineTune),
}

impl Method {
    /// The eraser called `name`, with settings as `key=value` in TOML.
    ///
    /// # Errors
    /// [`Error::Method`] for a name that is none, or a setting that it does not have.
    pub fn parse(name: &str, sets: &[(String, String)]) -> Result<Method> {
        let wrong = |reason: String| Error::Method { reason };
        if METHODS.iter().all(|(known, _, _)| *known != name) {
            let known: Vec<&str> = METHODS.iter().map(|(name, _, _)| *name).collect();
            return Err(wrong(format!(
                "there is no eraser `{name}`; there are {}",
                known.join(", ")
            )));
        }
        let mut text = format!("method = \"{name}\"\n");
        for (key, value) in sets {
            text.push_str(&format!("{key} = {value}\n"));
        }
        toml::from_str(&text).map_err(|e| wrong(format!("`{name}`: {}", e.message())))
    }

    /// The eraser.
    pub fn eraser(&self) -> &dyn Eraser {
        match self {
            Method::Ssd(m) => m,
            Method::GradDiff(m) => m,
            Method::Npo(m) => m,
            Method::Famr(m) => m,
            Method::Iau(m) => m,
            Method::FineTune(m) => m,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_an_eraser_of_that_name() {
        for (name, _, _) in METHODS {
            let method = Method::parse(name, &[]).expect("an eraser");
            assert_eq!(method.eraser().name(), *name);
        }
        let set = |k: &str, v: &str| [(k.to_owned(), v.to_owned())];
        let Ok(Method::Ssd(ssd)) = Method::parse("ssd", &set("alpha", "5")) else {
            panic!("an eraser");
        };
        assert_eq!(ssd.alpha, 5.0);
        let steps = Method::parse("npo", &set("descent.steps", "7")).expect("an eraser");
        assert!(matches!(steps, Method::Npo(n) if n.descent.steps == 7));
        assert!(Method::parse("ssd", &set("beta", "5")).is_err());
        assert!(Method::parse("magic", &[]).is_err());
    }
}
