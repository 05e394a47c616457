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
    /// Falls along half a cosine to `plateau` within `cooldown` steps, stays there for as long as
    /// data comes, and falls exponentially to `floor` in the last `anneal` steps (Ibrahim et al.
    /// 2024, card S134). Go on from the plateau (`rewarm = false`), or start over.
    Infinite,
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
    /// From the second experience on, stay at `floor`: neither warmed up again nor decayed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// Of `infinite`: the constant part, as a share of the peak.
    #[serde(skip_serializing_if = "is_zero")]
    pub plateau: f64,
    /// Of `infinite`: steps from the peak to the plateau.
    #[serde(skip_serializing_if = "is_none")]
    pub cooldown: u64,
    /// Of `infinite`: the last steps, from the plateau to the floor.
    #[serde(skip_serializing_if = "is_none")]
    pub anneal: u64,
}

fn is_zero(share: &f64) -> bool {
    *share == 0.0
}

fn is_none(steps: &u64) -> bool {
    *steps == 0
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            course: Course::Constant,
            warmup: 0,
            floor: 0.0,
            rewarm: true,
            hold: false,
            plateau: 0.0,
            cooldown: 0,
            anneal: 0,
        }
    }
}

/// Where a step stands.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Which experience, from 0.
    pub experience: usize,
    /// Steps taken in the experience, and how many it has.
    pub within: (u64, u64),
    /// Steps taken in the run, and how many it has.
    pub overall: (u64, u64),
}

impl Schedule {
    /// What does not fit together, if anything.
    pub fn problem(&self) -> Option<&'static str> {
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let infinite = self.course == Course::Infinite;
        if !share(self.floor) || !share(self.plateau) {
            Some("`floor` and `plateau` are shares of the peak, from 0 to 1")
        } else if infinite && (self.floor > self.plateau || self.floor == 0.0) {
            Some("the course `infinite` needs a `plateau` and below it a `floor` above 0")
        } else if !infinite && (self.plateau, self.cooldown, self.anneal) != (0.0, 0, 0) {
            Some("`plateau`, `cooldown` and `anneal` are of the course `infinite`")
        } else {
            None
        }
    }

    /// The factor on the peak rate at a step.
    pub fn at(&self, place: Place) -> f64 {
        let (step, total) = match self.rewarm {
            true => place.within,
            false => place.overall,
        };
        match self.hold && place.experience > 0 {
            true => self.floor,
            false => self.factor(step, total),
        }
    }

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
            Course::Cosine => half_cosine(t),
            Course::Infinite => {
                let left = total.saturating_sub(step);
                if left <= self.anneal && self.anneal > 0 {
                    let gone = 1.0 - left as f64 / self.anneal as f64;
                    return self.plateau * (self.floor / self.plateau).powf(gone);
                }
                let cooled = (step - self.warmup) as f64 / self.cooldown.max(1) as f64;
                return self.plateau + (1.0 - self.plateau) * half_cosine(cooled.min(1.0));
            }
        };
        self.floor + (1.0 - self.floor) * fall
    }
}

/// 1 at 0, 0 at 1.
fn half_cosine(t: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * t).cos())
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
            ..Schedule::default()
        };
        assert_eq!(s.factor(0, 104), 0.25);
        assert_eq!(s.factor(3, 104), 1.0);
        assert_eq!(s.factor(4, 104), 1.0);
        assert!((s.factor(54, 104) - 0.55).abs() < 1e-12);
        assert!((s.factor(104, 104) - 0.1).abs() < 1e-12);
        assert_eq!(Schedule::default().factor(77, 100), 1.0);
    }

    #[test]
    fn an_infinite_course_stays_on_its_plateau() {
        let s = Schedule {
            course: Course::Infinite,
            warmup: 10,
            floor: 0.01,
            plateau: 0.5,
            cooldown: 20,
            anneal: 40,
            rewarm: false,
            ..Schedule::default()
        };
        assert_eq!(s.problem(), None);
        assert_eq!(s.factor(9, 1000), 1.0);
        assert_eq!(s.factor(10, 1000), 1.0);
        assert!((s.factor(20, 1000) - 0.75).abs() < 1e-12);
        for step in [30, 500, 959] {
            assert!((s.factor(step, 1000) - 0.5).abs() < 1e-12, "{step}");
        }
        let middle = (0.5f64 * 0.01).sqrt();
        assert!((s.factor(980, 1000) - middle).abs() < 1e-12);
        assert!((s.factor(1000, 1000) - 0.01).abs() < 1e-12);
        let held = Schedule { hold: true, ..s };
        let place = |experience| Place {
            experience,
            within: (0, 1000),
            overall: (500, 1000),
        };
        assert_eq!(held.at(place(0)), 0.5);
        assert_eq!(held.at(place(1)), 0.01);
    }
}
