//! Exact inference, passed on from task to task.
//!
//! **What it does.** A Bayesian linear regression learns a line on one domain, and then, with its
//! posterior as the new prior, another line on a second domain. Nothing is lost on the way, and yet
//! the first is forgotten where the model cannot hold both; where it has a line a domain it is not.
//! Second, the posterior mean of a Gaussian after two tasks of unequal size.
//! **Source.** Kessler et al., On sequential Bayesian inference for continual learning, 2023 (card
//! S188).
//! **Equations.** `Λ' = Λ + ΦᵀΦ/σ²`, `m' = Λ'⁻¹(Λm + Φᵀy/σ²)`. Of a mean with a flat prior:
//! `(n₁x̄₁ + n₂x̄₂)/(n₁ + n₂)`.
//! **Use it** as a bound on what any approximation of the posterior can do.
//! **Costs** a small Cholesky a task.

use ebb_space::{Direction, Key};

use super::linalg::{Cholesky, dot};
use super::{Check, Error, Finding, Result, deviation, largest, mean, number};

/// A Gaussian over weights.
#[derive(Clone, Debug)]
pub struct Gaussian {
    /// Its mean.
    pub mean: Vec<f64>,
    /// Its precision, row by row.
    pub precision: Vec<Vec<f64>>,
}

impl Gaussian {
    /// `N(0, I)`.
    pub fn standard(n: usize) -> Gaussian {
        let row = |i| (0..n).map(|j| f64::from(u8::from(i == j))).collect();
        Gaussian {
            mean: vec![0.0; n],
            precision: (0..n).map(row).collect(),
        }
    }

    /// The posterior with this as its prior, after rows `x` with answers `y` and noise of variance
    /// `noise`.
    ///
    /// # Errors
    /// When the precision is not positive, which a Gaussian's is.
    pub fn after(&self, x: &[Vec<f64>], y: &[f64], noise: f64) -> Result<Gaussian> {
        let mut precision = self.precision.clone();
        let mut pull: Vec<f64> = (precision.iter()).map(|row| dot(row, &self.mean)).collect();
        for (x, y) in x.iter().zip(y) {
            for i in 0..x.len() {
                pull[i] += x[i] * y / noise;
                (0..x.len()).for_each(|j| precision[i][j] += x[i] * x[j] / noise);
            }
        }
        let mean = Cholesky::new(&precision)?.solve(&pull);
        Ok(Gaussian { mean, precision })
    }

    /// Mean squared error of its mean.
    pub fn error(&self, x: &[Vec<f64>], y: &[f64]) -> f64 {
        let squares = x
            .iter()
            .zip(y)
            .map(|(x, y)| (dot(x, &self.mean) - y).powi(2));
        squares.sum::<f64>() / y.len() as f64
    }
}

const NOISE: f64 = 0.01;
const EXAMPLES: usize = 100;

/// Places and answers of a domain: `y = slope · x + intercept` and noise, `x` uniform in
/// `[domain, domain + 1]`.
fn line(key: Key, domain: usize, slope: f64, intercept: f64) -> (Vec<f64>, Vec<f64>) {
    let mut stream = key.at(domain as u64).stream();
    (0..EXAMPLES)
        .map(|_| {
            let x = domain as f64 + stream.uniform();
            (x, slope * x + intercept + NOISE.sqrt() * stream.normal())
        })
        .unzip()
}

/// One line for both domains, or a line a domain.
fn features(places: &[f64], apart: bool) -> Vec<Vec<f64>> {
    let each = |x: &f64| match (apart, *x < 1.0) {
        (false, _) => vec![1.0, *x],
        (true, true) => vec![1.0, *x, 0.0, 0.0],
        (true, false) => vec![0.0, 0.0, 1.0, *x],
    };
    places.iter().map(each).collect()
}

/// How many times the error on the first domain's fresh examples is what it was before the second
/// was learned.
fn forgetting(key: Key, apart: bool) -> Result<f64> {
    let mut slopes = key.sub("lines").stream();
    let lines = [(); 2].map(|()| (slopes.normal(), slopes.normal()));
    let task = |purpose: &str, domain: usize| {
        let (x, y) = line(key.sub(purpose), domain, lines[domain].0, lines[domain].1);
        (features(&x, apart), y)
    };
    let (first, second, test) = (task("train", 0), task("train", 1), task("test", 0));
    let prior = Gaussian::standard(first.0[0].len());
    let before = prior.after(&first.0, &first.1, NOISE)?;
    let after = before.after(&second.0, &second.1, NOISE)?;
    Ok(after.error(&test.0, &test.1) / before.error(&test.0, &test.1))
}

