//! Reference rows: a published figure, ours under the same protocol, and the rule between them.
//!
//! **Rule.** A row holds when `|ours − theirs| ≤ slack + 1.96 √(se_ours² + se_theirs²)` with our
//! own 95 % half-width at most `half_width` (seeds are added while it is wider, never because of
//! what they show). It is *evidence* for a method only if the published value differs from the
//! same optimizer's fine-tune row (where none is published, from our arm at strength 0) by twice
//! that tolerance, our arm at strength 0 fails the row, and the protocol is known in full.
//!
//! Where a peer publishes no figure but a bar that its own test must pass (`at_least`), a row
//! holds when the lower end of our 95 % interval reaches it, and is evidence if the mean of our
//! arm at strength 0 does not.

use ebb_space::stats::{mean_ci_t, t_quantile};
use serde::{Deserialize, Serialize};

/// A published mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// The mean, in percent.
    pub mean: f64,
    /// The standard deviation over runs.
    pub sd: f64,
    /// Runs.
    pub n: usize,
}

impl Published {
    /// Standard error of the mean.
    pub fn standard_error(&self) -> f64 {
        self.sd / (self.n as f64).sqrt()
    }
}

/// A row as a study file describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowSpec {
    /// The arm that is compared.
    pub arm: String,
    /// The same at strength 0; none where the row is no method's (a baseline).
    pub zero: Option<String>,
    /// The published figure.
    pub published: Option<Published>,
    /// The published fine-tune row of the same optimizer and scenario, if there is one.
    pub fine_tune: Option<Published>,
    /// In the place of a figure: the bar its authors' own test asks for, in percent.
    pub at_least: Option<f64>,
    /// What of the protocol is not public, if anything.
    pub incomplete: Option<String>,
    /// Another measure than the table's, where the authors' code computes one.
    pub measure: Option<String>,
    /// Why the row was missed, as far as is known; printed where it is.
    pub miss: Option<String>,
}

impl RowSpec {
    pub(crate) fn check(&self) -> Result<(), String> {
        match (self.published, self.at_least) {
            (Some(_), Some(_)) | (None, None) => {
                return Err("it has either a `published` figure or a bar `at_least`".into());
            }
            (None, Some(_)) if self.fine_tune.is_some() => {
                return Err("`fine_tune` says nothing beside a bar `at_least`".into());
            }
            (None, Some(bar)) if !(0.0..=100.0).contains(&bar) => {
                return Err(format!("`at_least` is in percent, not {bar}"));
            }
            _ => {}
        }
        for p in [self.published, self.fine_tune].into_iter().flatten() {
            if p.n == 0 || !p.mean.is_finite() || !p.sd.is_finite() || p.sd < 0.0 {
                return Err(format!(
                    "a published figure has a mean, a deviation and a number of runs, not {p:?}"
                ));
            }
        }
        Ok(())
    }
}

/// The numbers of the rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Allowed besides the standard errors, in points.
    pub slack: f64,
    /// Widest half of our interval, in points.
    pub half_width: f64,
}

/// A sample of runs, in percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ours {
    /// The mean, in percent.
    pub mean: f64,
    /// Lower end of the 95 % t interval over seeds.
    pub ci_low: f64,
    /// Upper end of it.
    pub ci_high: f64,
    /// Standard error of the mean.
    pub standard_error: f64,
    /// One value a seed.
    pub values: Vec<f64>,
}

impl Ours {
    /// What these runs came to.
    ///
    /// # Errors
    /// Fewer than two runs, or one that is not finite.
    pub fn of(values: &[f64]) -> ebb_space::Result<Ours> {
        let interval = mean_ci_t(values, 0.95)?;
        let n = values.len() as f64;
        let square: f64 = values.iter().map(|v| (v - interval.value).powi(2)).sum();
        Ok(Ours {
            mean: interval.value,
            ci_low: interval.low,
            ci_high: interval.high,
            standard_error: (square / (n - 1.0) / n).sqrt(),
            values: values.to_vec(),
        })
    }

    /// Half the width of the interval.
    pub fn half_width(&self) -> f64 {
        0.5 * (self.ci_high - self.ci_low)
    }

    /// Whether even `most` runs would leave the interval wider than `half_width` on each side,
    /// judged by the spread of these: 1.5 times as wide, since the true spread may well be two
    /// thirds of what five runs show (the lower end of its one-sided 95 % interval).
    pub fn hopeless(&self, most: usize, half_width: f64) -> bool {
        let width = |n: f64| t_quantile(0.975, n - 1.0) / n.sqrt();
        let shrinks = width(most as f64) / width(self.values.len() as f64);
        self.half_width() * shrinks > 1.5 * half_width
    }
}

