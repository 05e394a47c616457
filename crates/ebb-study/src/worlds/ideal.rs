//! The ideal continual learner on linear regression.
//!
//! **What it does.** Keeps the whole set of parameters that minimise every task so far, and learns
//! the next task inside that set. If the tasks have a minimiser in common it never forgets.
//! **Source.** Peng et al., The ideal continual learner: an agent that never forgets, ICML 2023
//! (card S034).
//! **Equations.** `K_t = argmin_{K_{t−1}} L_t`, `K_0 = R^d`. For `L_t = ‖X_t θ − y_t‖²` the set is
//! `θ̂ + B^⊥` with an orthonormal basis `B` of all rows so far: with `Q` the new directions of `X_t`,
//! `c = argmin ‖X_t (θ̂ + Qᵀc) − y_t‖²`, `θ̂ ← θ̂ + Qᵀc`, `B ← [B, Q]`. A gradient step inside it is
//! `g − B(Bᵀg)`: orthogonal gradient descent.
//! **Known.** With a common minimiser `K_T` is the intersection of the tasks' own sets, whatever
//! their order, and `θ̂` is its point nearest to where learning began. Without one, what was solved
//! stays solved while new tasks are given up once `B` is full.
//! **Use it** as the bound of every projection method. It needs noiseless tasks, or room for all.
//! **Costs** a Gram-Schmidt pass over a task's rows and a small least-squares problem.

use ebb_space::{Direction, Key};

use super::linalg::{Cholesky, axpy, dot, gram, norm, normals, squared_distance};
use super::{Check, Error, Finding, Result, largest, number, smallest};

/// A regression task: rows and what they should give.
#[derive(Clone, Debug)]
pub struct Task {
    rows: Vec<Vec<f64>>,
    targets: Vec<f64>,
}

impl Task {
    /// `n` normal rows whose targets a `truth` gives.
    pub fn keyed(key: Key, n: usize, truth: &[f64]) -> Task {
        let mut stream = key.stream();
        let rows: Vec<Vec<f64>> = (0..n).map(|_| normals(&mut stream, truth.len())).collect();
        let targets = rows.iter().map(|x| dot(x, truth)).collect();
        Task { rows, targets }
    }

    /// `y − Xθ`.
    fn missing(&self, theta: &[f64]) -> Vec<f64> {
        let rows = self.rows.iter().zip(&self.targets);
        rows.map(|(x, y)| y - dot(x, theta)).collect()
    }

    /// The mean squared residual.
    pub fn loss(&self, theta: &[f64]) -> f64 {
        let missing = self.missing(theta);
        dot(&missing, &missing) / missing.len() as f64
    }
}

/// A learner: a point, and what it will not move along.
#[derive(Clone, Debug)]
pub struct Learner {
    theta: Vec<f64>,
    /// Orthonormal.
    basis: Vec<Vec<f64>>,
    remembers: bool,
}

impl Learner {
    /// The ideal learner in `d` dimensions, at 0.
    pub fn ideal(d: usize) -> Learner {
        Learner {
            theta: vec![0.0; d],
            basis: Vec::new(),
            remembers: true,
        }
    }

    /// Plain fine-tuning: each task to its end by gradient descent, which goes to the nearest
    /// minimiser.
    pub fn plain(d: usize) -> Learner {
        Learner {
            remembers: false,
            ..Learner::ideal(d)
        }
    }

    /// Where it stands.
    pub fn theta(&self) -> &[f64] {
        &self.theta
    }

    /// Directions it will not move along.
    pub fn rank(&self) -> usize {
        self.basis.len()
    }

    /// What of `v` it may move along.
    fn free(&self, v: &[f64]) -> Vec<f64> {
        off(&self.basis, v)
    }

    /// Learns a task.
    ///
    /// # Errors
    /// [`Error::Singular`] if the rows are so nearly dependent that rounding decides.
    pub fn learn(&mut self, task: &Task) -> Result<()> {
        let mut new: Vec<Vec<f64>> = Vec::new();
        for x in &task.rows {
            let v = off(&new, &self.free(x));
            let left = norm(&v);
            // Relative to the row, not to its remainder: once the span is full that is rounding.
            if left > 1e-8 * norm(x) {
                new.push(v.iter().map(|v| v / left).collect());
            }
        }
        let along: Vec<Vec<f64>> = new
            .iter()
            .map(|q| task.rows.iter().map(|x| dot(x, q)).collect())
            .collect();
        let missing = task.missing(&self.theta);
        let right: Vec<f64> = along.iter().map(|a| dot(a, &missing)).collect();
        let coefficients = Cholesky::new(&gram(&along))?.solve(&right);
        for (q, c) in new.iter().zip(coefficients) {
            axpy(&mut self.theta, c, q);
        }
        if self.remembers {
            self.basis.extend(new);
        }
        Ok(())
    }
}

/// What `basis` does not hold of `v`, twice over.
fn off(basis: &[Vec<f64>], v: &[f64]) -> Vec<f64> {
    let mut v = v.to_vec();
    for _ in 0..2 {
        for b in basis {
            let along = dot(b, &v);
            axpy(&mut v, -along, b);
        }
    }
    v
}

