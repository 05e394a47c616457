//! Learning-rate schedules, with re-warming at each experience.

use serde::{Deserialize, Serialize};

/// The course of the learning rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Course {
    /// The same throughout.
    #[default]
    Constant,
    /// Falls in a straight line to `floor`.
    Linear,
    /// Falls along half a cosine to `floor`.
    Cosine,
}

/// A schedule: a linear warm-up, then a course.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Schedule {
    /// What follows the warm-up.
    pub course: Course,
    /// Steps of linear warm-up from 0.
    pub warmup: u64,
    /// The end of a falling course, as a share of the peak.
    pub floor: f64,
    /// Start over (warm-up included) at every experience: re-warming.
    pub rewarm: bool,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            course: Course::Constant,
            warmup: 0,
            floor: 0.0,
            rewarm: true,
        }
    }
}

impl Schedule {
    /// The factor on the peak rate at `step` of `total` (both counted from the experience's
    /// start when re-warming, from the run's otherwise).
    pub fn factor(&self, step: u64, total: u64) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / self.warmup as f64;
        }
        let rest = total.saturating_sub(self.warmup).max(1) as f64;
        let t = ((step - self.warmup) as f64 / rest).min(1.0);
        let fall = match self.course {
            Course::Constant => return 1.0,
            Course::Linear => 1.0 - t,
            Course::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * t).cos()),
        };
        self.floor + (1.0 - self.floor) * fall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_and_falls_as_written() {
        let s = Schedule {
            course: Course::Cosine,
            warmup: 4,
            floor: 0.1,
            rewarm: true,
        };
        assert_eq!(s.factor(0, 104), 0.25);
        assert_eq!(s.factor(3, 104), 1.0);
        assert_eq!(s.factor(4, 104), 1.0);
        assert!((s.factor(54, 104) - 0.55).abs() < 1e-12);
        assert!((s.factor(104, 104) - 0.1).abs() < 1e-12);
        assert_eq!(Schedule::default().factor(77, 100), 1.0);
    }
}
