//! Which way to erase: every eligible one tried on other records first.
//!
//! What a method does to *these* records can only be seen by doing it, and then it is done. So each one
//! is rehearsed on records of the same kind that stay: another class where a class is to go, as many
//! drawn ones otherwise. A rehearsal changes nothing.

use crate::error::Result;
use crate::exact::Route;
use crate::left::{Kind, Relearning, is_whole, kinds, left};
use crate::method::Method;
use crate::subject::Subject;
use ebb_data::Item;
use ebb_space::{ExampleId, Key, Number};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Instant;

/// The most that accuracy on test examples may fall, unless said otherwise.
pub const PRICE: f64 = 0.02;
/// The most that loss on them may rise, as a share of what it was and in nats: a language model that is
/// never right to the last token has no accuracy to lose.
const LOSS_PRICE: (f64, f64) = (0.1, 0.05);

/// A method tried on other records.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rehearsal {
    /// The method; `untouched` is the model as it is.
    pub method: String,
    /// What is left of the rehearsed records (see [`left`]).
    pub numbers: Vec<Number>,
    /// Seconds that it took.
    pub seconds: f64,
    /// Why it could not be done, if so.
    pub failed: Option<String>,
}

impl Rehearsal {
    fn value(&self, name: &str) -> Option<f64> {
        self.numbers
            .iter()
            .find(|n| n.name == name)
            .map(|n| n.value)
    }
}

/// A recommendation with its reasons.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Advice {
    /// `exact` or the name of a method.
    pub method: String,
    /// Why, a sentence each.
    pub because: Vec<String>,
}

/// Records that stand in for those to be forgotten: where these are (nearly) all of some classes, all of
/// as many other classes, otherwise as many drawn by `key`.
pub fn stand_ins(forget: &[Item], retain: &[Item], key: Key) -> BTreeSet<ExampleId> {
    let (gone, left) = (kinds(forget), kinds(retain));
    let whole: Vec<Kind> = gone
        .keys()
        .copied()
        .filter(|k| is_whole(&gone, &left, k))
        .collect();
    let mut others: Vec<Kind> = left
        .keys()
        .copied()
        .filter(|c| !gone.contains_key(c))
        .collect();
    if !whole.is_empty() && !others.is_empty() {
        key.sub("classes")
            .order(&mut others, |c| u64::from(c.0) << 32 | u64::from(c.1));
        others.truncate(whole.len());
        let of = |i: &&Item| others.contains(&(i.task, i.label));
        return retain.iter().filter(of).map(|i| i.id).collect();
    }
    let mut drawn: Vec<&Item> = retain.iter().collect();
    key.sub("records").order(&mut drawn, |i| i.id.mix());
    let most = forget.len().min(retain.len() / 2).max(1);
    drawn.into_iter().take(most).map(|i| i.id).collect()
}

/// Tries methods on the stand-ins, each on the model as it is; the first one that comes back is the model
/// untouched.
///
/// # Errors
/// When the model itself cannot be measured, or the user stops.
pub fn rehearse(
    mut subject: Subject,
    methods: &[Method],
    relearning: &Relearning,
) -> Result<Vec<Rehearsal>> {
    let stand_ins = stand_ins(
        &subject.forget,
        &subject.retain,
        subject.key.sub("rehearsal"),
    );
    let stands_in = |i: &Item| stand_ins.contains(&i.id);
    (subject.forget, subject.retain) = subject.retain.iter().copied().partition(stands_in);
    let before = subject.oracle().model.weights();
    let mut all = vec![Rehearsal {
        method: "untouched".into(),
        numbers: left(&mut subject, relearning)?,
        seconds: 0.0,
        failed: None,
    }];
    for method in methods {
        subject.go_on()?;
        let begun = Instant::now();
        let eraser = method.eraser();
        let erased = eraser.erase(&mut subject);
        let seconds = begun.elapsed().as_secs_f64();
        let measured = erased.and_then(|()| left(&mut subject, relearning));
        all.push(Rehearsal {
            method: eraser.name().to_owned(),
            seconds,
            failed: measured.as_ref().err().map(ToString::to_string),
            numbers: measured.unwrap_or_default(),
        });
        let oracle = subject.oracle();
        oracle
            .model
            .set_weights(&before)
            .map_err(ebb_learn::Error::from)?;
    }
    Ok(all)
}

