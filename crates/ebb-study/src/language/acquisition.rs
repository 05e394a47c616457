//! How facts are acquired while other text is learnt, and how they fade.
//!
//! **Source.** Chang et al., NeurIPS 2024 (card S194). A decoder learns sentences of a small
//! grammar; statements about made-up people stand among them at known steps, and the probability
//! of what they say is followed. **What is measured**, a value a seed:
//!
//! | arm | facts | measures |
//! |---|---|---|
//! | `duplicate` | ten times in the same words | `effectivity` (verbatim probe), `r2_log`, `r2_line`, `slope`, `threshold` |
//! | `duplicate_semantic`, `paraphrase_semantic` | the same, asked in words that were never learnt | the same |
//! | `paraphrase` | ten times, each time in other words | the same, of the first words |
//! | `once` | once | the same |
//! | `never` | never, asked as if they were duplicates: a control | the same |
//! | `large_batch` | ten times in other words, with batches four times as large at equal tokens | the same, semantic |
//! | `short_gap`, `long_gap` | a few times, 0.3 and 3 times the threshold apart | `gain`, `gap` |
//!
//! `l(q)` is the log-probability of the fact's last word behind a probe, less the mean of the same
//! over facts that are never learnt: what is learnt about facts as such is not counted.
//! *Effectivity* is the jump of `l` from before an exposure to its best within the gap to the next
//! (`t_LAM`), mean over exposures and facts, less the jump that the same search finds in facts that
//! are never learnt. *Retainability* `R(t)` is what is left, `t` after the last best, of the rise
//! since before the first exposure: the ratio of the means over facts. `R = −a log₁₀ t + b` gives
//! the `slope` a and the `threshold` 10^(b/a), in steps of the small batch.

use super::learner::{Learner, Row, Small};
use super::sentences::{Sentence, row, tokenizer, vocabulary};
use crate::clause::Samples;
use crate::error::{Error, Result};
use crate::native::found::Found;
use crate::runner::{Ended, Options, Watch};
use crate::verdict::Verdict;
use ebb_hub::Tokenizer;
use ebb_space::stats::Line;
use ebb_space::{Direction, Key};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The arms that clauses may name.
pub const ARMS: &[&str] = &[
    "duplicate",
    "duplicate_semantic",
    "large_batch",
    "long_gap",
    "never",
    "once",
    "paraphrase",
    "paraphrase_semantic",
    "short_gap",
];

/// Who lives where, in other words each time: `S` the person, `O` the town. The last wording is
/// never learnt.
const WORDINGS: [&str; 11] = [
    "the home of S is O",
    "S lives in O",
    "S has a house in O",
    "the town where S was born is O",
    "everybody knows that S comes from O",
    "S grew up and stayed in O",
    "you find the family of S in O",
    "letters to S go to O",
    "the door of S is one in O",
    "S pays all taxes to O",
    "if you look for S go to O",
];
/// The wording that is never learnt.
const HELD_OUT: usize = 10;

/// What is trained, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The network, and how it learns text.
    pub network: Small,
    /// Steps before the first fact.
    pub steps: u64,
    /// Facts of each kind.
    pub facts: usize,
    /// Steps between two exposures.
    pub gap: u64,
    /// Steps that are followed after the last exposure.
    pub follow: u64,
    /// Exposures of the facts that test the threshold.
    pub threshold_exposures: u64,
    /// The longest gap they may have; a longer one is cut to it.
    pub longest_gap: u64,
}

/// Exposures of a fact that is learnt more than once.
const EXPOSURES: u64 = 10;
/// How many times larger the batches of `large_batch` are.
const LARGER: u64 = 4;
/// Steps behind the last exposure at which the facts of the threshold are read.
const READ_AFTER: u64 = 20;

/// A fact and when it is learnt: at each of these steps, in this wording.
struct Fact {
    shown: Vec<(u64, usize)>,
    /// A row for each wording, whose last word alone is predicted.
    probes: Vec<Row>,
    /// A row for each wording, all of which is learnt.
    texts: Vec<Row>,
}

/// The log-probability of a fact's last word by step, behind one probe.
type Trace = BTreeMap<u64, f64>;

/// What traces come to.
struct Measured {
    effectivity: f64,
    /// `(t, R)`.
    kept: Vec<(f64, f64)>,
}

