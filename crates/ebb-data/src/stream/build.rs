//! From a description to a stream.

use std::path::Path;
use std::sync::Arc;

use ebb_space::Key;

use super::mixture::Mixed;
use super::origin::Origins;
use super::{
    EvalSet, Experience, Item, Kind, NamedScale, Scale, Scenario, Stream, StreamSpec, blurry,
    power_law, recurring, si_blurry,
};
use crate::catalogue::load;
use crate::dataset::{Normalise, Split};
use crate::{Error, Result};

impl StreamSpec {
    /// Loads the dataset and builds the stream.
    ///
    /// # Errors
    /// A missing or damaged dataset, a field that cannot work, an experience without examples.
    pub fn build(&self, data_dir: &Path, seed: u64) -> Result<Stream> {
        self.resolved()?;
        self.build_on(&load(&self.dataset, data_dir)?, seed)
    }

    /// Builds the stream on a dataset at hand, whatever its name.
    ///
    /// # Errors
    /// As [`build`](StreamSpec::build).
    pub fn build_on(&self, split: &Split, seed: u64) -> Result<Stream> {
        let mut spec = self.resolved()?;
        let scale = match spec.normalise {
            Some(Scale::Numbers(numbers)) => numbers,
            Some(Scale::Named(NamedScale::Raw)) => Normalise::raw(split.train.scale.divisor),
            Some(Scale::Named(NamedScale::Dataset)) | None => split.train.scale,
        };
        spec.normalise = Some(Scale::Numbers(scale));
        let key = Key::new(spec.seed.unwrap_or(seed), "stream");

        let origins = Origins::new(&spec, split, scale, key)?;
        let mixed = match spec.kind {
            Some(Kind::Recurring) => recurring::experiences(&spec, &origins, key.sub("recurring"))?,
            Some(Kind::PowerLaw) => power_law::experiences(&spec, &origins, key.sub("power law"))?,
            Some(Kind::SiBlurry) => si_blurry::experiences(&spec, &origins, key.sub("si-blurry"))?,
            Some(Kind::Joint) => vec![Mixed::joint(&origins)],
            _ => blurry::experiences(&spec, &origins, key.sub("blurry")),
        };
        spec.assemble(split, origins, mixed)
    }

    fn assemble(self, split: &Split, origins: Origins, mixed: Vec<Mixed>) -> Result<Stream> {
        let Origins {
            sets,
            transforms,
            classes,
            heads,
        } = origins;
        let evals: Vec<EvalSet> = sets
            .into_iter()
            .map(|set| EvalSet {
                name: set.name,
                task: set.task,
                items: set.test.into(),
            })
            .collect();
        let all: Arc<[Item]> = match self.kind {
            Some(Kind::Recurring | Kind::SiBlurry | Kind::Joint) => evals
                .iter()
                .flat_map(|set| set.items.iter().copied())
                .collect(),
            _ => Arc::from([]),
        };
        let mut experiences = Vec::with_capacity(mixed.len());
        for (index, mixed) in mixed.into_iter().enumerate() {
            let (task, test) = match mixed.test {
                Some(set) => (evals[set].task, evals[set].items.clone()),
                None => (0, all.clone()),
            };
            let empty = |part, why: &str| Error::EmptyExperience {
                index,
                name: mixed.name.clone(),
                part,
                why: why.into(),
            };
            if mixed.train.is_empty() {
                return Err(empty(
                    "training",
                    "no record of its classes is left for it: ask for fewer experiences, more examples in each, or less mixing",
                ));
            }
            if test.is_empty() {
                return Err(empty(
                    "test",
                    "the test set has no record of its classes: leave these classes out (groups), or give a test set that has them",
                ));
            }
            let sorted = |mut values: Vec<u32>| {
                values.sort_unstable();
                values.dedup();
                values
            };
            experiences.push(Experience {
                index,
                task,
                classes: sorted(
                    mixed
                        .train
                        .iter()
                        .map(|i| split.train.labels[i.row as usize])
                        .collect(),
                ),
                outputs: sorted(mixed.train.iter().map(|i| i.label).collect()),
                train: mixed.train.into(),
                test,
                origins: mixed.origins,
                name: mixed.name,
            });
        }
        if let Some(set) = evals.iter().position(|set| set.items.is_empty()) {
            return Err(Error::EmptyExperience {
                index: set,
                name: evals[set].name.clone(),
                part: "test",
                why: "the test set has no record of its classes".into(),
            });
        }
        let shape = |set: &EvalSet| transforms[set.items[0].id.view as usize].shape();
        assert!(
            evals.iter().all(|set| shape(set) == shape(&evals[0])),
            "one input shape a stream"
        );
        Ok(Stream {
            scenario: self.scenario.unwrap_or(Scenario::Class),
            spec: self,
            train: split.train.clone(),
            test: split.test.clone(),
            experiences,
            generic: Arc::default(),
            evals,
            transforms,
            classes,
            heads,
        })
    }
}