/// What one sequence of tasks came to.
struct Course {
    /// Each task's loss right after it was learned, and at the end.
    losses: Vec<(f64, f64)>,
    theta: Vec<f64>,
    /// Tasks learned before the basis was full.
    room_for: usize,
}

impl Course {
    /// Learns the first `learned` of `tasks`, which have equally many rows.
    fn of(mut learner: Learner, tasks: &[Task], learned: usize) -> Result<Course> {
        let room_for = learner.theta.len() / tasks[0].rows.len();
        let mut fresh = Vec::new();
        for (t, task) in tasks.iter().enumerate() {
            if t < learned {
                learner.learn(task)?;
            }
            fresh.push(task.loss(&learner.theta));
        }
        let end = tasks.iter().map(|task| task.loss(&learner.theta));
        Ok(Course {
            losses: fresh.into_iter().zip(end).collect(),
            theta: learner.theta,
            room_for: room_for.min(tasks.len()),
        })
    }

    /// Mean over the earlier tasks of how much worse each became since it was learned.
    fn forgetting(&self) -> f64 {
        let earlier = &self.losses[..self.losses.len() - 1];
        earlier.iter().map(|(fresh, end)| end - fresh).sum::<f64>() / earlier.len() as f64
    }

    /// The largest loss right after learning.
    fn unlearned(&self) -> f64 {
        largest(self.losses.iter().map(|(fresh, _)| *fresh))
    }

    /// The largest final loss of a task learned while there was room.
    fn solved(&self) -> f64 {
        largest(self.losses[..self.room_for].iter().map(|(_, end)| *end))
    }

    /// Mean loss right after learning of the tasks there was no room for.
    fn given_up(&self) -> f64 {
        let late = &self.losses[self.room_for..];
        late.iter().map(|(fresh, _)| fresh).sum::<f64>() / late.len() as f64
    }
}

/// Tasks of `rows` rows around one truth, each with its own at distance `apart` (expected) from it.
fn tasks(key: Key, d: usize, count: usize, rows: usize, apart: f64) -> Vec<Task> {
    let scaled = |key: Key| -> Vec<f64> {
        let v = normals(&mut key.stream(), d);
        v.into_iter().map(|v| v / (d as f64).sqrt()).collect()
    };
    let common = scaled(key.sub("common"));
    (0..count as u64)
        .map(|t| {
            let mut truth = common.clone();
            axpy(&mut truth, apart, &scaled(key.sub("own").at(t)));
            Task::keyed(key.sub("rows").at(t), rows, &truth)
        })
        .collect()
}

