//! Max-margin classification, one task after another.
//!
//! **What it does.** Weakly regularised learning with the exponential (or logistic) loss moves, in
//! direction, to the nearest point that classifies the new task with margin 1: each task is a
//! projection onto a convex set, and recurring tasks are alternating projections.
//! **Source.** Evron et al., Continual learning in linear classification on separable data, ICML
//! 2023 (card S095).
//! **Equations.** `v_t = argmin ‖v − v_{t−1}‖²` subject to `y vᵀx ≥ 1` on task t, `v_0 = 0`. With
//! `w_t = argmin Σ exp(−y wᵀx) + λ/2 ‖w − w_{t−1}‖²`, `w_t / ln(1/λ) → v_t` as `λ → 0`. Forgetting
//! is the mean over the other tasks of `max_x max(0, 1 − y vᵀx)²`.
//! **Known.** The distance to any joint solution never rises (Fejér); forgetting goes to 0 when
//! tasks recur; the end point is a joint solution, but not the smallest.
//! **Use it** as an oracle for classification; tasks must be jointly separable.
//! **Costs** one dual program a task: coordinate ascent, finished by a Cholesky factorisation on
//! the active set, so that the projection is exact to rounding.

use ebb_space::{Direction, Key};

use super::linalg::{Cholesky, axpy, cosine, dot, gram, norm, normals, squared_distance};
use super::{Check, Error, Finding, Result, largest, mean, number, smallest};

/// A separable task: the vectors `y x` of its samples, so that margins are plain inner products.
pub struct Task {
    signed: Vec<Vec<f64>>,
    gram: Vec<Vec<f64>>,
}

impl Task {
    /// A task with samples `x` whose labels are already multiplied in.
    pub fn new(signed: Vec<Vec<f64>>) -> Task {
        let gram = gram(&signed);
        Task { signed, gram }
    }

    /// All samples of `tasks` as one.
    pub fn joint(tasks: &[Task]) -> Task {
        Task::new(
            tasks
                .iter()
                .flat_map(|task| task.signed.iter().cloned())
                .collect(),
        )
    }

    /// `y vᵀx` of each sample.
    pub fn margins(&self, v: &[f64]) -> Vec<f64> {
        self.signed.iter().map(|a| dot(a, v)).collect()
    }

    /// `max_x max(0, 1 − y vᵀx)²`: 0 where the task is still solved with margin 1.
    pub fn loss(&self, v: &[f64]) -> f64 {
        largest(
            self.margins(v)
                .into_iter()
                .map(|margin| (1.0 - margin).max(0.0)),
        )
        .powi(2)
    }

    /// The nearest point to `v` that has margin 1 on every sample.
    ///
    /// # Errors
    /// [`Error::NoConvergence`] if there is none, or if the samples are too degenerate.
    pub fn project(&self, v: &[f64]) -> Result<Vec<f64>> {
        const SWEEPS: usize = 32;
        const ROUNDS: usize = 4096;
        // v + Aᵀλ with λ ≥ 0 and λ_i > 0 only where the margin is 1.
        let missing: Vec<f64> = self
            .margins(v)
            .into_iter()
            .map(|margin| 1.0 - margin)
            .collect();
        let mut dual = vec![0.0; missing.len()];
        for _ in 0..ROUNDS {
            for _ in 0..SWEEPS {
                for (i, row) in self.gram.iter().enumerate() {
                    let step = (missing[i] - dot(row, &dual)) / row[i];
                    dual[i] = (dual[i] + step).max(0.0);
                }
            }
            if let Some(exact) = self.solve_active(&missing, &dual) {
                let mut v = v.to_vec();
                for (a, c) in self.signed.iter().zip(exact) {
                    axpy(&mut v, c, a);
                }
                return Ok(v);
            }
        }
        Err(Error::NoConvergence(
            "the projection onto a task's margin set",
        ))
    }

    /// The exact dual, if the active set that `dual` suggests is the right one: the coefficients on
    /// it are then positive and no margin off it is short.
    fn solve_active(&self, missing: &[f64], dual: &[f64]) -> Option<Vec<f64>> {
        let scale = dual.iter().copied().fold(0.0, f64::max);
        let active: Vec<usize> = (0..dual.len())
            .filter(|&i| dual[i] > 1e-9 * scale)
            .collect();
        let sub: Vec<Vec<f64>> = active
            .iter()
            .map(|&i| active.iter().map(|&j| self.gram[i][j]).collect())
            .collect();
        let right: Vec<f64> = active.iter().map(|&i| missing[i]).collect();
        let solved = Cholesky::new(&sub).ok()?.solve(&right);
        if !solved.iter().all(|&c| c >= 0.0) {
            return None;
        }
        let mut exact = vec![0.0; dual.len()];
        active.iter().zip(solved).for_each(|(&i, c)| exact[i] = c);
        let short = |(row, missing): (&Vec<f64>, &f64)| missing - dot(row, &exact) > 1e-11;
        let fails = self.gram.iter().zip(missing).any(short);
        if fails { None } else { Some(exact) }
    }