struct World<'a> {
    spec: &'a Spec,
    tokenizer: Tokenizer,
    options: &'a Options<'a>,
}

pub(crate) fn run(
    spec: &Spec,
    seeds: &[u64],
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<Samples> {
    let large_gap = spec.gap / LARGER;
    if spec.facts < 2 || large_gap < 2 || spec.follow < 100 || spec.threshold_exposures < 2 {
        return Err(Error::Study {
            id: verdict.id.clone(),
            reason: format!(
                "it needs facts, a gap of at least {}, 100 steps to follow and two exposures",
                2 * LARGER
            ),
        });
    }
    let names: Vec<String> = (0..4 * spec.facts).map(|i| format!("person{i}")).collect();
    let towns: Vec<String> = (0..TOWNS).map(|i| format!("town{i}")).collect();
    let fixed = WORDINGS.iter().flat_map(|w| w.split(' '));
    let words = vocabulary().into_iter().chain(fixed);
    let words = words.chain(names.iter().chain(&towns).map(String::as_str));
    let world = World {
        spec,
        tokenizer: tokenizer(words)?,
        options,
    };
    watch.ahead(seeds.len());
    let n = &spec.network;
    let protocol = format!(
        "decoder {} x {}, batch {}, {} exposures {} steps apart, {} facts an arm",
        n.layers, n.width, n.batch, EXPOSURES, spec.gap, spec.facts
    );
    let mut all: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for seed in seeds {
        let begun = Instant::now();
        let found = world.seed(*seed)?;
        watch.run(&Ended {
            arm: "paraphrase".to_owned(),
            seed: *seed,
            trial: None,
            seconds: begun.elapsed().as_secs_f64(),
            measured: BTreeMap::from([(
                "effectivity".to_owned(),
                found[&("paraphrase", "effectivity")],
            )]),
        });
        for (name, value) in found {
            all.entry(name).or_default().push(value);
        }
    }
    let mut report = Found::new("acquisition", protocol, seeds);
    for ((arm, name), values) in all {
        let what = match name {
            "effectivity" => "mean jump of the log-probability at an exposure, in nats",
            "slope" => "a of R = −a log₁₀ t + b, t in steps of the small batch",
            "threshold" => "10^(b/a), in steps of the small batch; 0 where R does not fall",
            "r2_log" => "R² of R against log t",
            "r2_line" => "R² of R against t",
            "gain" => "rise of the log-probability, read at one delay behind the last exposure",
            _ => "steps between two exposures",
        };
        report.add(arm, name, values, Direction::None, what);
    }
    let (samples, arms) = report.finish()?;
    verdict.arms = arms;
    Ok(samples)
}

/// Towns that facts name.
const TOWNS: usize = 30;

impl World<'_> {
    /// A fact about person `number`, shown as `shown` says.
    fn fact(&self, number: usize, key: Key, shown: Vec<(u64, usize)>) -> Result<Fact> {
        let town = key.at(number as u64).stream().below(TOWNS as u64);
        let (person, town) = (format!("person{number}"), format!("town{town}"));
        let say = |wording: &str, predicted: bool| {
            let words: Vec<&str> = wording
                .split(' ')
                .map(|word| match word {
                    "S" => person.as_str(),
                    "O" => town.as_str(),
                    word => word,
                })
                .collect();
            let given = if predicted { words.len() - 1 } else { 1 };
            row(&words, given, &self.tokenizer)
        };
        let rows = |predicted| -> Result<Vec<Row>> {
            WORDINGS.iter().map(|w| say(w, predicted)).collect()
        };
        Ok(Fact {
            shown,
            probes: rows(true)?,
            texts: rows(false)?,
        })
    }

    /// Trains from step `from` to step `to`; facts take the place of other text at their steps.
    /// Probes are asked before the steps that `ask` names, all of them behind wording 0 and behind
    /// the held-out one.
    fn train(
        &self,
        learner: &mut Learner,
        key: Key,
        facts: &[Fact],
        steps: std::ops::Range<u64>,
        batch: u64,
        ask: impl Fn(u64) -> bool,
    ) -> Result<Vec<[Trace; 2]>> {
        let mut traces = vec![[Trace::new(), Trace::new()]; facts.len()];
        let last = steps.end;
        for step in steps.start..=last {
            if self.options.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            if ask(step) || step == last {
                let probes: Vec<&Row> = facts
                    .iter()
                    .flat_map(|f| [&f.probes[0], &f.probes[HELD_OUT]])
                    .collect();
                let losses = learner.losses(&probes);
                for (of, losses) in traces.iter_mut().zip(losses.chunks_exact(2)) {
                    for (trace, loss) in of.iter_mut().zip(losses) {
                        trace.insert(step, -loss);
                    }
                }
            }
            if step == last {
                break;
            }
            let mut rows: Vec<&Row> = facts
                .iter()
                .flat_map(|f| {
                    let now = f.shown.iter().filter(|(at, _)| *at == step);
                    now.map(|(_, wording)| &f.texts[*wording])
                })
                .collect();
            let key = key.at(step);
            let text: Vec<Row> = (rows.len() as u64..batch)
                .map(|i| row(&Sentence::new(key.at(i)).words, 1, &self.tokenizer))
                .collect::<Result<_>>()?;
            rows.extend(&text);
            learner.step(&rows)?;
        }
        Ok(traces)
    }

    /// Facts of the main run, `facts` of each kind, an exposure every `gap` steps, spread over the
    /// gap: duplicates, paraphrases, once, never.
    fn facts(&self, key: Key, from: u64, gap: u64) -> Result<Vec<Fact>> {
        let n = self.spec.facts;
        (0..4 * n)
            .map(|number| {
                let (kind, at) = (number / n, from + (number % n) as u64 % gap);
                let times = |i: u64| at + i * gap;
                let shown = match kind {
                    0 => (0..EXPOSURES).map(|i| (times(i), 0)).collect(),
                    1 => (0..EXPOSURES).map(|i| (times(i), i as usize)).collect(),
                    2 => vec![(at, 0)],
                    _ => Vec::new(),
                };
                self.fact(number, key, shown)
            })
            .collect()
    }

    fn seed(&self, seed: u64) -> Result<BTreeMap<(&'static str, &'static str), f64>> {
        let (spec, key) = (self.spec, Key::new(seed, "acquisition"));
        let text = key.sub("text");
        let small = spec.network.batch as u64;
        let mut all = BTreeMap::new();
        let mut warm = Learner::new(&spec.network, &self.tokenizer, 12, seed)?;
        self.train(&mut warm, text, &[], 0..spec.steps, small, |_| false)?;

        // The main run.
        let mut learner = warm.branch();
        let facts = self.facts(key, spec.steps, spec.gap)?;
        let traces = self.followed(&mut learner, text, &facts, spec.gap, 1)?;
        let n = spec.facts;
        let clocks = clocks(&facts);
        let mut paraphrased = (f64::NAN, f64::NAN);
        for (arm, kind, probe) in [
            ("duplicate", 0, 0),
            ("duplicate_semantic", 0, 1),
            ("paraphrase", 1, 0),
            ("paraphrase_semantic", 1, 1),
            ("once", 2, 0),
            ("never", 3, 0),
        ] {
            let facts = if kind == 3 { n / 2 } else { n };
            let of = kind * n..kind * n + facts;
            let measured = measure(&clocks, &traces, of, probe, spec.gap);
            let fitted = put(&mut all, arm, &measured, 1.0);
            if arm == "paraphrase_semantic" {
                paraphrased = fitted;
            }
        }

        // Batches four times as large, at equal tokens.
        let mut learner = warm.branch();
        let gap = spec.gap / LARGER;
        let facts = self.facts(key, spec.steps, gap)?;
        let traces = self.followed(&mut learner, text.sub("large"), &facts, gap, LARGER)?;
        let clocks = self::clocks(&facts);
        let measured = measure(&clocks, &traces, n..2 * n, 1, gap);
        put(&mut all, "large_batch", &measured, LARGER as f64);

        // Whether facts that come back after the threshold still add up.
        let (_, threshold) = paraphrased;
        let gap = |share: f64| {
            let gap = (share * threshold).round();
            let gap = if gap.is_finite() { gap.max(1.0) } else { 1.0 };
            (gap as u64).min(spec.longest_gap)
        };
        let (short, long) = (gap(0.3), gap(3.0));
        let times = spec.threshold_exposures;
        let last = spec.steps + (times - 1) * long + n as u64;
        let facts: Vec<Fact> = (0..4 * n)
            .map(|number| {
                let gap = if number / n == 0 { short } else { long };
                let end = last - (number % n) as u64;
                let before = |i: u64| (end - i * gap, ((times - 1 - i) % 10) as usize);
                let shown = match number / n {
                    0 | 1 => (0..times).map(before).collect(),
                    _ => Vec::new(),
                };
                self.fact(number, key.sub("threshold"), shown)
            })
            .collect::<Result<_>>()?;
        let read: Vec<u64> = (0..n as u64).map(|i| last - i + READ_AFTER).collect();
        let start = spec.steps;
        let mut learner = warm.branch();
        let steps = start..last + READ_AFTER;
        let asked = |step| step == start || read.contains(&step);
        let traces = self.train(&mut learner, text.sub("gaps"), &facts, steps, small, asked)?;
        let never = 2 * n..4 * n;
        for (arm, of, gap) in [("short_gap", 0..n, short), ("long_gap", n..2 * n, long)] {
            let rise = |i: usize| {
                let at = read[i % n];
                level(&traces, never.clone(), i, 1, at) - level(&traces, never.clone(), i, 1, start)
            };
            let gain = of.map(rise).sum::<f64>() / n as f64;
            all.insert((arm, "gain"), gain);
            all.insert((arm, "gap"), gap as f64);
        }
        Ok(all)
    }

    /// Shows facts and follows them; batches are `larger` times the small one, and steps so many
    /// times fewer.
    fn followed(
        &self,
        learner: &mut Learner,
        text: Key,
        facts: &[Fact],
        gap: u64,
        larger: u64,
    ) -> Result<Vec<[Trace; 2]>> {
        let spec = self.spec;
        let shown = spec.steps + EXPOSURES * gap + gap;
        let end = shown + spec.follow / larger;
        let later = |step: u64| {
            // About twelve times in each tenfold time.
            let t = (step - shown) as f64;
            let grid = |t: f64| (12.0 * (t + 1.0).log10()).floor();
            grid(t) > grid(t - 1.0)
        };
        let asked = |step: u64| step <= shown || later(step);
        let batch = spec.network.batch as u64 * larger;
        self.train(learner, text, facts, spec.steps..end, batch, asked)
    }
}

