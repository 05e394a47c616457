//! Learning by minimum-norm interpolation, one task after another.
//!
//! **What it does.** Over-parameterised linear regression: each task is interpolated exactly by the
//! smallest possible change of the weights, which is where gradient descent on the squared loss
//! ends. The expected distance to every task's truth after every task is then known.
//! **Source.** Lin et al., Theory on forgetting and generalization of continual learning, ICML 2023
//! (card S059).
//! **Equations.** `X_t ∈ R^{p×n}` and `z ~ N(0, s²)` are normal, `y_t = X_tᵀ w*_t + z`, `w_0 = 0`,
//! `w_t = w_{t−1} + X_t (X_tᵀ X_t)⁻¹ (y_t − X_tᵀ w_{t−1})`. With `r = 1 − n/p` and
//! `L_i(t) = E‖w_t − w*_i‖²`:
//!
//! `L_i(t) = r L_i(t−1) + (1−r) ‖w*_t − w*_i‖² + n s² / (p−n−1)`, `L_i(0) = ‖w*_i‖²`.
//!
//! **Use it** as an oracle for measures and forecasts of forgetting. It needs `p ≥ n + 2`.
//! **Costs** one Cholesky factorisation of an n × n matrix a task.

use ebb_space::{Direction, Key};

use super::linalg::{Cholesky, axpy, dot, gram, normals, squared_distance};
use super::{Check, Error, Finding, Result, deviation, largest, number};

/// A sequence of linear regression tasks.
#[derive(Clone, Debug)]
pub struct World {
    truths: Vec<Vec<f64>>,
    samples: usize,
    noise: f64,
}

/// Errors `L_i(t)`: `errors[i][t]` for task `i` in `0..T` after `t` tasks in `0..=T`.
pub type Errors = Vec<Vec<f64>>;

impl World {
    /// Tasks with these true weights, `samples` a task, noise of standard deviation `noise`.
    ///
    /// # Errors
    /// [`Error::Sizes`] unless there is a task, all truths have one length `p ≥ samples + 2`, and
    /// the noise is finite.
    pub fn new(truths: Vec<Vec<f64>>, samples: usize, noise: f64) -> Result<World> {
        let Some(p) = truths.first().map(Vec::len) else {
            return Err(Error::Sizes("there is no task".into()));
        };
        if truths.iter().any(|truth| truth.len() != p) {
            return Err(Error::Sizes(
                "the true weights of the tasks differ in length".into(),
            ));
        }
        if samples == 0 || p < samples + 2 {
            return Err(Error::Sizes(format!(
                "{samples} samples with {p} weights; needed are at least 1 sample and 2 weights more than samples"
            )));
        }
        if !noise.is_finite() {
            return Err(Error::Sizes(format!("the noise is {noise}")));
        }
        Ok(World {
            truths,
            samples,
            noise,
        })
    }

    /// Tasks whose truths have expected squared norm 1, of which the share `common` is one vector
    /// that all of them have: the expected squared distance of two truths is `2 (1 − common)`.
    ///
    /// # Errors
    /// Those of [`World::new`], and [`Error::Sizes`] unless `common` is in [0, 1].
    pub fn keyed(
        key: Key,
        weights: usize,
        tasks: usize,
        common: f64,
        samples: usize,
        noise: f64,
    ) -> Result<World> {
        if !(0.0..=1.0).contains(&common) {
            return Err(Error::Sizes(format!(
                "a share of {common} is not in [0, 1]"
            )));
        }
        let shared = normals(&mut key.sub("common").stream(), weights);
        let truth = |task: u64| -> Vec<f64> {
            let own = normals(&mut key.sub("own").at(task).stream(), weights);
            let scale = (weights as f64).sqrt();
            shared
                .iter()
                .zip(own)
                .map(|(c, o)| (common.sqrt() * c + (1.0 - common).sqrt() * o) / scale)
                .collect()
        };
        World::new((0..tasks as u64).map(truth).collect(), samples, noise)
    }

    /// Number of tasks.
    pub fn tasks(&self) -> usize {
        self.truths.len()
    }

    /// `r = 1 − n/p`: the expected share of an error that one task leaves untouched.
    pub fn retained(&self) -> f64 {
        1.0 - self.samples as f64 / self.truths[0].len() as f64
    }

    /// `n s² / (p − n − 1)`: the expected squared error that the noise of one task adds.
    pub fn noise_gain(&self) -> f64 {
        self.noise_gain_over(self.truths[0].len() - self.samples - 1)
    }

    fn noise_gain_over(&self, freedom: usize) -> f64 {
        self.samples as f64 * self.noise * self.noise / freedom as f64
    }

    /// The expected errors, by the recursion.
    pub fn expected_errors(&self) -> Errors {
        self.recursion(self.retained(), self.noise_gain())
    }

