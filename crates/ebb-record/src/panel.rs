//! Per-iteration evaluation of a fixed panel of each test set, reduced as it comes.
//!
//! **Source.** De Lange et al., ICLR 2023 (card S098); learning curve area: Chaudhry et al. 2019.
//! **Equations**, with `|T_i|` the step where training on set `i` last ended, `k` sets seen:
//! `min-ACC = 1/(k−1) Σ_{i<k} min_{|T_i| < n ≤ t} A(E_i, f_n)`;
//! `WC-ACC = 1/k A(E_k, f_t) + (1 − 1/k) min-ACC`;
//! `WF^w`, `WP^w` of [`window`](crate::window), averaged over sets;
//! `AAA` = mean over time of the mean accuracy over seen sets, weighted by the steps between
//! evaluations; `LCA_β` = mean over the first β+1 evaluations of a new experience.
//! **Costs** constant time an evaluated set; nothing is kept that grows with the run, except one
//! [`Gap`] a switch and earlier set.
//!
//! A step is the number of updates made. Every experience is evaluated once *before* its first
//! update: that evaluation is where the previous one ended and what its gaps are measured from.

use ebb_space::{Direction, Number};

use crate::cell::{Cell, Contrast, bare};
use crate::curriculum::Curriculum;
use crate::error::{Error, Result};
use crate::gap::{Gap, OpenGap};
use crate::window::{Change, WindowedChange};

/// The windows, in evaluations, of windowed forgetting and plasticity.
pub const WINDOWS: [usize; 2] = [10, 100];

/// The largest β of `LCA_β` that is kept.
pub const LCA_LIMIT: usize = 100;

/// The answers on the panel of one test set at one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The test set.
    pub set: usize,
    /// Over the whole panel.
    pub cell: Cell,
    /// Over a fixed half of it, where the halves are told apart: this half finds the worst step
    /// of `min_acc_split`, the other half says how bad it was.
    pub half: Option<Cell>,
}

/// What is known of one set.
#[derive(Clone, Debug)]
struct SetState {
    last: Option<(u64, Cell)>,
    /// Step at which its training last ended; `None` while it trains and before.
    ended: Option<u64>,
    lowest: Option<Cell>,
    /// The half that chose the worst step and the half that is read there.
    split: Option<(Cell, Cell)>,
    drops: [WindowedChange; 2],
    rises: [WindowedChange; 2],
    /// What the experience in training does to it.
    gap: Option<OpenGap>,
}

/// The streaming reducers of one run.
#[derive(Clone, Debug)]
pub struct Panel {
    curriculum: Curriculum,
    protocol: String,
    sets: Vec<SetState>,
    at: Option<(u64, usize)>,
    /// The sets seen by now, ascending.
    seen: Vec<usize>,
    gaps: Vec<Gap>,
    /// Σ steps, Σ steps × mean accuracy over seen sets.
    anytime: (f64, f64),
    /// First accuracies of each experience on the sets it trains.
    first: Vec<Vec<f64>>,
}

impl Panel {
    /// Reducers that have seen nothing. `protocol` says what is evaluated (stream, scenario,
    /// panel size): it becomes part of every number's protocol.
    pub fn new(curriculum: Curriculum, protocol: impl Into<String>) -> Panel {
        let windows = |change| WINDOWS.map(|w| WindowedChange::new(change, w));
        let set = SetState {
            last: None,
            ended: None,
            lowest: None,
            split: None,
            drops: windows(Change::Drop),
            rises: windows(Change::Rise),
            gap: None,
        };
        Panel {
            sets: vec![set; curriculum.sets()],
            first: vec![Vec::new(); curriculum.experiences()],
            curriculum,
            protocol: protocol.into(),
            at: None,
            seen: Vec::new(),
            gaps: Vec::new(),
            anytime: (0.0, 0.0),
        }
    }

