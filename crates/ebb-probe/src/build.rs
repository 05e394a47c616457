//! Measuring an association matrix: M tasks from one base, N upstream examples each.
//!
//! A folder holds the work, task by task, so that it goes on after a stop, and several programs can
//! share it: `recipe.toml` and `forecast.json` (what is measured), `base.safetensors` and
//! `base-buffers.safetensors`, `base.parquet` and `tasks/0001.parquet`, … (outcomes of the upstream
//! examples, in the format of a run's), and `matrix.parquet` when every task is there. Each file
//! comes by an atomic rename, and each task depends on the recipe and its own number alone: who
//! makes it, and when, changes no bit.

use crate::error::{Error, Result};
use crate::matrix::Association;
use crate::tasks::{base_model, fine_tune, measure, measure_base, task_stream};
use ebb_data::{Item, Stream};
use ebb_learn::evaluate::Outcome;
use ebb_learn::{Around, Recipe, Session};
use ebb_net::Model;
use ebb_record::{
    Disk, Outcomes, load_weights, read_outcomes_parquet, save_weights, write_outcomes_parquet,
};
use ebb_space::{ExampleId, Key};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The newest version of `forecast.json` that this program reads.
pub const FORECAST_VERSION: u32 = 1;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Request {
    /// The recipe: its first experience is the base's, each later one a task.
    pub recipe: Recipe,
    /// What is otherwise while the base is trained, such as `train.epochs`.
    pub base_sets: Vec<(String, String)>,
    /// Upstream examples, drawn from the training examples of the first experience.
    pub examples: usize,
}

/// What a folder is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Version of the format.
    pub format_version: u32,
    /// Version of the program.
    pub code_version: String,
    /// BLAKE3 of the way of fine-tuning, see [`way`].
    pub way: String,
    /// What was otherwise while the base was trained.
    pub base_sets: Vec<(String, String)>,
    /// Names of the tasks.
    pub tasks: Vec<String>,
    /// The upstream examples.
    pub examples: Vec<ExampleId>,
}

/// Tasks `index`, `index + of`, … of a folder that several programs share; from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which, from 1.
    pub index: usize,
    /// Of how many.
    pub of: usize,
}

/// What happened.
pub enum Event<'a> {
    /// The base is there: trained now (in so many seconds), or before.
    Base(Option<f64>),
    /// A task is there.
    Task {
        /// Its number, from 1.
        index: usize,
        /// How many there are.
        of: usize,
        /// Its name.
        name: &'a str,
        /// Mean rise in loss.
        mean: f64,
        /// Seconds it took; none: it was there before.
        seconds: Option<f64>,
    },
}

/// Where a folder stands.
pub struct Built {
    /// The matrix, if every task is there.
    pub matrix: Option<Association>,
    /// Tasks that are there.
    pub done: usize,
    /// All tasks.
    pub of: usize,
}

/// BLAKE3 of how a recipe fine-tunes: everything but what it learns, its seed, its name and what it
/// measures and keeps. A forecast holds between recipes that agree in it.
///
/// # Errors
/// When the recipe cannot be written, which is a defect.
pub fn way(recipe: &Recipe) -> Result<String> {
    let mut table = toml::Table::try_from(recipe.file())
        .map_err(|e| Error::Request(format!("the recipe cannot be written: {e}")))?;
    for key in ["stream", "seed", "label", "evaluate", "save", "accept"] {
        table.remove(key);
    }
    if let Some(toml::Value::Table(language)) = table.get_mut("language") {
        language.remove("experience");
    }
    Ok(blake3::hash(table.to_string().as_bytes())
        .to_hex()
        .to_string())
}

/// A folder with its stream, base and upstream examples at hand.
pub struct Folder {
    /// Where it is.
    pub root: PathBuf,
    /// The recipe of the tasks.
    pub recipe: Recipe,
    /// The stream.
    pub stream: Stream,
    /// The base model.
    pub base: Model,
    /// The upstream examples.
    pub upstream: Vec<Item>,
    /// What it is about.
    pub description: Description,
}