    fn recursion(&self, retained: f64, noise_gain: f64) -> Errors {
        let errors_of = |truth: &Vec<f64>| {
            let mut errors = vec![dot(truth, truth)];
            for learned in &self.truths {
                let moved = (1.0 - retained) * squared_distance(learned, truth);
                errors.push(retained * errors[errors.len() - 1] + moved + noise_gain);
            }
            errors
        };
        self.truths.iter().map(errors_of).collect()
    }

    /// The expected error on task `i` after `t` tasks, by the explicit form
    /// `rᵗ‖w*_i‖² + (1−r) Σ_k r^{t−k} ‖w*_k − w*_i‖² + p s²/(p−n−1) · (1 − rᵗ)`.
    ///
    /// # Panics
    /// If there is no task `i` or `t` exceeds the number of tasks.
    pub fn expected_error(&self, i: usize, t: usize) -> f64 {
        let (p, r, truth) = (
            self.truths[0].len() as f64,
            self.retained(),
            &self.truths[i],
        );
        let faded = |tasks: usize| r.powi(tasks as i32);
        let moved: f64 = (self.truths[..t].iter().enumerate())
            .map(|(k, learned)| faded(t - k - 1) * squared_distance(learned, truth))
            .sum();
        let noise = p * self.noise * self.noise / (p - self.samples as f64 - 1.0);
        faded(t) * dot(truth, truth) + (1.0 - r) * moved + noise * (1.0 - faded(t))
    }

    /// One draw of the samples, learned task by task: the errors, and the largest residual
    /// `|y − Xᵀw|` left right after learning a task (0 but for rounding).
    ///
    /// # Errors
    /// [`Error::Singular`] if samples are linearly dependent, which has probability 0.
    pub fn learn(&self, key: Key) -> Result<(Errors, f64)> {
        let p = self.truths[0].len();
        let mut w = vec![0.0; p];
        let mut errors: Errors = self
            .truths
            .iter()
            .map(|truth| vec![dot(truth, truth)])
            .collect();
        let mut residual = 0.0f64;
        for (task, truth) in self.truths.iter().enumerate() {
            let mut stream = key.at(task as u64).stream();
            let x: Vec<Vec<f64>> = (0..self.samples).map(|_| normals(&mut stream, p)).collect();
            let y: Vec<f64> = x
                .iter()
                .map(|x| dot(x, truth) + self.noise * stream.normal())
                .collect();
            let missing =
                |w: &[f64]| -> Vec<f64> { x.iter().zip(&y).map(|(x, y)| y - dot(x, w)).collect() };
            let coefficients = Cholesky::new(&gram(&x))?.solve(&missing(&w));
            for (x, c) in x.iter().zip(coefficients) {
                axpy(&mut w, c, x);
            }
            residual = largest(missing(&w).into_iter().map(f64::abs).chain([residual]));
            for (errors, truth) in errors.iter_mut().zip(&self.truths) {
                errors.push(squared_distance(&w, truth));
            }
        }
        Ok((errors, residual))
    }
}

/// `F_T = 1/(T−1) Σ_{i<T} [L_i(T) − L_i(i)]`: how much worse the earlier tasks became since each
/// was learned.
///
/// # Panics
/// If there is no task; NaN for a single one.
pub fn forgetting(errors: &Errors) -> f64 {
    let last = errors.len();
    let earlier = errors[..last - 1].iter().enumerate();
    earlier
        .map(|(i, errors)| errors[last] - errors[i + 1])
        .sum::<f64>()
        / (last as f64 - 1.0)
}

/// `G_T = 1/T Σ_i L_i(T)`: the mean error on all tasks after the last.
///
/// # Panics
/// If there is no task.
pub fn generalisation(errors: &Errors) -> f64 {
    errors
        .iter()
        .map(|errors| errors[errors.len() - 1])
        .sum::<f64>()
        / errors.len() as f64
}