    /// All answers taken at `step`, while `experience` trains (before its first update, too).
    ///
    /// Answers equal to the last ones at the same step are not a new evaluation for the windows:
    /// the end of one experience and the start of the next see the same weights.
    ///
    /// # Errors
    /// [`Error::Evaluation`] if steps or experiences run backwards, or a set does not exist; the
    /// reducers are then unchanged.
    pub fn observe(&mut self, step: u64, experience: usize, answers: &[Answer]) -> Result<()> {
        self.check(step, experience, answers)?;
        let previous = self.at;
        if previous.is_none_or(|(_, now)| now != experience) {
            self.switch(step, experience, answers);
        }
        self.at = Some((step, experience));

        let mut sum = (0.0, 0usize);
        for answer in answers {
            let accuracy = answer.cell.accuracy();
            let set = &mut self.sets[answer.set];
            if set.last != Some((step, answer.cell)) {
                set.drops
                    .iter_mut()
                    .chain(&mut set.rises)
                    .for_each(|w| w.push(accuracy));
            }
            set.last = Some((step, answer.cell));
            if set.ended.is_some_and(|end| step > end) {
                set.note_lowest(answer);
            }
            if let Some(gap) = &mut set.gap {
                gap.push(step, accuracy);
            }
            if self.seen.binary_search(&answer.set).is_ok() {
                sum = (sum.0 + accuracy, sum.1 + 1);
            }
        }
        let steps = (step - previous.map_or(0, |(before, _)| before)) as f64;
        if sum.1 > 0 {
            self.anytime.0 += steps;
            self.anytime.1 += steps * sum.0 / sum.1 as f64;
        }
        let trained = self.curriculum.trains(experience);
        let new = answers
            .iter()
            .filter(|a| trained.contains(&a.set))
            .map(|a| a.cell.accuracy());
        let (total, count) = new.fold((0.0, 0usize), |(t, c), a| (t + a, c + 1));
        if count > 0 && self.first[experience].len() <= LCA_LIMIT {
            self.first[experience].push(total / count as f64);
        }
        Ok(())
    }

    fn check(&self, step: u64, experience: usize, answers: &[Answer]) -> Result<()> {
        let refuse = |why: String| Err(Error::Evaluation(why));
        let (experiences, sets) = (self.curriculum.experiences(), self.sets.len());
        if experience >= experiences {
            return refuse(format!(
                "experience {experience} of a stream of {experiences}"
            ));
        }
        if let Some((last, now)) = self.at
            && (step < last || experience < now)
        {
            return refuse(format!(
                "step {step} of experience {experience} after step {last} of experience {now}"
            ));
        }
        for answer in answers {
            if answer.set >= sets {
                return refuse(format!("set {} of {sets} sets", answer.set));
            }
            Cell::new(answer.cell.correct, answer.cell.n)?;
            if let Some(half) = answer.half {
                Cell::new(half.correct, half.n)?;
                let fits = half.n < answer.cell.n
                    && half.correct <= answer.cell.correct
                    && answer.cell.correct - half.correct <= answer.cell.n - half.n;
                if !fits {
                    return refuse(format!("{half:?} is not a part of {:?}", answer.cell));
                }
            }
        }
        Ok(())
    }

    /// Ends the experience in training and begins another.
    fn switch(&mut self, step: u64, experience: usize, answers: &[Answer]) {
        self.close();
        self.seen = self.curriculum.seen(experience);
        if let Some((_, current)) = self.at {
            for &set in (current..experience).flat_map(|ended| self.curriculum.trains(ended)) {
                self.sets[set].ended = Some(step);
                self.sets[set].lowest = None;
                self.sets[set].split = None;
            }
        }
        for &set in self.curriculum.trains(experience) {
            self.sets[set].ended = None;
        }
        for set in self.curriculum.earlier(experience) {
            let now = answers.iter().find(|a| a.set == set).map(|a| a.cell);
            let before = now.or(self.sets[set].last.map(|(_, cell)| cell));
            if let Some(before) = before {
                self.sets[set].gap = Some(OpenGap::new(set, step, before.accuracy()));
            }
        }
    }