    /// `argmin Σ exp(−y wᵀx) + λ/2 ‖w − start‖²` for `λ = exp(log_lambda)`.
    ///
    /// At the minimum `w = start + Aᵀa` with `a_i = exp(−margin_i) / λ`. Newton's method runs on
    /// `θ = ln a`, where `θ_i + margin_i(θ) + ln λ = 0`, so nothing overflows however small λ is.
    ///
    /// # Errors
    /// [`Error::NoConvergence`].
    pub fn regularised(&self, start: &[f64], log_lambda: f64) -> Result<Vec<f64>> {
        let offset: Vec<f64> = self
            .margins(start)
            .into_iter()
            .map(|margin| margin + log_lambda)
            .collect();
        let n = offset.len();
        let weights = |theta: &[f64]| -> Vec<f64> { theta.iter().map(|t| t.exp()).collect() };
        // The dual objective ½ aᵀGa + Σ a (ln a − 1 + offset), whose gradient in a is `gap`.
        let gap = |theta: &[f64], a: &[f64]| -> Vec<f64> {
            (0..n)
                .map(|i| theta[i] + offset[i] + dot(&self.gram[i], a))
                .collect()
        };
        let objective = |theta: &[f64], a: &[f64]| -> f64 {
            (0..n)
                .map(|i| a[i] * (0.5 * dot(&self.gram[i], a) + theta[i] - 1.0 + offset[i]))
                .sum()
        };
        let mut theta = vec![0.0; n];
        for _ in 0..10_000 {
            let a = weights(&theta);
            let gap = gap(&theta, &a);
            let size = 1.0 + largest(theta.iter().chain(&offset).map(|x| x.abs()));
            if largest(gap.iter().map(|g| g.abs())) < 1e-11 * size {
                let mut w = start.to_vec();
                for (x, a) in self.signed.iter().zip(a) {
                    axpy(&mut w, a, x);
                }
                return Ok(w);
            }
            // (I + G D) δ = −gap with D = diag(a), made symmetric: u = D^½ δ.
            let root: Vec<f64> = a.iter().map(|a| a.sqrt()).collect();
            let system: Vec<Vec<f64>> = (0..n)
                .map(|i| {
                    (0..n)
                        .map(|j| f64::from(u8::from(i == j)) + root[i] * self.gram[i][j] * root[j])
                        .collect()
                })
                .collect();
            let right: Vec<f64> = gap.iter().zip(&root).map(|(g, r)| -g * r).collect();
            let u = Cholesky::new(&system)?.solve(&right);
            // δ = −gap − G D^½ u, which needs no division by a weight that may be 0.
            let pull: Vec<f64> = root.iter().zip(&u).map(|(r, u)| r * u).collect();
            let step: Vec<f64> = (0..n)
                .map(|i| -gap[i] - dot(&self.gram[i], &pull))
                .collect();

            let now = objective(&theta, &a);
            let mut length = (2.0 / largest(step.iter().map(|s| s.abs()))).min(1.0);
            loop {
                let next: Vec<f64> = theta
                    .iter()
                    .zip(&step)
                    .map(|(t, s)| t + length * s)
                    .collect();
                let value = objective(&next, &weights(&next));
                if value <= now + 1e-12 * now.abs() || length < 1e-9 {
                    theta = next;
                    break;
                }
                length *= 0.5;
            }
        }
        Err(Error::NoConvergence("the regularised exponential loss"))
    }
}