/// A row that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its name: the scenario.
    pub name: String,
    /// The published figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub theirs: Option<Published>,
    /// Or the bar its authors' own test asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// Ours.
    pub ours: Ours,
    /// Ours at strength 0.
    pub zero: Option<Ours>,
    /// `slack + 1.96 √(se_ours² + se_theirs²)`.
    pub tolerance: f64,
    /// Whether the row holds.
    pub holds: bool,
    /// Whether it counts as evidence for the method.
    pub evidence: bool,
    /// What was found, in a sentence.
    pub because: String,
}

impl Rule {
    fn tolerance(&self, ours: &Ours, theirs: &Published) -> f64 {
        let square = ours.standard_error.powi(2) + theirs.standard_error().powi(2);
        self.slack + 1.96 * square.sqrt()
    }

    /// Judges a row.
    pub fn judge(&self, name: &str, spec: &RowSpec, ours: Ours, zero: Option<Ours>) -> Row {
        let mut row = match (spec.published, spec.at_least) {
            (Some(theirs), _) => self.two_sided(name, spec, theirs, ours, zero),
            (None, bar) => one_sided(name, spec, bar.unwrap_or_default(), ours, zero),
        };
        if let (false, Some(miss)) = (row.holds, &spec.miss) {
            row.because = format!("{}; {miss}", row.because);
        }
        row
    }

    fn two_sided(
        &self,
        name: &str,
        spec: &RowSpec,
        theirs: Published,
        ours: Ours,
        zero: Option<Ours>,
    ) -> Row {
        let tolerance = self.tolerance(&ours, &theirs);
        let difference = ours.mean - theirs.mean;
        let narrow = ours.half_width() <= self.half_width;
        let holds = narrow && difference.abs() <= tolerance;
        let base = match (spec.fine_tune, &zero) {
            (Some(f), _) => Some(("fine-tuning", f.mean)),
            (None, zero) => zero.as_ref().map(|z| ("our arm at strength 0", z.mean)),
        };
        let apart = base.map(|(name, mean)| (name, (theirs.mean - mean).abs()));
        let far = apart.is_some_and(|(_, a)| a >= 2.0 * tolerance);
        let zero_fails = zero
            .as_ref()
            .is_some_and(|z| (z.mean - theirs.mean).abs() > self.tolerance(z, &theirs));
        let because = if !narrow {
            format!(
                "undecided: our 95 % half-width is {:.2} points after {} seeds",
                ours.half_width(),
                ours.values.len()
            )
        } else if !holds {
            format!(
                "ours is {:.2} points {}, {:.2} are allowed",
                difference.abs(),
                if difference > 0.0 { "above" } else { "below" },
                tolerance
            )
        } else if spec.zero.is_none() {
            "a baseline: there is no method to give evidence for".to_owned()
        } else if let Some(missing) = &spec.incomplete {
            format!("protocol incomplete: {missing}")
        } else if let (false, Some((base, apart))) = (far, apart) {
            format!(
                "holds, but the published value is {apart:.2} points from {base}, fewer than twice {tolerance:.2}"
            )
        } else if !zero_fails {
            "holds, but so does the arm at strength 0".to_owned()
        } else {
            "holds, and the arm at strength 0 does not".to_owned()
        };
        Row {
            name: name.to_owned(),
            theirs: Some(theirs),
            at_least: None,
            evidence: holds
                && spec.incomplete.is_none()
                && spec.zero.is_some()
                && far
                && zero_fails,
            ours,
            zero,
            tolerance,
            holds,
            because,
        }
    }
}