    /// Ends the gaps of the experience in training; called at the end of the run.
    pub fn close(&mut self) {
        if let Some((_, experience)) = self.at {
            let open = self.sets.iter_mut().filter_map(|set| set.gap.take());
            self.gaps.extend(open.map(|gap| gap.close(experience)));
        }
    }

    /// The gaps of the switches whose experience has ended.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    fn now(&self, metric: &str) -> Result<usize> {
        let now = self.at.map(|(_, experience)| experience);
        now.ok_or_else(|| Error::undefined(metric, "no evaluation was recorded"))
    }

    fn describe(&self, definition: &str) -> String {
        format!("{definition}; {}", self.protocol)
    }

    fn size(&self, sets: impl IntoIterator<Item = usize>) -> u64 {
        sets.into_iter()
            .filter_map(|j| self.sets[j].last)
            .map(|(_, cell)| cell.n)
            .sum()
    }

    fn of_earlier<T>(
        &self,
        metric: &str,
        value: impl Fn(&SetState) -> Option<T>,
    ) -> Result<Vec<(usize, T)>> {
        let earlier = self.curriculum.earlier(self.now(metric)?);
        if earlier.is_empty() {
            return Err(Error::undefined(metric, "it needs an earlier set"));
        }
        let of = |j: usize| {
            let value = value(&self.sets[j]).ok_or_else(|| {
                Error::undefined(
                    metric,
                    format!("set {j} has no such evaluation since it was trained"),
                )
            })?;
            Ok((j, value))
        };
        earlier.into_iter().map(of).collect()
    }

    fn mean_of_lowest(&self, metric: &str) -> Result<(f64, Vec<usize>)> {
        let lowest = self.of_earlier(metric, |set| set.lowest)?;
        let mean = lowest.iter().map(|(_, c)| c.accuracy()).sum::<f64>() / lowest.len() as f64;
        Ok((mean, lowest.into_iter().map(|(j, _)| j).collect()))
    }

    /// min-ACC: mean over earlier sets of the lowest accuracy since each was last trained.
    ///
    /// It has no interval: the examples that say how low it was also chose the step, which a
    /// binomial interval does not know. [`min_acc_split`](Panel::min_acc_split) has one.
    ///
    /// # Errors
    /// [`Error::Undefined`] while there is no earlier set; so for all metrics here.
    pub fn min_acc(&self) -> Result<Number> {
        let (mean, sets) = self.mean_of_lowest("min_acc")?;
        let protocol =
            self.describe("mean over earlier sets of the lowest evaluation since trained");
        Ok(bare(
            "min_acc".into(),
            mean,
            self.size(sets),
            Direction::Higher,
            protocol,
        ))
    }

    /// min-ACC without its bias: the worst step of each set is found on one half of the panel and
    /// the accuracy there is read on the other half (card S098, pitfalls). The examples that are
    /// read did not choose the step, so the interval over them is honest.
    ///
    /// # Errors
    /// [`Error::Undefined`], so where the answers came without halves.
    pub fn min_acc_split(&self) -> Result<Number> {
        let name = "min_acc_split";
        let read = self.of_earlier(name, |set| set.split.map(|(_, read)| read))?;
        let cells: Vec<Cell> = read.into_iter().map(|(_, cell)| cell).collect();
        let protocol = self.describe(
            "mean over earlier sets of the evaluation at the worst step since trained, the step \
             found on one half of the panel, the accuracy read on the other",
        );
        Contrast::mean(&cells).number(name, Direction::Higher, &protocol)
    }

    /// WC-ACC, worst-case accuracy: the present accuracy on the sets in training, weighted by
    /// their share of the seen sets, and min-ACC for the rest. A lower bound of the average
    /// accuracy.
    ///
    /// # Errors
    /// [`Error::Undefined`].
    pub fn wc_acc(&self) -> Result<Number> {
        let name = "wc_acc";
        let now = self.now(name)?;
        let trained = self.curriculum.trains(now);
        let mut sum = 0.0;
        for &set in trained {
            let (_, cell) = self.sets[set].last.ok_or_else(|| {
                Error::undefined(name, format!("set {set}, in training, was not evaluated"))
            })?;
            sum += cell.accuracy();
        }
        let earlier = self.curriculum.earlier(now);
        if !earlier.is_empty() {
            sum += self.mean_of_lowest(name)?.0 * earlier.len() as f64;
        }
        let k = trained.len() + earlier.len();
        if k == 0 {
            return Err(Error::undefined(name, "no set was trained"));
        }
        let protocol =
            self.describe("(1/k) present accuracy on the set in training + (1 - 1/k) min_acc");
        let n = self.size(trained.iter().copied().chain(earlier));
        Ok(bare(
            name.into(),
            sum / k as f64,
            n,
            Direction::Higher,
            protocol,
        ))
    }

    /// AAA, anytime accuracy: the mean over time of the mean accuracy over the sets seen by then.
    ///
    /// # Errors
    /// [`Error::Undefined`].
    pub fn anytime_accuracy(&self) -> Result<Number> {
        let name = "anytime_accuracy";
        self.now(name)?;
        if self.anytime.0 == 0.0 {
            return Err(Error::undefined(
                name,
                "no evaluation was recorded after the first step",
            ));
        }
        let protocol = self.describe("mean over steps of the mean over sets seen by then");
        let value = self.anytime.1 / self.anytime.0;
        Ok(bare(
            name.into(),
            value,
            self.size(self.seen.iter().copied()),
            Direction::Higher,
            protocol,
        ))
    }

    /// `WF^w` or `WP^w` for `w` one of [`WINDOWS`]: the largest fall, or rise, within `w`
    /// consecutive evaluations, averaged over the evaluated sets; 0 for a set without any.
    ///
    /// # Errors
    /// [`Error::Undefined`], so for another `w`.
    pub fn windowed(&self, change: Change, w: usize) -> Result<Number> {
        let (short, what, direction) = match change {
            Change::Drop => ("wf", "fall", Direction::Lower),
            Change::Rise => ("wp", "rise", Direction::Higher),
        };
        let name = format!("{short}{w}");
        let Some(index) = WINDOWS.iter().position(|&known| known == w) else {
            return Err(Error::undefined(
                name,
                format!("the windows are {WINDOWS:?}"),
            ));
        };
        self.now(&name)?;
        let evaluated = self.sets.iter().filter(|set| set.last.is_some());
        let values: Vec<f64> = evaluated
            .map(|set| match change {
                Change::Drop => set.drops[index].largest(),
                Change::Rise => set.rises[index].largest(),
            })
            .collect();
        if values.is_empty() {
            return Err(Error::undefined(name, "no set was evaluated"));
        }
        let protocol = self.describe(&format!(
            "mean over evaluated sets of the largest {what} within {w} consecutive evaluations"
        ));
        let value = values.iter().sum::<f64>() / values.len() as f64;
        Ok(bare(
            name,
            value,
            self.size(0..self.sets.len()),
            direction,
            protocol,
        ))
    }

    /// `LCA_β`: mean over experiences of the mean accuracy on the sets in training at the first
    /// β+1 evaluations, the one before the first update included.
    ///
    /// # Errors
    /// [`Error::Undefined`], so if an experience had fewer evaluations or β > [`LCA_LIMIT`].
    pub fn lca(&self, beta: usize) -> Result<Number> {
        let name = format!("lca{beta}");
        let now = self.now(&name)?;
        if beta > LCA_LIMIT {
            return Err(Error::undefined(
                name,
                format!("beta is at most {LCA_LIMIT}"),
            ));
        }
        let mut sum = 0.0;
        for (experience, first) in self.first[..=now].iter().enumerate() {
            let head = first.get(..=beta).ok_or_else(|| {
                let why = format!(
                    "experience {experience} had {} evaluations of its own sets",
                    first.len()
                );
                Error::undefined(name.clone(), why)
            })?;
            sum += head.iter().sum::<f64>() / head.len() as f64;
        }
        let definition = format!(
            "mean over experiences of the first {} evaluations of the set in training",
            beta + 1
        );
        let n = self.size(self.seen.iter().copied());
        Ok(bare(
            name,
            sum / (now + 1) as f64,
            n,
            Direction::Higher,
            self.describe(&definition),
        ))
    }

    fn of_gaps(&self, name: &str, definition: &str, value: impl Fn(&Gap) -> f64) -> Result<Number> {
        if self.gaps.is_empty() {
            return Err(Error::undefined(
                name,
                "no switch with an earlier set has been closed",
            ));
        }
        let mean = self.gaps.iter().map(value).sum::<f64>() / self.gaps.len() as f64;
        let mut sets: Vec<usize> = self.gaps.iter().map(|gap| gap.set).collect();
        sets.sort_unstable();
        sets.dedup();
        let protocol = self.describe(definition);
        Ok(bare(
            name.into(),
            mean,
            self.size(sets),
            Direction::Lower,
            protocol,
        ))
    }

    /// Mean [depth](Gap::depth) over switches and earlier sets.
    ///
    /// # Errors
    /// [`Error::Undefined`].
    pub fn gap_depth(&self) -> Result<Number> {
        let definition = "mean over switches and earlier sets of (before the switch - lowest during the next experience)";
        self.of_gaps("gap_depth", definition, |gap| gap.depth)
    }

    /// Mean [recovery](Gap::recovery) in steps.
    ///
    /// # Errors
    /// [`Error::Undefined`].
    pub fn gap_recovery(&self) -> Result<Number> {
        let definition = "mean over switches and earlier sets of the steps until back within 0.02 of \
                          the lower of the levels before the switch and at the end";
        self.of_gaps("gap_recovery", definition, |gap| gap.recovery as f64)
    }

    /// Mean [area lost](Gap::area) in accuracy times steps.
    ///
    /// # Errors
    /// [`Error::Undefined`].
    pub fn gap_area(&self) -> Result<Number> {
        let definition = "mean over switches and earlier sets of the sum over steps of max(0, before the switch - now)";
        self.of_gaps("gap_area", definition, |gap| gap.area)
    }

    /// Every metric of this panel that has a value.
    pub fn numbers(&self) -> Vec<Number> {
        let mut all = vec![
            self.min_acc(),
            self.min_acc_split(),
            self.wc_acc(),
            self.anytime_accuracy(),
        ];
        all.extend(WINDOWS.map(|w| self.windowed(Change::Drop, w)));
        all.extend(WINDOWS.map(|w| self.windowed(Change::Rise, w)));
        all.extend([
            self.gap_depth(),
            self.gap_recovery(),
            self.gap_area(),
            self.lca(10),
        ]);
        all.into_iter().filter_map(Result::ok).collect()
    }
}