/// `tasks` tasks of `points` samples in `dimension` dimensions, jointly separable: normal vectors
/// labelled by a common direction, of which those closer than 0.5 to the boundary are drawn again.
///
/// # Errors
/// [`Error::Sizes`] if a size is 0.
pub fn separable_tasks(
    key: Key,
    tasks: usize,
    points: usize,
    dimension: usize,
) -> Result<Vec<Task>> {
    if tasks == 0 || points == 0 || dimension == 0 {
        return Err(Error::Sizes(
            "tasks, points and dimension are at least 1".into(),
        ));
    }
    let mut teacher = normals(&mut key.sub("teacher").stream(), dimension);
    let length = norm(&teacher);
    teacher.iter_mut().for_each(|x| *x /= length);
    let task = |t: u64| {
        let mut stream = key.sub("points").at(t).stream();
        let mut signed = Vec::with_capacity(points);
        while signed.len() < points {
            let mut x = normals(&mut stream, dimension);
            let side = dot(&x, &teacher);
            if side.abs() >= 0.5 {
                x.iter_mut().for_each(|x| *x *= side.signum());
                signed.push(x);
            }
        }
        Task::new(signed)
    };
    Ok((0..tasks as u64).map(task).collect())
}

/// How a task changes the weights.
#[derive(Clone, Copy, PartialEq)]
enum Learner {
    /// The projection: sequential max-margin.
    Projection,
    /// One perceptron pass over the samples that lack margin 1: the control.
    Perceptron,
}

/// What a sequence of tasks did.
struct Course {
    /// Largest rise of the distance to the joint solution in one step.
    rise: f64,
    /// Forgetting when every task has been met for the first time.
    first: f64,
    /// Forgetting at the end.
    last: f64,
    /// `‖v‖ / ‖w*‖ − 1` at the end.
    norm_gap: f64,
}

fn run(tasks: &[Task], joint: &[f64], order: &[usize], learner: Learner) -> Result<Course> {
    let mut v = vec![0.0; joint.len()];
    let (mut rise, mut first, mut last) = (f64::NEG_INFINITY, None, 0.0);
    let mut distance = norm(joint);
    let mut met = vec![false; tasks.len()];
    for &t in order {
        match learner {
            Learner::Projection => v = tasks[t].project(&v)?,
            Learner::Perceptron => {
                for x in &tasks[t].signed {
                    if dot(x, &v) < 1.0 {
                        axpy(&mut v, 1.0, x);
                    }
                }
            }
        }
        let now = squared_distance(&v, joint).sqrt();
        rise = largest([rise, now - distance]);
        distance = now;
        met[t] = true;
        let earlier = tasks
            .iter()
            .zip(&met)
            .enumerate()
            .filter(|&(other, (_, met))| *met && other != t);
        let losses: Vec<f64> = earlier.map(|(_, (task, _))| task.loss(&v)).collect();
        last = if losses.is_empty() {
            0.0
        } else {
            mean(&losses)
        };
        if first.is_none() && met.iter().all(|&met| met) {
            first = Some(last);
        }
    }
    let first = first.unwrap_or(last);
    Ok(Course {
        rise,
        first,
        last,
        norm_gap: norm(&v) / norm(joint) - 1.0,
    })
}

/// Smallest cosine between `w_t` and `v_t` over a first pass through the tasks.
fn alignment(tasks: &[Task], dimension: usize, log_lambda: f64) -> Result<f64> {
    let (mut v, mut w) = (vec![0.0; dimension], vec![0.0; dimension]);
    let mut cosines = Vec::with_capacity(tasks.len());
    for task in tasks {
        v = task.project(&v)?;
        w = task.regularised(&w, log_lambda)?;
        cosines.push(cosine(&v, &w));
    }
    Ok(smallest(cosines))
}