/// Measures what is missing of a matrix in the folder `root`.
///
/// # Errors
/// When the folder holds another matrix, the recipe does not fit, training fails or is stopped.
pub fn build(
    request: &Request,
    root: &Path,
    shard: Shard,
    around: &mut Around,
    watch: &mut dyn FnMut(Event),
) -> Result<Built> {
    if shard.index == 0 || shard.index > shard.of {
        return Err(Error::Request(format!(
            "there is no part {} of {}: parts are 1/{2} to {2}/{2}",
            shard.index, shard.of, shard.of
        )));
    }
    let folder = Folder::open(request, root, around, watch)?;
    folder.run(shard, around, watch)
}

impl Folder {
    /// Opens or begins a folder: writes what it is about, and trains the base if it is not there.
    ///
    /// # Errors
    /// As [`build`].
    pub fn open(
        request: &Request,
        root: &Path,
        around: &mut Around,
        watch: &mut dyn FnMut(Event),
    ) -> Result<Folder> {
        let recipe = &request.recipe;
        let base_recipe = Recipe::parse(recipe.text(), &request.base_sets)?;
        let (a, b) = (recipe.file(), base_recipe.file());
        if a.network != b.network || a.stream != b.stream || a.language != b.language {
            return Err(Error::Request(
                "the base and the tasks share one network and one stream: what is set for the base \
                 alone may be of `train` only"
                    .into(),
            ));
        }
        let session = Session::new(recipe, around.data_dir)?;
        let (stream, model) = ((*session.stream).clone(), session.oracle.model);
        if stream.experiences.len() < 2 {
            return Err(Error::Request(
                "a matrix needs a base and at least one task: give a stream with more experiences"
                    .into(),
            ));
        }
        let mut upstream = stream.experiences[0].train.to_vec();
        let key = Key::new(a.seed, "forecast").sub("upstream");
        key.order(&mut upstream, |item| item.id.mix());
        upstream.truncate(request.examples.max(1));
        let description = Description {
            format_version: FORECAST_VERSION,
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
            way: way(recipe)?,
            base_sets: request.base_sets.clone(),
            tasks: stream.experiences[1..]
                .iter()
                .map(|e| e.name.clone())
                .collect(),
            examples: upstream.iter().map(|i| i.id).collect(),
        };
        describe(root, recipe, &description)?;
        let mut folder = Folder {
            root: root.to_owned(),
            recipe: recipe.clone(),
            stream,
            base: model.clone(),
            upstream,
            description,
        };
        let (weights, buffers) = (
            folder.file("base.safetensors"),
            folder.file("base-buffers.safetensors"),
        );
        if weights.is_file() {
            let loaded = load_weights(&weights, model.layout())?;
            folder
                .base
                .set_weights(&loaded)
                .map_err(ebb_learn::Error::from)?;
            let layout = model.buffers().layout().clone();
            if !layout.is_empty() {
                let loaded = load_weights(&buffers, &layout)?;
                folder
                    .base
                    .set_buffers(loaded)
                    .map_err(ebb_learn::Error::from)?;
            }
            watch(Event::Base(None));
        } else {
            let begun = Instant::now();
            folder.base = base_model(
                &base_recipe,
                &folder.stream,
                model,
                &folder.upstream,
                around,
            )?;
            // The weights come last: where they are, the base is whole.
            if !folder.base.buffers().layout().is_empty() {
                save_weights(&buffers, folder.base.buffers(), &Default::default())?;
            }
            save_weights(&weights, &folder.base.weights(), &Default::default())?;
            watch(Event::Base(Some(begun.elapsed().as_secs_f64())));
        }
        Ok(folder)
    }