/// What to do: the exact route where it may take so many seconds; otherwise the method that leaves the
/// least to attack of those that keep the accuracy on test examples within `price`, and the exact route
/// again where none does.
pub fn advise(route: &Route, rehearsals: &[Rehearsal], seconds: Option<f64>, price: f64) -> Advice {
    let exact = |because: Vec<String>| Advice {
        method: "exact".into(),
        because,
    };
    let expected = route.seconds.map(|s| s * route.share());
    let cost = match expected {
        Some(s) => format!("{:.0} % of the run, about {s:.0} s", 100.0 * route.share()),
        None => format!("{:.0} % of the run", 100.0 * route.share()),
    };
    let fits = match (seconds, expected) {
        (Some(most), Some(expected)) => expected <= most,
        (Some(_), None) => false,
        (None, _) => true,
    };
    let only = "it is the only route whose result never saw the records".to_owned();
    if fits {
        return exact(vec![only, format!("it learns {cost} again")]);
    }
    let before = |name| rehearsals.first().and_then(|r| r.value(name));
    let (accuracy, loss) = (before("test_accuracy"), before("test_loss"));
    let kept = |r: &&Rehearsal| match (r.value("test_accuracy"), accuracy) {
        (Some(now), Some(before)) => {
            let cheap = match (r.value("test_loss"), loss) {
                (Some(now), Some(before)) => now <= before * (1.0 + LOSS_PRICE.0) + LOSS_PRICE.1,
                _ => true,
            };
            now >= before - price && cheap
        }
        _ => false,
    };
    // What an attack sees, and what a few steps bring back.
    let exposed = |r: &Rehearsal| {
        r.value("attack_auc").map_or(1.0, |a| (a - 0.5).abs())
            + r.value("relearnt_accuracy").unwrap_or(1.0)
    };
    let tried = rehearsals.iter().skip(1).filter(|r| r.failed.is_none());
    let best = tried
        .filter(kept)
        .min_by(|a, b| exposed(a).total_cmp(&exposed(b)));
    match best {
        Some(best) => Advice {
            method: best.method.clone(),
            because: vec![
                format!("learning {cost} again does not fit the time"),
                format!(
                    "of the methods that cost at most {:.0} points, and a tenth of the loss, on test \
                     examples in a rehearsal on other records, it leaves the least to attack and to \
                     relearn",
                    100.0 * price
                ),
                "its result is approximate: verify it against retrained models".into(),
            ],
        },
        None => exact(vec![
            format!(
                "no method kept the accuracy on test examples within {:.0} points, and the loss within a \
                 tenth, in a rehearsal on other records",
                100.0 * price
            ),
            format!("it learns {cost} again, which is more time than was given"),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_space::{Direction, Unit};

    fn item(n: u32, label: u32) -> Item {
        Item {
            row: n,
            label,
            task: 0,
            id: ExampleId::of(&n.to_le_bytes(), label),
        }
    }

    #[test]
    fn a_class_stands_in_for_a_class_and_records_for_records() {
        let all: Vec<Item> = (0..60).map(|n| item(n, n % 3)).collect();
        let key = Key::new(1, "plan");
        let (class, rest): (Vec<Item>, Vec<Item>) = all.iter().copied().partition(|i| i.label == 1);
        let found = stand_ins(&class, &rest, key);
        let labels: BTreeSet<u32> = rest
            .iter()
            .filter(|i| found.contains(&i.id))
            .map(|i| i.label)
            .collect();
        assert_eq!((found.len(), labels.len()), (20, 1));
        let found = stand_ins(&all[..5], &all[5..], key);
        assert_eq!(found.len(), 5);
        assert!(all[..5].iter().all(|i| !found.contains(&i.id)));
    }

    fn tried(method: &str, test: f64, attack: f64) -> Rehearsal {
        let number = |name: &str, value| Number {
            name: name.into(),
            value,
            ci_low: None,
            ci_high: None,
            n: 1,
            unit: Unit::Example,
            direction: Direction::Higher,
            protocol: String::new(),
        };
        Rehearsal {
            method: method.into(),
            numbers: vec![
                number("test_accuracy", test),
                number("attack_auc", attack),
                number("relearnt_accuracy", 0.5),
            ],
            seconds: 1.0,
            failed: None,
        }
    }

    #[test]
    fn exact_where_it_fits_else_what_keeps_the_model_usable() {
        let route = Route {
            clean: Vec::new(),
            kept_steps: 50,
            all_steps: 100,
            seconds: Some(1000.0),
            because: None,
        };
        let all = [
            tried("untouched", 0.95, 0.9),
            tried("ssd", 0.94, 0.6),
            tried("npo", 0.95, 0.8),
            // Forgets best, and everything else too.
            tried("grad-diff", 0.2, 0.5),
        ];
        assert_eq!(advise(&route, &all, None, PRICE).method, "exact");
        assert_eq!(advise(&route, &all, Some(600.0), PRICE).method, "exact");
        assert_eq!(advise(&route, &all, Some(60.0), PRICE).method, "ssd");
        assert_eq!(advise(&route, &all[..1], Some(60.0), PRICE).method, "exact");
        // A model that was never right has only its loss to lose.
        let loss = |mut r: Rehearsal, loss: f64| {
            r.numbers.push(Number {
                name: "test_loss".into(),
                value: loss,
                ..r.numbers[0].clone()
            });
            r
        };
        let destroyed = [
            loss(tried("untouched", 0.0, 0.9), 2.0),
            loss(tried("npo", 0.0, 0.5), 11.0),
            loss(tried("iau", 0.0, 0.8), 2.1),
        ];
        assert_eq!(advise(&route, &destroyed, Some(60.0), PRICE).method, "iau");
    }
}