/// Measures, over `draws` worlds (card: T in {2, 5} tasks of 10 points in 20 dimensions, 100
/// cycles, cyclic and random order, 20 draws), the Fejér property, what forgetting is left, the gap
/// to the smallest joint solution, and the weak-regularisation limit. Controls: a perceptron pass in
/// the place of the projection; λ = 1 in the place of 10⁻⁶.
///
/// # Errors
/// [`Error::Sizes`] for fewer than 2 draws; otherwise none in practice.
pub fn study(seed: u64, draws: usize) -> Result<Finding> {
    const CYCLES: usize = 100;
    const RISE: &str = "largest rise of the distance to the joint solution";
    const POINTS: usize = 10;
    const DIMENSION: usize = 20;
    if draws < 2 {
        return Err(Error::Sizes("an interval needs at least 2 draws".into()));
    }
    let key = Key::new(seed, "S095");
    let mut measured = Vec::new();
    let mut expectations = Vec::new();
    let mut controls = Vec::new();
    for count in [2, 5] {
        let worlds: Vec<Vec<Task>> = (0..draws as u64)
            .map(|draw| separable_tasks(key.at(count as u64).at(draw), count, POINTS, DIMENSION))
            .collect::<Result<_>>()?;
        let joint: Vec<Vec<f64>> = (worlds.iter())
            .map(|tasks| Task::joint(tasks).project(&[0.0; DIMENSION]))
            .collect::<Result<_>>()?;
        let courses = |random: bool, learner: Learner| -> Result<Vec<Course>> {
            (worlds.iter().zip(&joint).enumerate())
                .map(|(draw, (tasks, joint))| {
                    let mut stream = key.sub("order").at(count as u64).at(draw as u64).stream();
                    let task = |step: usize| {
                        if random {
                            stream.below(count as u64) as usize
                        } else {
                            step % count
                        }
                    };
                    let order: Vec<usize> = (0..CYCLES * count).map(task).collect();
                    run(tasks, joint, &order, learner)
                })
                .collect()
        };
        for (order, random) in [("cyclic", false), ("random", true)] {
            let protocol = format!(
                "{count} tasks, {order} order, {POINTS} points in {DIMENSION} dimensions; 95 % interval"
            );
            let courses = courses(random, Learner::Projection)?;
            let of = |f: fn(&Course) -> f64| courses.iter().map(f).collect::<Vec<f64>>();
            let (first, last) = (of(|c| c.first), of(|c| c.last));
            measured.push(number(
                "forgetting when every task has been met",
                &first,
                Direction::Lower,
                &protocol,
            )?);
            measured.push(number(
                "forgetting after 100 cycles",
                &last,
                Direction::Lower,
                &protocol,
            )?);
            let gap = number(
                "norm over that of the smallest joint solution, minus 1",
                &of(|c| c.norm_gap),
                Direction::None,
                &protocol,
            )?;
            let check = |name: &str| format!("{count} tasks, {order}: {name}");
            expectations.extend([
                Check::at_most(check(RISE), largest(of(|c| c.rise)), 1e-9),
                Check::at_most(
                    check(
                        "mean forgetting after 100 cycles over that when all tasks have been met",
                    ),
                    mean(&last) / mean(&first),
                    0.05,
                ),
                Check::above(check("mean norm gap at the end"), gap.value, 0.01),
            ]);
            measured.push(gap);
        }
        let perceptron = courses(false, Learner::Perceptron)?;
        controls.push(Check::at_most(
            format!("{count} tasks, perceptron steps: {RISE}"),
            largest(perceptron.iter().map(|c| c.rise)),
            1e-9,
        ));
        let mut at_lambda = |lambda: f64| -> Result<f64> {
            let cosines: Vec<f64> = worlds
                .iter()
                .map(|tasks| alignment(tasks, DIMENSION, lambda.ln()))
                .collect::<Result<_>>()?;
            let protocol =
                format!("{count} tasks, lambda {lambda:e}, smallest over the tasks; 95 % interval");
            measured.push(number(
                "cosine of regularised and max-margin weights",
                &cosines,
                Direction::None,
                &protocol,
            )?);
            Ok(smallest(cosines))
        };
        let (weak, strong) = (at_lambda(1e-6)?, at_lambda(1.0)?);
        let name =
            |lambda: &str| format!("{count} tasks, lambda {lambda}: smallest cosine of w and v");
        expectations.push(Check::at_least(name("1e-6"), weak, 0.99));
        controls.push(Check::at_least(name("1"), strong, 0.99));
    }
    Ok(Finding {
        id: "S095".into(),
        claim: "weakly regularised classification of recurring tasks is alternating projection: no step \
                away from a joint solution, forgetting fades, the smallest joint solution is not reached"
            .into(),
        measured,
        expectations,
        controls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_study_holds_and_its_controls_fail() {
        let finding = study(0, 6).unwrap();
        assert!(finding.holds(), "{finding:#?}");
        let json = serde_json::to_string(&finding).unwrap();
        assert_eq!(serde_json::from_str::<Finding>(&json).unwrap(), finding);
    }

    fn world(draw: u64, points: usize, dimension: usize) -> (Task, Vec<f64>) {
        let key = Key::new(draw, "world");
        let task = separable_tasks(key, 1, points, dimension)
            .unwrap()
            .remove(0);
        (task, normals(&mut key.sub("start").stream(), dimension))
    }

    /// Against every active set there is: the nearest feasible point among all 2⁶ equality systems.
    #[test]
    fn the_projection_is_the_best_of_all_active_sets() {
        for draw in 0..40 {
            let (task, start) = world(draw, 6, 7);
            let v = task.project(&start).unwrap();
            let mut best = f64::INFINITY;
            for set in 0u32..1 << 6 {
                let active: Vec<usize> = (0..6).filter(|i| set >> i & 1 == 1).collect();
                let sub: Vec<Vec<f64>> = active
                    .iter()
                    .map(|&i| active.iter().map(|&j| task.gram[i][j]).collect())
                    .collect();
                let right: Vec<f64> = active
                    .iter()
                    .map(|&i| 1.0 - dot(&task.signed[i], &start))
                    .collect();
                let mut point = start.clone();
                for (&i, c) in active
                    .iter()
                    .zip(Cholesky::new(&sub).unwrap().solve(&right))
                {
                    axpy(&mut point, c, &task.signed[i]);
                }
                if task
                    .margins(&point)
                    .iter()
                    .all(|&margin| margin > 1.0 - 1e-9)
                {
                    best = best.min(squared_distance(&point, &start));
                }
            }
            assert!((squared_distance(&v, &start) - best).abs() < 1e-10 * (1.0 + best));
            assert!(task.margins(&v).iter().all(|&margin| margin > 1.0 - 1e-10));
            assert!(
                squared_distance(&task.project(&v).unwrap(), &v) < 1e-18,
                "a second projection changes nothing"
            );
        }
    }

    #[test]
    fn inseparable_samples_are_refused() {
        let opposite = Task::new(vec![vec![1.0, 2.0], vec![-1.0, -2.0]]);
        assert!(matches!(
            opposite.project(&[0.0, 0.0]),
            Err(Error::NoConvergence(_))
        ));
        assert!(matches!(
            separable_tasks(Key::new(0, "no"), 1, 0, 3),
            Err(Error::Sizes(_))
        ));
    }

    /// The gradient of the written-out objective vanishes at the minimum.
    #[test]
    fn the_regularised_solution_is_stationary() {
        for draw in 0..20 {
            let (task, start) = world(draw, 8, 5);
            for lambda in [10.0, 0.1, 1e-4] {
                let w = task.regularised(&start, f64::ln(lambda)).unwrap();
                let objective = |w: &[f64]| -> f64 {
                    task.margins(w).iter().map(|m| (-m).exp()).sum::<f64>()
                        + lambda / 2.0 * squared_distance(w, &start)
                };
                for i in 0..5 {
                    let nudge = |by: f64| {
                        let mut w = w.clone();
                        w[i] += by;
                        objective(&w)
                    };
                    let slope = (nudge(1e-5) - nudge(-1e-5)) / 2e-5;
                    assert!(
                        slope.abs() < 1e-7 * (1.0 + lambda * norm(&start)),
                        "{slope} at lambda {lambda}"
                    );
                }
            }
        }
    }

    /// One sample x: a‖x‖² + ln a + ln λ = 0 for w = a x, solved by bisection.
    #[test]
    fn one_sample_agrees_with_its_scalar_equation() {
        let x = vec![0.5, -1.0];
        for log_lambda in [2.0, -5.0, -300.0] {
            let (mut low, mut high) = (-1000.0f64, 10.0f64); // ln a
            for _ in 0..200 {
                let middle = 0.5 * (low + high);
                if middle.exp() * 1.25 + middle + log_lambda < 0.0 {
                    low = middle
                } else {
                    high = middle
                }
            }
            let w = Task::new(vec![x.clone()])
                .regularised(&[0.0, 0.0], log_lambda)
                .unwrap();
            let scale = f64::exp(low);
            assert!(
                (w[0] - 0.5 * scale).abs() < 1e-9 * scale && (w[1] + scale).abs() < 1e-9 * scale
            );
        }
    }

    /// w/ln(1/λ) → v: the rest shrinks like ln ln(1/λ) / ln(1/λ).
    #[test]
    fn weaker_regularisation_comes_closer_to_max_margin_without_end() {
        let (task, _) = world(3, 10, 20);
        let v = task.project(&[0.0; 20]).unwrap();
        let rest = |log_lambda: f64| {
            let mut w = task.regularised(&[0.0; 20], log_lambda).unwrap();
            w.iter_mut().for_each(|w| *w /= -log_lambda);
            squared_distance(&w, &v).sqrt() / norm(&v)
        };
        let rests: Vec<f64> = [-10.0, -100.0, -1e3, -1e4].map(rest).to_vec();
        assert!(
            rests.windows(2).all(|pair| pair[1] < pair[0]) && rests[3] < 2e-3,
            "{rests:?}"
        );
    }
}