/// The card's demonstrations (a) and (b): d = 60, 5 rows a task; 8 tasks with one truth, and 16
/// with truths of their own, over `draws` draws. Controls: plain fine-tuning does not forget,
/// and a learner frozen after the first task learns.
///
/// # Errors
/// [`Error::Sizes`] for fewer than 2 draws; otherwise none in practice.
pub fn study(seed: u64, draws: usize) -> Result<Finding> {
    const D: usize = 60;
    const EXACT: f64 = 1e-8;
    if draws < 2 {
        return Err(Error::Sizes("an interval needs at least 2 draws".into()));
    }
    let key = Key::new(seed, "S034");
    let (mut ideal, mut plain, mut frozen) = (Vec::new(), Vec::new(), Vec::new());
    let (mut apart, mut late) = (Vec::new(), Vec::new());
    let mut order = Vec::new();
    for draw in 0..draws as u64 {
        let key = key.at(draw);
        let shared = tasks(key.sub("shared"), D, 8, 5, 0.0);
        ideal.push(Course::of(Learner::ideal(D), &shared, 8)?);
        plain.push(Course::of(Learner::plain(D), &shared, 8)?);
        frozen.push(Course::of(Learner::ideal(D), &shared, 1)?);
        let backwards: Vec<Task> = shared.iter().rev().cloned().collect();
        let other = Course::of(Learner::ideal(D), &backwards, 8)?;
        order.push(squared_distance(&other.theta, &ideal[draw as usize].theta).sqrt());
        let own = tasks(key.sub("apart"), D, 16, 5, 0.5);
        apart.push(Course::of(Learner::ideal(D), &own[..8], 8)?);
        late.push(Course::of(Learner::ideal(D), &own, 16)?);
    }
    let each = |courses: &[Course], of: fn(&Course) -> f64| -> Vec<f64> {
        courses.iter().map(of).collect()
    };
    let worst = |courses: &[Course], of| largest(each(courses, of));
    let protocol = "least squares, d = 60, 5 rows a task; 95 % interval";
    let measures = [
        (
            "forgetting of the ideal learner",
            each(&ideal, Course::forgetting),
        ),
        (
            "forgetting of fine-tuning",
            each(&plain, Course::forgetting),
        ),
        (
            "loss on new tasks of a learner frozen after the first",
            each(&frozen, Course::unlearned),
        ),
        (
            "loss on new tasks without room for them",
            each(&late, Course::given_up),
        ),
    ];
    let measured = measures
        .into_iter()
        .map(|(name, sample)| number(name, &sample, Direction::Lower, protocol));
    let at_most = |name: &str, value| Check::at_most(name, value, EXACT);
    Ok(Finding {
        id: "S034".into(),
        claim: "a learner that keeps every minimiser of its tasks never forgets if they share one"
            .into(),
        measured: measured.collect::<Result<_>>()?,
        expectations: vec![
            at_most(
                "ideal: largest forgetting",
                worst(&ideal, Course::forgetting),
            ),
            at_most(
                "ideal: largest loss on a new task",
                worst(&ideal, Course::unlearned),
            ),
            at_most(
                "ideal: distance between the ends of both orders",
                largest(order),
            ),
            Check::above(
                "fine-tuning: smallest forgetting",
                smallest(each(&plain, Course::forgetting)),
                1e-2,
            ),
            at_most(
                "own truths, 8 tasks: still jointly solvable, largest loss on a new task",
                worst(&apart, Course::unlearned),
            ),
            at_most(
                "own truths, 16 tasks: largest final loss of what was solved while there was room",
                worst(&late, Course::solved),
            ),
            Check::above(
                "own truths, 16 tasks: smallest mean loss on new tasks without room",
                smallest(each(&late, Course::given_up)),
                1e-2,
            ),
        ],
        controls: vec![
            at_most(
                "fine-tuning: largest forgetting",
                worst(&plain, Course::forgetting),
            ),
            at_most(
                "frozen: largest loss on a new task",
                worst(&frozen, Course::unlearned),
            ),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_study_holds_and_its_controls_fail() {
        let finding = study(0, 20).unwrap();
        assert!(finding.holds(), "{finding:#?}");
        assert!(matches!(study(0, 1), Err(Error::Sizes(_))));
    }

    /// Two tasks in the plane, by hand: `x = 2` leaves the line `x = 2`; on it `x + y = 3` is
    /// solved by (2, 1). Fine-tuning goes to the nearest point of `x + y = 3` from (2, 0): (2.5,
    /// 0.5), where the first task is off by 1/2.
    #[test]
    fn two_lines_by_hand() {
        let line = |x: f64, y: f64, target: f64| Task {
            rows: vec![vec![x, y]],
            targets: vec![target],
        };
        let (first, second) = (line(1.0, 0.0, 2.0), line(1.0, 1.0, 3.0));
        for (mut learner, want) in [
            (Learner::ideal(2), [2.0, 1.0]),
            (Learner::plain(2), [2.5, 0.5]),
        ] {
            learner.learn(&first).unwrap();
            assert!((learner.theta()[0] - 2.0).abs() < 1e-15 && learner.theta()[1] == 0.0);
            learner.learn(&second).unwrap();
            assert!(squared_distance(learner.theta(), &want) < 1e-28);
        }
    }

    /// The gradient form: steps freed of `B` on the new task alone end where the equations say.
    #[test]
    fn orthogonal_gradient_descent_is_the_same_learner() {
        let tasks = tasks(Key::new(3, "descent"), 12, 2, 4, 0.0);
        let mut learner = Learner::ideal(12);
        learner.learn(&tasks[0]).unwrap();
        let mut theta = learner.theta().to_vec();
        for _ in 0..20_000 {
            let mut g = vec![0.0; 12];
            for (x, missing) in tasks[1].rows.iter().zip(tasks[1].missing(&theta)) {
                axpy(&mut g, -missing, x);
            }
            axpy(&mut theta, -0.02, &learner.free(&g));
        }
        learner.learn(&tasks[1]).unwrap();
        assert!(squared_distance(&theta, learner.theta()) < 1e-20);
    }

    /// The end is the minimum-norm solution of all tasks at once, which knows of no order.
    #[test]
    fn the_end_is_the_point_of_the_intersection_nearest_to_the_start() {
        let tasks = tasks(Key::new(4, "joint"), 30, 5, 4, 0.0);
        let mut learner = Learner::ideal(30);
        tasks.iter().for_each(|task| learner.learn(task).unwrap());
        let rows: Vec<Vec<f64>> = tasks.iter().flat_map(|t| t.rows.clone()).collect();
        let targets: Vec<f64> = tasks.iter().flat_map(|t| t.targets.clone()).collect();
        let coefficients = Cholesky::new(&gram(&rows)).unwrap().solve(&targets);
        let mut joint = vec![0.0; 30];
        for (x, c) in rows.iter().zip(coefficients) {
            axpy(&mut joint, c, x);
        }
        assert!(squared_distance(&joint, learner.theta()) < 1e-18);
        assert_eq!(learner.rank(), 20);
    }

    /// A full basis takes nothing in, however small its rounding remainders are.
    #[test]
    fn a_full_basis_stays_full() {
        let tasks = tasks(Key::new(5, "full"), 10, 4, 4, 1.0);
        let mut learner = Learner::ideal(10);
        let ranks = tasks.iter().map(|task| {
            learner.learn(task).unwrap();
            learner.rank()
        });
        assert_eq!(ranks.collect::<Vec<_>>(), [4, 8, 10, 10]);
    }
}