/// Measures every `L_i(t)`, `F_T` and `G_T` over `draws` draws of the samples (card: p = 60,
/// n = 20, T = 4, s = 0.3, 300 draws) and compares them with the recursion. Controls: the recursion
/// with `r` and `1 − r` exchanged, and with the noise of a fixed design, `n s² / p`.
///
/// # Errors
/// [`Error::Sizes`] for fewer than 2 draws; otherwise none in practice.
pub fn study(seed: u64, draws: usize) -> Result<Finding> {
    const BOUND: f64 = 3.0;
    if draws < 2 {
        return Err(Error::Sizes(
            "a standard error needs at least 2 draws".into(),
        ));
    }
    let key = Key::new(seed, "S059");
    let world = World::keyed(key.sub("truths"), 60, 4, 0.5, 20, 0.3)?;
    let learned: Vec<(Errors, f64)> = (0..draws as u64)
        .map(|draw| world.learn(key.sub("draw").at(draw)))
        .collect::<Result<_>>()?;
    let sample = |of: &dyn Fn(&Errors) -> f64| -> Vec<f64> {
        learned.iter().map(|(errors, _)| of(errors)).collect()
    };

    let protocol =
        "minimum-norm regression, p = 60, n = 20, T = 4, s = 0.3, common share 0.5; 95 % interval";
    let cells: Vec<(usize, usize)> = (0..world.tasks())
        .flat_map(|i| (1..=world.tasks()).map(move |t| (i, t)))
        .collect();
    let cell_samples: Vec<Vec<f64>> = cells
        .iter()
        .map(|&(i, t)| sample(&|errors| errors[i][t]))
        .collect();
    let (lost, general) = (sample(&forgetting), sample(&generalisation));

    let mut measured = Vec::new();
    for (&(i, t), sample) in cells.iter().zip(&cell_samples) {
        measured.push(number(
            format!("error on task {} after task {t}", i + 1),
            sample,
            Direction::Lower,
            protocol,
        )?);
    }
    measured.push(number("forgetting F_T", &lost, Direction::Lower, protocol)?);
    measured.push(number(
        "generalisation error G_T",
        &general,
        Direction::Lower,
        protocol,
    )?);

    let expected = world.expected_errors();
    let worst = |theory: &Errors| {
        largest(
            cells
                .iter()
                .zip(&cell_samples)
                .map(|(&(i, t), sample)| deviation(sample, theory[i][t])),
        )
    };
    let agreement = |name: &str, theory: &Errors| {
        Check::at_most(
            format!("{name}: largest deviation of a measured error, in standard errors"),
            worst(theory),
            BOUND,
        )
    };
    let forms_differ = largest(
        cells
            .iter()
            .map(|&(i, t)| (world.expected_error(i, t) - expected[i][t]).abs()),
    );
    let (r, noise) = (world.retained(), world.noise_gain());
    Ok(Finding {
        id: "S059".into(),
        claim: "the expected error on each task after each task follows the closed recursion"
            .into(),
        measured,
        expectations: vec![
            agreement("recursion", &expected),
            Check::at_most(
                "forgetting: deviation in standard errors",
                deviation(&lost, forgetting(&expected)),
                BOUND,
            ),
            Check::at_most(
                "generalisation: deviation in standard errors",
                deviation(&general, generalisation(&expected)),
                BOUND,
            ),
            Check::at_most(
                "explicit form and recursion: largest difference",
                forms_differ,
                1e-12,
            ),
            Check::at_most(
                "largest residual after interpolation",
                largest(learned.iter().map(|l| l.1)),
                1e-8,
            ),
        ],
        controls: vec![
            agreement("r and 1 − r exchanged", &world.recursion(1.0 - r, noise)),
            agreement(
                "noise of a fixed design",
                &world.recursion(r, world.noise_gain_over(60)),
            ),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_study_holds_and_its_controls_fail() {
        let finding = study(0, 300).unwrap();
        assert!(finding.holds(), "{finding:#?}");
        assert_eq!(finding.measured.len(), 18);
        let json = serde_json::to_string(&finding).unwrap();
        assert_eq!(serde_json::from_str::<Finding>(&json).unwrap(), finding);
    }

    /// Two tasks in two orthogonal directions, no noise, worked out by hand with r = 1/2: after one
    /// task half of an error is left and half of the distance between the truths is added.
    #[test]
    fn two_tasks_by_hand() {
        let mut truths = vec![vec![0.0; 8]; 2];
        (truths[0][0], truths[1][1]) = (2.0, 1.0);
        let world = World::new(truths, 4, 0.0).unwrap();
        assert_eq!(world.expected_errors(), [[4.0, 2.0, 3.5], [1.0, 3.0, 1.5]]);
        assert_eq!(forgetting(&world.expected_errors()), 1.5);
        assert_eq!(generalisation(&world.expected_errors()), 2.5);
    }

    #[test]
    fn a_task_learned_again_is_not_forgotten_and_nothing_is_unlearned_without_noise() {
        let truth = vec![1.0; 10];
        let world = World::new(vec![truth; 3], 4, 0.0).unwrap();
        let (errors, residual) = world.learn(Key::new(1, "again")).unwrap();
        assert!(residual < 1e-12);
        assert!(
            errors[0].windows(2).all(|pair| pair[1] <= pair[0]),
            "{errors:?}"
        );
    }

    #[test]
    fn impossible_worlds_are_refused() {
        let new = |p: usize, n: usize| World::new(vec![vec![0.0; p]], n, 0.1);
        assert!(new(6, 4).is_ok());
        for world in [
            new(5, 4),
            new(6, 0),
            World::new(vec![], 1, 0.1),
            World::new(vec![vec![0.0; 9], vec![]], 1, 0.1),
        ] {
            assert!(matches!(world, Err(Error::Sizes(_))));
        }
        assert!(matches!(study(0, 1), Err(Error::Sizes(_))));
    }
}