    /// BLAKE3 of the base's weights.
    pub fn base_hash(&self) -> String {
        blake3::Hash::from_bytes(self.base.weights().digest())
            .to_hex()
            .to_string()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn task_file(&self, task: usize) -> PathBuf {
        self.root.join("tasks").join(format!("{task:04}.parquet"))
    }

    fn run(
        &self,
        shard: Shard,
        around: &mut Around,
        watch: &mut dyn FnMut(Event),
    ) -> Result<Built> {
        let before = match self.read(&self.file("base.parquet"))? {
            Some(there) => there,
            None => {
                let stream = Arc::new(task_stream(&self.stream, 1, &self.upstream));
                let outcomes = measure_base(&self.recipe, stream, &self.base, &self.upstream)?;
                self.write(&self.file("base.parquet"), 0, &outcomes)?;
                outcomes
            }
        };
        let of = self.description.tasks.len();
        let mut after: Vec<Option<Vec<Outcome>>> = Vec::with_capacity(of);
        for task in 1..=of {
            let begun = Instant::now();
            let there = self.read(&self.task_file(task))?;
            let seconds = there.is_none();
            let outcomes = match there {
                Some(there) => there,
                None if (task - 1) % shard.of + 1 == shard.index => {
                    let stream = Arc::new(task_stream(&self.stream, task, &self.upstream));
                    let mut tuned = fine_tune(&self.recipe, stream, &self.base, around)?;
                    let outcomes = measure(&mut tuned, &self.upstream);
                    self.write(&self.task_file(task), task, &outcomes)?;
                    outcomes
                }
                None => {
                    after.push(None);
                    continue;
                }
            };
            let pairs = outcomes.iter().zip(&before);
            let rise: f64 = pairs
                .map(|(a, b)| f64::from(a.loss) - f64::from(b.loss))
                .sum();
            watch(Event::Task {
                index: task,
                of,
                name: &self.description.tasks[task - 1],
                mean: rise / before.len() as f64,
                seconds: seconds.then(|| begun.elapsed().as_secs_f64()),
            });
            after.push(Some(outcomes));
        }
        let done = after.iter().flatten().count();
        let rows: Option<Vec<Vec<Outcome>>> = after.into_iter().collect();
        let matrix = match rows {
            None => None,
            Some(rows) => {
                let matrix = self.matrix(&before, &rows)?;
                matrix.write_parquet(&self.file("matrix.parquet"))?;
                Some(matrix)
            }
        };
        Ok(Built { matrix, done, of })
    }

    fn matrix(&self, before: &[Outcome], rows: &[Vec<Outcome>]) -> Result<Association> {
        let each = || rows.iter().flatten();
        let base = before.iter().cycle();
        Association {
            recipe: self.description.way.clone(),
            base: self.base_hash(),
            tasks: self.description.tasks.clone(),
            examples: self.upstream.iter().map(|i| i.id.to_string()).collect(),
            base_loss: before.iter().map(|o| o.loss).collect(),
            base_correct: before.iter().map(|o| o.correct).collect(),
            z: each()
                .zip(base)
                .map(|(after, before)| after.loss - before.loss)
                .collect(),
            wrong: each().map(|o| !o.correct).collect(),
        }
        .checked()
    }

    fn write(&self, path: &Path, task: usize, outcomes: &[Outcome]) -> Result<()> {
        let outcomes = Outcomes {
            step: 0,
            after: task as i32,
            set: 0,
            ids: self.description.examples.clone().into(),
            loss: outcomes.iter().map(|o| o.loss).collect(),
            correct: outcomes.iter().map(|o| o.correct).collect(),
        };
        Ok(write_outcomes_parquet(&Disk::default(), path, 0, |take| {
            take(outcomes)
        })?)
    }

    /// The outcomes in a file, if it is there.
    fn read(&self, path: &Path) -> Result<Option<Vec<Outcome>>> {
        if !path.is_file() {
            return Ok(None);
        }
        let (mut all, _) = read_outcomes_parquet(path)?;
        let fits = |o: &Outcomes| *o.ids == *self.description.examples;
        match all.pop().filter(|o| all.is_empty() && fits(o)) {
            Some(o) => {
                let each = o.loss.iter().zip(&o.correct);
                let outcome = |(loss, correct): (&f32, &bool)| Outcome {
                    loss: *loss,
                    correct: *correct,
                };
                Ok(Some(each.map(outcome).collect()))
            }
            None => Err(Error::Damaged {
                path: path.to_owned(),
                what: "it does not hold the outcomes of this matrix's examples: delete it".into(),
            }),
        }
    }
}

/// Writes what a folder is about, or checks that it says the same already.
fn describe(root: &Path, recipe: &Recipe, description: &Description) -> Result<()> {
    let io = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    };
    let tasks = root.join("tasks");
    std::fs::create_dir_all(&tasks).map_err(io("make", &tasks))?;
    let (json, toml) = (root.join("forecast.json"), root.join("recipe.toml"));
    if json.is_file() {
        let there = read_description(root)?;
        let text = std::fs::read_to_string(&toml).map_err(io("read", &toml))?;
        if (&there, text.as_str()) != (description, recipe.text()) {
            return Err(Error::Request(format!(
                "`{}` holds the matrix of another recipe, base or number of examples: go on with \
                 `{}` and the same options, or choose another folder",
                root.display(),
                toml.display()
            )));
        }
        return Ok(());
    }
    let text = serde_json::to_vec_pretty(description).map_err(|e| Error::Damaged {
        path: json.clone(),
        what: e.to_string(),
    })?;
    Disk::default().replace(&toml, recipe.text().as_bytes())?;
    Disk::default().replace(&json, &text)?;
    Ok(())
}