impl SetState {
    fn note_lowest(&mut self, answer: &Answer) {
        let lower = |now: Cell, best: Cell| now.accuracy() < best.accuracy();
        if self.lowest.is_none_or(|best| lower(answer.cell, best)) {
            self.lowest = Some(answer.cell);
        }
        if let Some(half) = answer.half
            && self.split.is_none_or(|(best, _)| lower(half, best))
        {
            let read = Cell {
                correct: answer.cell.correct - half.correct,
                n: answer.cell.n - half.n,
            };
            self.split = Some((half, read));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::{AccuracyMatrix, MeanOver, Peak};

    fn answers(correct: &[u64]) -> Vec<Answer> {
        let answer = |(set, &c)| Answer {
            set,
            cell: Cell { correct: c, n: 100 },
            half: None,
        };
        correct.iter().enumerate().map(answer).collect()
    }

    fn fed(experiences: usize, rows: &[(u64, usize, &[u64])]) -> Panel {
        let mut panel = Panel::new(Curriculum::square(experiences), "hand");
        for &(step, experience, correct) in rows {
            panel.observe(step, experience, &answers(correct)).unwrap();
        }
        panel.close();
        panel
    }

    fn value(number: Result<Number>) -> f64 {
        number.unwrap().value
    }

    /// Two experiences of three steps each, evaluated before the first and after every update.
    fn two() -> Panel {
        fed(
            2,
            &[
                (0, 0, &[10]),
                (1, 0, &[50]),
                (2, 0, &[40]),
                (3, 0, &[90]),
                (3, 1, &[90, 5]),
                (4, 1, &[20, 60]),
                (5, 1, &[70, 80]),
                (6, 1, &[85, 95]),
            ],
        )
    }

    #[test]
    fn two_experiences_by_hand() {
        let p = two();
        let is = |number: Result<Number>, expected: f64| {
            let number = number.unwrap();
            assert!(
                (number.value - expected).abs() < 1e-12,
                "{number:?}, expected {expected}"
            );
        };
        is(p.min_acc(), 0.20);
        is(p.wc_acc(), 0.5 * 0.95 + 0.5 * 0.20);
        // Steps 1 to 3 with one seen set, 4 to 6 with two, each with weight 1.
        is(
            p.anytime_accuracy(),
            (0.50 + 0.40 + 0.90 + 0.40 + 0.75 + 0.90) / 6.0,
        );
        // Set 0 falls 0.90 to 0.20; set 1 never falls.
        is(p.windowed(Change::Drop, 10), 0.70 / 2.0);
        is(p.windowed(Change::Rise, 10), (0.80 + 0.90) / 2.0);
        is(p.gap_depth(), 0.70);
        // Back at min(0.90, 0.85) − 0.02 = 0.83 three steps after the switch.
        is(p.gap_recovery(), 3.0);
        is(p.gap_area(), 0.70 + 0.20 + 0.05);
        is(p.lca(1), ((0.10 + 0.50) / 2.0 + (0.05 + 0.60) / 2.0) / 2.0);
        assert!(
            p.lca(4)
                .unwrap_err()
                .to_string()
                .contains("experience 0 had 4 evaluations")
        );
        assert!(p.min_acc_split().is_err());
        assert_eq!(p.numbers().len(), 10);
    }

    #[test]
    fn the_step_where_an_experience_ended_and_the_set_in_training_do_not_count() {
        // The panel at the switch itself is f_|T_0|: not after its end.
        let p = fed(2, &[(0, 0, &[0]), (3, 1, &[10, 0]), (4, 1, &[60, 1])]);
        assert_eq!(value(p.min_acc()), 0.60);
        let fresh = fed(2, &[(0, 0, &[0]), (3, 0, &[50])]);
        assert!(fresh.min_acc().is_err());
        assert_eq!(value(fresh.wc_acc()), 0.50);
    }

    #[test]
    fn evaluated_only_at_the_ends_it_agrees_with_the_matrix() {
        let rows: [[u64; 3]; 3] = [[90, 20, 15], [60, 95, 30], [70, 80, 85]];
        let mut matrix = AccuracyMatrix::new(Curriculum::square(3), "");
        let mut panel = Panel::new(Curriculum::square(3), "");
        panel.observe(0, 0, &answers(&[10, 10, 10])).unwrap();
        for (i, row) in rows.iter().enumerate() {
            for (j, &c) in row.iter().enumerate() {
                matrix.set(Some(i), j, Cell::new(c, 100).unwrap()).unwrap();
            }
            let end = 100 * (i as u64 + 1);
            panel.observe(end, i, &answers(row)).unwrap();
            if i < 2 {
                panel.observe(end, i + 1, &answers(row)).unwrap();
            }
        }
        // Set 0 was lowest after experience 1, set 1 after experience 2.
        assert!((value(panel.min_acc()) - (0.60 + 0.80) / 2.0).abs() < 1e-12);
        let acc = value(matrix.average_accuracy(2, MeanOver::Sets));
        assert!(value(panel.wc_acc()) <= acc);
        let aia = value(matrix.average_incremental_accuracy(2));
        assert!((value(panel.anytime_accuracy()) - aia).abs() < 1e-12);
        // 10 90 60 70, 10 20 95 80 and 10 15 30 85: the largest falls are 30, 15 and 0.
        let falls = value(panel.windowed(Change::Drop, 10));
        assert!((falls - (0.30 + 0.15) / 3.0).abs() < 1e-12);
        let forgotten = value(matrix.forgetting(2, Peak::AtLearning));
        assert!((forgotten - (0.20 + 0.15) / 2.0).abs() < 1e-12);
        // The start of an experience sees the weights of the end before it: not counted twice.
        assert_eq!(panel.sets[0].drops[0].evaluations(), 4);
    }

    #[test]
    fn a_recurring_set_starts_over_at_each_visit() {
        let curriculum = Curriculum::new(2, vec![vec![0], vec![1], vec![0], vec![1]]).unwrap();
        let mut p = Panel::new(curriculum, "");
        let rows: [(u64, usize, [u64; 2]); 7] = [
            (0, 0, [10, 10]),
            (5, 1, [90, 10]),
            (6, 1, [5, 60]),
            (10, 2, [40, 90]),
            (12, 2, [95, 50]),
            (15, 3, [96, 55]),
            (16, 3, [70, 80]),
        ];
        for (step, experience, correct) in rows {
            p.observe(step, experience, &answers(&correct)).unwrap();
        }
        // Of set 0 only what came after its second visit counts; set 1 trains again.
        assert_eq!(value(p.min_acc()), 0.70);
        assert_eq!(value(p.wc_acc()), (0.80 + 0.70) / 2.0);
    }

    #[test]
    fn the_split_reads_the_worst_step_of_one_half_on_the_other() {
        let mut p = Panel::new(Curriculum::square(2), "");
        let answer = |all: u64, half: u64| {
            [Answer {
                set: 0,
                cell: Cell {
                    correct: all,
                    n: 100,
                },
                half: Some(Cell {
                    correct: half,
                    n: 50,
                }),
            }]
        };
        p.observe(0, 0, &answer(50, 25)).unwrap();
        p.observe(1, 1, &answer(80, 40)).unwrap();
        p.observe(2, 1, &answer(60, 20)).unwrap(); // half: 0.40, other: 40 of 50
        p.observe(3, 1, &answer(55, 30)).unwrap(); // lowest over all, not of the half
        let split = p.min_acc_split().unwrap();
        assert_eq!((split.value, split.n), (0.80, 50));
        assert!(split.ci_low.unwrap() < 0.80 && split.ci_high.unwrap() > 0.80);
        assert_eq!(value(p.min_acc()), 0.55);
    }

    #[test]
    fn impossible_observations_are_refused_and_change_nothing() {
        let mut p = two();
        let before = format!("{p:?}");
        for (step, experience, correct) in [
            (5, 1, vec![1]),
            (6, 0, vec![1]),
            (7, 2, vec![1]),
            (7, 1, vec![1, 1, 1]),
            (7, 1, vec![101]),
        ] {
            assert!(p.observe(step, experience, &answers(&correct)).is_err());
        }
        let half = Some(Cell { correct: 9, n: 10 });
        let cell = Cell { correct: 5, n: 20 };
        assert!(p.observe(7, 1, &[Answer { set: 0, cell, half }]).is_err());
        assert_eq!(format!("{p:?}"), before);
    }
}