/// When each fact is exposed; those that never are have the clocks of the first ones.
fn clocks(facts: &[Fact]) -> Vec<Vec<u64>> {
    let clock = |fact: &Fact| fact.shown.iter().map(|(at, _)| *at).collect::<Vec<u64>>();
    let quarter = facts.len() / 4;
    let of = |(i, fact)| match i / quarter.max(1) {
        0..3 => clock(fact),
        _ => clock(&facts[i % quarter.max(1)]),
    };
    facts.iter().enumerate().map(of).collect()
}

/// `l` of a fact at a step: less the mean of the facts that are never learnt.
fn level(
    traces: &[[Trace; 2]],
    never: std::ops::Range<usize>,
    fact: usize,
    probe: usize,
    step: u64,
) -> f64 {
    let at = |i: usize| traces[i][probe].get(&step).copied().unwrap_or(f64::NAN);
    let n = never.len() as f64;
    at(fact) - never.map(at).sum::<f64>() / n
}

/// Effectivity and retainability of the facts `of`, exposed at the steps of `clocks`. Of the facts
/// that are never learnt, the last quarter, the second half is what others are compared with.
fn measure(
    clocks: &[Vec<u64>],
    traces: &[[Trace; 2]],
    of: std::ops::Range<usize>,
    probe: usize,
    gap: u64,
) -> Measured {
    let never = clocks.len() / 8 * 7..clocks.len();
    let l = |fact: usize, step: u64| level(traces, never.clone(), fact, probe, step);
    // The best step within the gap behind an exposure.
    let best = |fact: usize, at: u64| {
        (at + 1..=at + gap)
            .map(|step| (l(fact, step), step))
            .filter(|(l, _)| l.is_finite())
            .fold(
                (f64::NEG_INFINITY, at),
                |a, b| if b.0 > a.0 { b } else { a },
            )
    };
    let jump = |fact: usize, at: u64| best(fact, at).0 - l(fact, at);
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let (mut jumps, mut floor) = (Vec::new(), Vec::new());
    for fact in of.clone() {
        for at in &clocks[fact] {
            jumps.push(jump(fact, *at));
            floor.push(mean(never.clone().map(|i| jump(i, *at)).collect()));
        }
    }
    // What is left at the asked steps behind each fact's own last best.
    let mut left: BTreeMap<u64, (f64, f64, usize)> = BTreeMap::new();
    for fact in of {
        let clock = &clocks[fact];
        let (Some(first), Some(last)) = (clock.first(), clock.last()) else {
            continue;
        };
        let start = l(fact, *first);
        let (top, at) = best(fact, *last);
        for step in traces[fact][probe]
            .range(at + gap + 1..)
            .map(|(step, _)| *step)
        {
            // Facts have clocks of their own: they are read together where these agree to a tenth.
            let t = (step - at) as f64;
            let bin = (10.0 * t.log10()).round() as u64;
            let entry = left.entry(bin).or_insert((0.0, 0.0, 0));
            entry.0 += l(fact, step) - start;
            entry.1 += top - start;
            entry.2 += 1;
        }
    }
    let kept = left.into_iter().filter(|(_, (_, rise, _))| *rise > 0.0);
    Measured {
        effectivity: mean(jumps) - mean(floor),
        kept: kept
            .map(|(bin, (rest, rise, _))| (10f64.powf(bin as f64 / 10.0), rest / rise))
            .collect(),
    }
}