fn one_sided(name: &str, spec: &RowSpec, bar: f64, ours: Ours, zero: Option<Ours>) -> Row {
    let holds = ours.ci_low >= bar;
    let zero_fails = zero.as_ref().is_some_and(|z| z.mean < bar);
    let because = if ours.mean < bar {
        format!("ours is {:.2} points below the bar", bar - ours.mean)
    } else if !holds {
        format!(
            "undecided: our mean reaches the bar, the lower end of its interval is {:.2} points below",
            bar - ours.ci_low
        )
    } else if let Some(missing) = &spec.incomplete {
        format!("reaches the bar; protocol incomplete: {missing}")
    } else if zero.is_none() {
        "reaches the bar".to_owned()
    } else if zero_fails {
        "reaches the bar, and the arm at strength 0 does not".to_owned()
    } else {
        "reaches the bar, but so does the arm at strength 0".to_owned()
    };
    Row {
        name: name.to_owned(),
        theirs: None,
        at_least: Some(bar),
        evidence: holds && spec.incomplete.is_none() && zero_fails,
        ours,
        zero,
        tolerance: 0.0,
        holds,
        because,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        slack: 0.5,
        half_width: 1.5,
    };

    fn spec(mean: f64, fine_tune: f64) -> RowSpec {
        let published = |mean| Published {
            mean,
            sd: 0.5,
            n: 10,
        };
        RowSpec {
            arm: "a".into(),
            zero: Some("z".into()),
            published: Some(published(mean)),
            fine_tune: Some(published(fine_tune)),
            at_least: None,
            incomplete: None,
            measure: None,
            miss: None,
        }
    }

    fn ours(middle: f64) -> Ours {
        Ours::of(&[-0.2, -0.1, 0.0, 0.1, 0.2].map(|d| middle + d)).unwrap()
    }

    #[test]
    fn the_tolerance_by_hand() {
        let row = RULE.judge("class", &spec(90.0, 20.0), ours(90.9), Some(ours(20.0)));
        // se_ours = sqrt(0.025 / 5), se_theirs = 0.5 / sqrt(10).
        let by_hand = 0.5 + 1.96 * (0.025f64 / 5.0 + 0.025).sqrt();
        assert!((row.tolerance - by_hand).abs() < 1e-12, "{}", row.tolerance);
        // 0.8395: a difference of 0.9 is too much, one of 0.8 is not.
        assert!(
            !row.holds && row.because.contains("0.90 points above"),
            "{}",
            row.because
        );
        let row = RULE.judge("class", &spec(90.0, 20.0), ours(89.2), Some(ours(20.0)));
        assert!(row.holds && row.evidence, "{}", row.because);
    }

    #[test]
    fn evidence_needs_distance_a_failing_zero_and_a_known_protocol() {
        let judge =
            |spec: &RowSpec, zero: f64| RULE.judge("class", spec, ours(90.0), Some(ours(zero)));
        let near = judge(&spec(90.0, 89.0), 80.0);
        assert!(near.holds && !near.evidence && near.because.contains("1.00 points"));
        let same = judge(&spec(90.0, 20.0), 90.1);
        assert!(same.holds && !same.evidence && same.because.contains("strength 0"));
        let partial = RowSpec {
            incomplete: Some("the temperature".into()),
            ..spec(90.0, 20.0)
        };
        let row = judge(&partial, 20.0);
        assert!(row.holds && !row.evidence && row.because.contains("temperature"));
        let baseline = RowSpec {
            zero: None,
            ..spec(90.0, 20.0)
        };
        assert!(!RULE.judge("class", &baseline, ours(90.0), None).evidence);
        // Where no fine-tuning is published, ours at strength 0 is in its place.
        let alone = RowSpec {
            fine_tune: None,
            ..spec(90.0, 20.0)
        };
        let near = judge(&alone, 88.5);
        assert!(near.holds && !near.evidence && near.because.contains("1.50 points from our arm"));
        assert!(judge(&alone, 80.0).evidence);
    }

    #[test]
    fn a_wide_interval_decides_nothing() {
        let wide = Ours::of(&[86.0, 90.0, 94.0]).unwrap();
        let row = RULE.judge("task", &spec(90.0, 20.0), wide, Some(ours(20.0)));
        assert!(
            !row.holds && row.because.contains("undecided"),
            "{}",
            row.because
        );
    }

    /// Deviation 4: 20 runs may leave 1.87 points, which chance in five may have made of 1.5.
    /// Deviation 8: 3.74 points.
    #[test]
    fn runs_that_cannot_decide_are_spared() {
        let of = |sd: f64| {
            let shape = [-1.0, -0.5, 0.0, 0.5, 1.0].map(|v| 50.0 + v * sd / 0.625f64.sqrt());
            Ours::of(&shape).unwrap()
        };
        assert!((of(4.0).standard_error * 5f64.sqrt() - 4.0).abs() < 1e-9);
        assert!(!of(4.0).hopeless(20, 1.5));
        assert!(of(8.0).hopeless(20, 1.5));
    }

    #[test]
    fn a_bar_is_one_sided() {
        let bar = RowSpec {
            published: None,
            fine_tune: None,
            at_least: Some(83.0),
            miss: Some("the peer augments".into()),
            ..spec(0.0, 0.0)
        };
        assert!(bar.check().is_ok());
        let judge = |mine, zero| RULE.judge("pmnist", &bar, ours(mine), Some(ours(zero)));
        assert!(judge(99.0, 50.0).evidence && !judge(99.0, 90.0).evidence);
        let below = judge(82.0, 50.0);
        assert!(!below.holds, "{}", below.because);
        assert!(
            below
                .because
                .contains("1.00 points below the bar; the peer")
        );
        // The interval is 0.20 to either side of the mean.
        let barely = judge(83.1, 50.0);
        assert!(
            !barely.holds && barely.because.contains("undecided"),
            "{}",
            barely.because
        );
        let beside = RowSpec {
            fine_tune: spec(0.0, 0.0).fine_tune,
            ..bar.clone()
        };
        assert!(beside.check().is_err());
        let both = RowSpec {
            at_least: Some(83.0),
            ..spec(90.0, 20.0)
        };
        assert!(both.check().is_err());
    }

    #[test]
    fn our_interval_is_students() {
        // t(0.975, 4) = 2.7764451051977987.
        let o = ours(50.0);
        assert!((o.half_width() - 2.776_445_105_197_8 * o.standard_error).abs() < 1e-9);
        assert!(Ours::of(&[1.0]).is_err());
    }
}