/// Reads what a folder is about.
///
/// # Errors
/// When it is no such folder, or one of a newer program.
pub fn read_description(root: &Path) -> Result<Description> {
    let path = root.join("forecast.json");
    let text = std::fs::read(&path).map_err(|source| Error::Io {
        action: "read",
        path: path.clone(),
        source,
    })?;
    let damaged = |what: String| Error::Damaged {
        path: path.clone(),
        what,
    };
    let description: Description =
        serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    match description.format_version > FORECAST_VERSION {
        false => Ok(description),
        true => Err(damaged(format!(
            "it has format version {}, this program reads up to {FORECAST_VERSION}: use a newer one",
            description.format_version
        ))),
    }
}

/// The matrix behind a path: a folder that [`build`] filled, a Parquet file, or a CSV file.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn read_matrix(path: &Path) -> Result<Association> {
    if path.is_dir() {
        let file = path.join("matrix.parquet");
        if !file.is_file() {
            return Err(Error::Request(format!(
                "`{}` has no matrix.parquet yet: measure its remaining tasks with the same \
                 `ebb forecast build`",
                path.display()
            )));
        }
        return Association::read_parquet(&file);
    }
    match path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("csv"))
    {
        true => Association::read_csv(path),
        false => Association::read_parquet(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_learn::Silent;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn request() -> Request {
        let text = "seed = 3\nstream = { dataset = \"digits\", kind = \"rotated\", \
                    degrees = [0.0, 30.0, 60.0, 90.0] }\n\
                    network = { kind = \"mlp\", hidden = [16] }\n\
                    train = { steps = 12, lr = 0.05 }\n";
        Request {
            recipe: Recipe::parse(text, &[]).unwrap(),
            base_sets: vec![("train.steps".into(), "60".into())],
            examples: 40,
        }
    }

    fn built(root: &Path, shard: Shard, stop: &AtomicBool, stop_at: usize) -> Result<Built> {
        let dir = std::env::temp_dir();
        let mut around = Around {
            data_dir: &dir,
            progress: &mut Silent,
            stop,
        };
        build(&request(), root, shard, &mut around, &mut |event| {
            if matches!(event, Event::Task { index, .. } if index == stop_at) {
                stop.store(true, Ordering::Relaxed);
            }
        })
    }

    const WHOLE: Shard = Shard { index: 1, of: 1 };

    #[test]
    fn stopped_in_shards_or_in_one_go_it_is_the_same_matrix() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let go = AtomicBool::new(false);
        let whole = built(&one, WHOLE, &go, 0).unwrap();
        assert_eq!((whole.done, whole.of), (3, 3));
        let whole = whole.matrix.unwrap();
        // Stopped after the first task; then the second of two shards, then the first.
        let stop = AtomicBool::new(false);
        let stopped = built(&two, WHOLE, &stop, 1);
        assert!(matches!(
            stopped.err(),
            Some(Error::Learn(ebb_learn::Error::Interrupted { .. }))
        ));
        let half = built(&two, Shard { index: 2, of: 2 }, &go, 0).unwrap();
        assert!(half.matrix.is_none() && half.done == 2);
        let rest = built(&two, Shard { index: 1, of: 2 }, &go, 0)
            .unwrap()
            .matrix
            .unwrap();
        assert_eq!(whole, rest);
        assert_eq!(read_matrix(&two).unwrap(), whole);
        // Once more changes nothing.
        assert_eq!(built(&two, WHOLE, &go, 0).unwrap().matrix.unwrap(), whole);
        assert!(whole.z.iter().any(|z| *z > 0.0), "something is forgotten");
        assert_eq!(whole.recipe, way(&request().recipe).unwrap());
    }

    /// A task's row does not depend on which other tasks there are: to the bit.
    #[test]
    fn each_task_starts_from_the_base_alone() {
        let of = |groups: &str| {
            let text = format!(
                "stream = {{ dataset = \"digits\", groups = {groups}, scenario = \"domain\" }}\n\
                 network = {{ kind = \"mlp\", hidden = [16] }}\ntrain = {{ steps = 20 }}\n"
            );
            let request = Request {
                recipe: Recipe::parse(&text, &[]).unwrap(),
                base_sets: vec![],
                examples: 30,
            };
            let (dir, data) = (tempfile::tempdir().unwrap(), std::env::temp_dir());
            let mut around = Around {
                data_dir: &data,
                progress: &mut Silent,
                stop: &AtomicBool::new(false),
            };
            let built = build(&request, dir.path(), WHOLE, &mut around, &mut |_| {});
            built.unwrap().matrix.unwrap()
        };
        let all = of("[[0, 1], [2, 3], [4, 5], [6, 7]]");
        let alone = of("[[0, 1], [6, 7]]");
        assert_eq!((&alone.base, &alone.base_loss), (&all.base, &all.base_loss));
        assert_eq!(alone.row(0), all.row(2));
        assert_ne!(all.row(1), all.row(2));
    }

    #[test]
    fn another_recipe_in_the_same_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let go = AtomicBool::new(false);
        built(dir.path(), WHOLE, &go, 0).unwrap();
        let mut other = request();
        other.examples = 41;
        let data = std::env::temp_dir();
        let mut around = Around {
            data_dir: &data,
            progress: &mut Silent,
            stop: &go,
        };
        let mut again = |request: &Request| {
            build(request, dir.path(), WHOLE, &mut around, &mut |_| {})
                .err()
                .unwrap()
                .to_string()
        };
        assert!(again(&other).contains("another recipe"));
        other.base_sets = vec![("network.hidden".into(), "[8]".into())];
        assert!(again(&other).contains("one network"));
    }

    #[test]
    fn the_way_of_fine_tuning_does_not_depend_on_what_is_learnt() {
        let recipe = |sets: &[(&str, &str)]| {
            let sets: Vec<(String, String)> = sets
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect();
            way(&Recipe::parse(request().recipe.text(), &sets).unwrap()).unwrap()
        };
        let plain = recipe(&[]);
        assert_eq!(
            plain,
            recipe(&[("stream.per_experience", "50"), ("seed", "9")])
        );
        assert_ne!(plain, recipe(&[("train.lr", "0.04")]));
        assert_ne!(plain, recipe(&[("network.hidden", "[17]")]));
    }
}
