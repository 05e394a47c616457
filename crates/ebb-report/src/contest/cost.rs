//! What each group costs, against one of them, and which groups cost more for no gain.

use ebb_space::Direction;
use serde::Serialize;

use super::Measure;
use crate::data::{Cost, finite};
use crate::group::Group;

/// What a run of a group costs; `None` where a run of it did not measure that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Costs {
    /// Rows that went forward through the network.
    pub forward_rows: Option<Paid>,
    /// Rows that went backward: gradient evaluations of one example each.
    pub backward_rows: Option<Paid>,
    /// Calls of the gradient oracle.
    pub gradient_calls: Option<Paid>,
    /// Bytes of the replay memory and of what the method stores.
    pub memory_bytes: Option<Paid>,
    /// Seconds of training, without evaluation and saving.
    pub train_seconds: Option<Paid>,
}

/// One cost over the runs of a group.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Paid {
    /// The mean.
    pub mean: f64,
    /// The lowest of the runs.
    pub low: f64,
    /// The highest of the runs.
    pub high: f64,
    /// The mean over that of the group compared with; `None` where that is 0 or not measured.
    pub ratio: Option<f64>,
}

/// A group that another one dominates: by the point estimates it is no better and no cheaper, and
/// behind in one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dominated {
    /// The group.
    pub group: String,
    /// The groups that dominate it.
    pub by: Vec<String>,
}

/// The costs of each group, as ratios to those of the one at `against`.
pub(super) fn costs(groups: &[Group], against: usize) -> Vec<Costs> {
    let whole = |v: Option<u64>| v.map(|v| v as f64);
    let all = |of: &dyn Fn(&Cost) -> Option<f64>| -> Vec<Option<Paid>> {
        let mut paid: Vec<Option<Paid>> = groups.iter().map(|g| paid(g, of)).collect();
        let unit = paid[against].map(|p| p.mean).filter(|unit| *unit > 0.0);
        for p in paid.iter_mut().flatten() {
            p.ratio = unit.map(|unit| p.mean / unit);
        }
        paid
    };
    let forward = all(&|c| whole(c.forward_rows));
    let backward = all(&|c| whole(c.backward_rows));
    let calls = all(&|c| whole(c.gradient_calls));
    let bytes = all(&|c| whole(c.memory_bytes));
    let seconds = all(&|c| c.train_seconds);
    let of = |g: usize| Costs {
        forward_rows: forward[g],
        backward_rows: backward[g],
        gradient_calls: calls[g],
        memory_bytes: bytes[g],
        train_seconds: seconds[g],
    };
    (0..groups.len()).map(of).collect()
}

/// A mean over some of the runs would pass for one over all, so each of them must have measured it.
fn paid(group: &Group, of: impl Fn(&Cost) -> Option<f64>) -> Option<Paid> {
    let every = group.runs.iter().all(|r| finite(of(&r.cost)).is_some());
    let [mean, low, high] = group.cost(of).filter(|_| every)?;
    Some(Paid {
        mean,
        low,
        high,
        ratio: None,
    })
}

impl Costs {
    /// What domination looks at. Seconds are left to the reader: they depend on the machine.
    pub(crate) fn work(&self) -> Option<[f64; 3]> {
        let mean = |p: Option<Paid>| p.map(|p| p.mean);
        Some([
            mean(self.forward_rows)?,
            mean(self.backward_rows)?,
            mean(self.memory_bytes)?,
        ])
    }
}

/// Means that differ by no more are equal: they are sums in another order.
const ROUNDING: f64 = 1e-9;

/// The groups that another one dominates. One whose costs or value are not known takes no part.
pub(super) fn dominated(measure: &Measure, costs: &[Costs]) -> Vec<Dominated> {
    let loss = |value: f64| match measure.direction {
        Direction::Higher => Some(-value),
        Direction::Lower => Some(value),
        Direction::None => None,
    };
    // Everything that is better when it is less.
    let point = |g: usize| {
        let value = measure.values[g].number.as_ref()?.value;
        let [forward, backward, bytes] = costs[g].work()?;
        Some([loss(value)?, forward, backward, bytes])
    };
    let points: Vec<Option<[f64; 4]>> = (0..costs.len()).map(point).collect();
    let beats = |a: &[f64; 4], b: &[f64; 4]| {
        let both = || a.iter().zip(b);
        both().all(|(a, b)| *a <= b + ROUNDING) && both().any(|(a, b)| *a < b - ROUNDING)
    };
    let by = |g: usize| -> Option<Dominated> {
        let own = points[g].as_ref()?;
        let beaten = |h: &usize| points[*h].as_ref().is_some_and(|other| beats(other, own));
        let by: Vec<String> = (0..points.len())
            .filter(beaten)
            .map(|h| measure.values[h].group.clone())
            .collect();
        (!by.is_empty()).then(|| Dominated {
            group: measure.values[g].group.clone(),
            by,
        })
    };
    (0..points.len()).filter_map(by).collect()
}