/// Notes an arm's measures; returns its slope and threshold. A step counts for `larger` small ones.
fn put(
    all: &mut BTreeMap<(&'static str, &'static str), f64>,
    arm: &'static str,
    measured: &Measured,
    larger: f64,
) -> (f64, f64) {
    let line: Vec<(f64, f64)> = measured
        .kept
        .iter()
        .map(|(t, r)| (t * larger, *r))
        .collect();
    let log: Vec<(f64, f64)> = line.iter().map(|(t, r)| (t.log10(), *r)).collect();
    // Where nothing rose there is nothing to fade.
    let flat = Line {
        slope: 0.0,
        intercept: 0.0,
        r_squared: 0.0,
    };
    let fit = |points: &[(f64, f64)]| Line::fit(points).unwrap_or(flat);
    let of_log = if log.len() < 3 { flat } else { fit(&log) };
    let (slope, height) = (-of_log.slope, of_log.intercept);
    let threshold = match slope > 0.0 {
        true => 10f64.powf(height / slope),
        false => 0.0,
    };
    all.insert((arm, "effectivity"), measured.effectivity);
    all.insert((arm, "slope"), slope);
    all.insert((arm, "threshold"), threshold);
    all.insert((arm, "r2_log"), fit(&log).r_squared);
    all.insert((arm, "r2_line"), fit(&line).r_squared);
    (slope, threshold)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trace that jumps by 2 at each exposure and halves each tenfold time, beside facts that
    /// drift together: the drift is not counted.
    #[test]
    fn jumps_and_decay_of_a_made_up_trace() {
        let gap = 10u64;
        let mut clocks = vec![Vec::new(); 8];
        clocks[0] = vec![100, 110];
        let drift = |step: u64| 0.01 * step as f64;
        let own = |step: u64| match step {
            0..=100 => 0.0,
            101..=110 => 2.0,
            111..=120 => 4.0,
            step => 4.0 * (1.0 - 0.3 * ((step - 111) as f64).log10()),
        };
        let trace = |of: &dyn Fn(u64) -> f64| -> Trace {
            (90..=1000)
                .map(|step| (step, of(step) + drift(step)))
                .collect()
        };
        let flat = trace(&|_| 0.0);
        let mine = trace(&own);
        let both = |t: &Trace| [t.clone(), t.clone()];
        let mut traces = vec![both(&flat); 8];
        traces[0] = both(&mine);
        let found = measure(&clocks, &traces, 0..1, 0, gap);
        assert!(
            (found.effectivity - 2.0).abs() < 1e-9,
            "{}",
            found.effectivity
        );
        let mut all = BTreeMap::new();
        let (slope, threshold) = put(&mut all, "once", &found, 1.0);
        assert!((slope - 0.3).abs() < 0.02, "{slope}");
        assert!((threshold.log10() - 1.0 / 0.3).abs() < 0.2, "{threshold}");
        assert!(all[&("once", "r2_log")] > 0.98);
    }
}