/// The mean after `n` examples of `N(0, 1)` and then `m` of `N(1, 1)`, from a flat prior.
fn common_mean(key: Key, n: usize, m: usize) -> Result<f64> {
    let mut state = Gaussian {
        mean: vec![0.0],
        precision: vec![vec![1e-12]],
    };
    for (task, count) in [n, m].into_iter().enumerate() {
        let mut stream = key.at(task as u64).stream();
        let y: Vec<f64> = (0..count).map(|_| task as f64 + stream.normal()).collect();
        state = state.after(&vec![vec![1.0]; count], &y, 1.0)?;
    }
    Ok(state.mean[0])
}

/// Measures both over `draws` worlds. Controls: a line a domain, and tasks of equal size.
///
/// # Errors
/// [`Error::Sizes`] for fewer than 2 draws; otherwise none in practice.
pub fn study(seed: u64, draws: usize) -> Result<Finding> {
    if draws < 2 {
        return Err(Error::Sizes(
            "a standard error needs at least 2 draws".into(),
        ));
    }
    let key = Key::new(seed, "S188");
    let each = |f: &dyn Fn(Key) -> Result<f64>| -> Result<Vec<f64>> {
        (0..draws as u64).map(|d| f(key.at(d))).collect()
    };
    let one = each(&|key| Ok(forgetting(key, false)?.ln()))?;
    let apart = each(&|key| Ok(forgetting(key, true)?.ln()))?;
    let unequal = each(&|key| common_mean(key, 50, 5000))?;
    let equal = each(&|key| common_mean(key, 2525, 2525))?;
    let theory = 5000.0 / 5050.0;
    let doubles = |name: &str, sample: &[f64]| {
        Check::at_least(
            format!("{name}: geometric mean of the error's growth"),
            mean(sample).exp(),
            2.0,
        )
    };
    let near_the_second = |name: &str, sample: &[f64]| {
        let off = largest(sample.iter().map(|m| (m - 1.0).abs()));
        Check::at_most(
            format!("{name}: largest distance to the second task"),
            off,
            0.1,
        )
    };
    let protocol = "100 examples a domain, exact posterior passed on; 95 % interval";
    let logs = |name: &str, sample: &[f64]| {
        let name = format!("{name}: ln of the error's growth on the first domain");
        number(name, sample, Direction::Lower, protocol)
    };
    let means = |name: &str, sample: &[f64]| {
        let name = format!("{name}: posterior mean");
        number(
            name,
            sample,
            Direction::Lower,
            "two Gaussians, means 0 and 1; 95 % interval",
        )
    };
    Ok(Finding {
        id: "S188b".into(),
        claim: "an exact posterior passed on forgets where the model cannot hold both tasks, and \
                leans to the larger task by the ratio of the sizes"
            .into(),
        measured: vec![
            logs("one line", &one)?,
            logs("a line a domain", &apart)?,
            means("50 and 5,000", &unequal)?,
            means("2,525 each", &equal)?,
        ],
        expectations: vec![
            doubles("one line", &one),
            near_the_second("50 and 5,000", &unequal),
            Check::at_most(
                "50 and 5,000 against n₂/(n₁+n₂): deviation in standard errors",
                deviation(&unequal, theory),
                3.0,
            ),
        ],
        controls: vec![
            doubles("a line a domain", &apart),
            near_the_second("2,525 each", &equal),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_study_holds_and_its_controls_fail() {
        let finding = study(0, 60).expect("a finding");
        assert!(finding.holds(), "{finding:#?}");
    }

    /// Task by task or all at once is one posterior, and it is that of ridge regression.
    #[test]
    fn passing_the_posterior_on_loses_nothing() {
        let key = Key::new(4, "lines");
        let (x1, y1) = line(key, 0, 1.5, -0.5);
        let (x2, y2) = line(key, 1, -2.0, 0.3);
        let (f1, f2) = (features(&x1, false), features(&x2, false));
        let prior = Gaussian::standard(2);
        let first = prior.after(&f1, &y1, NOISE).expect("positive");
        let passed = first.after(&f2, &y2, NOISE).expect("positive");
        let (f, y) = ([f1, f2].concat(), [y1, y2].concat());
        let whole = prior.after(&f, &y, NOISE).expect("positive");
        // Ridge regression of two weights by Cramer's rule, with the penalty σ².
        let sum = |g: &dyn Fn(usize) -> f64| (0..y.len()).map(g).sum::<f64>();
        let n = y.len() as f64 + NOISE;
        let (sx, sxx) = (sum(&|i| f[i][1]), sum(&|i| f[i][1] * f[i][1]) + NOISE);
        let (sy, sxy) = (sum(&|i| y[i]), sum(&|i| f[i][1] * y[i]));
        let det = n * sxx - sx * sx;
        let ridge = [(sxx * sy - sx * sxy) / det, (n * sxy - sx * sy) / det];
        for (i, ridge) in ridge.iter().enumerate() {
            assert!((passed.mean[i] - whole.mean[i]).abs() < 1e-9);
            assert!((whole.mean[i] - ridge).abs() < 1e-9);
        }
    }
}
