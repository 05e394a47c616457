//! Forgetting that is forecast from thirty examples, and the replay that follows from it.
//!
//! **Source.** Jin & Ren, NeurIPS 2025 (card S000), its study A. A base learns clean images; tasks
//! are pairs of classes, clean, rotated, inverted or with half of their pixels exchanged, of other
//! images, each learnt from the base alone. Columns are images the base has learnt. **What is
//! measured**, a value a seed (each seed has its own base, tasks, split and known columns):
//!
//! | arm | what | measures |
//! |---|---|---|
//! | `matrix` | the association matrix | `R²` by rank, and of the additive fit and the means |
//! | `shuffled` | the same with its entries exchanged | `R²` by rank |
//! | `factors`, `neighbours`, `closed`, `additive`, `column_means` | completers | RMSE on unseen columns: of test tasks drawn at random, and of whole pairs of classes |
//! | `better` | factors or neighbours, whichever errs less | the same |
//! | `permuted` | factors, the known values exchanged | RMSE, test tasks drawn at random |
//! | `closed` | intervals | coverage on the test tasks |
//! | `targeted`, `random`, `column_means`, `permuted`, `shuffled`, `truth` | what is replayed | the rise in loss of images that are never replayed |
//!
//! **Costs** 48 short runs for the matrix and 8 for each kind of replay and draw, a seed.

use super::found::Found;
use crate::clause::Samples;
use crate::error::{Error, Result};
use crate::runner::{Ended, Options, Watch};
use crate::verdict::Verdict;
use ebb_data::{
    Dataset, EvalSet, Experience, Item, Normalise, Pixels, Scenario, Step, Stream, StreamSpec,
    Transform,
};
use ebb_learn::{Around, Recipe, Session, Silent};
use ebb_net::Model;
use ebb_probe::complete::{Additive, ClosedForm, ColumnMean, Completer, Factors, Neighbours};
use ebb_probe::protocol::{Split, forecast, known_columns};
use ebb_probe::replay::{TEMPERATURE, draw, effective_size, weights};
use ebb_probe::tasks::{base_model, fine_tune, measure, measure_base, task_stream};
use ebb_probe::{Association, Known, Table, conformal, rank_probe};
use ebb_space::{Direction, ExampleId, Key};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// The arms that clauses may name.
pub const ARMS: &[&str] = &[
    "additive",
    "better",
    "closed",
    "column_means",
    "factors",
    "matrix",
    "neighbours",
    "permuted",
    "random",
    "shuffled",
    "targeted",
    "truth",
];

/// What is trained, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The dataset, of ten classes of square images.
    pub dataset: String,
    /// Images that the base learns.
    pub base_images: usize,
    /// Passes of the base.
    pub base_epochs: u64,
    /// Learning rate of the base, by plain SGD.
    pub base_lr: f64,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Columns that may be replayed, and columns that never are.
    pub replayable: usize,
    /// See there.
    pub held_out: usize,
    /// Pairs of classes.
    pub pairs: usize,
    /// Images of a task.
    pub images: usize,
    /// Steps of a task.
    pub steps: u64,
    /// Rows a step.
    pub batch: usize,
    /// Learning rate of a task, by plain SGD.
    pub lr: f64,
    /// Columns known of a test task.
    pub known: usize,
    /// Test tasks, of the pairs' four each.
    pub tests: usize,
    /// New rows for each replayed one.
    pub per: usize,
    /// Draws of what is replayed.
    pub draws: u64,
    /// Train tasks set aside for intervals.
    pub calibration: usize,
    /// The level of the intervals.
    pub level: f64,
}

/// How a task shows its images.
const KINDS: [&str; 4] = ["clean", "rotated", "inverted", "half permuted"];

/// What a seed gave: by arm and measure.
type Values = BTreeMap<(&'static str, &'static str), f64>;

pub(crate) fn run(
    spec: &Spec,
    seeds: &[u64],
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<Samples> {
    let tasks = spec.pairs * KINDS.len();
    let wrong = if spec.pairs > 45 || spec.tests == 0 || !spec.tests.is_multiple_of(KINDS.len()) {
        "there are 45 pairs, and test tasks come by the four of a pair"
    } else if tasks < spec.tests + spec.calibration + 8 || spec.draws == 0 || spec.per == 0 {
        "at least eight tasks are left to fit, and there is at least one draw"
    } else {
        ""
    };
    if !wrong.is_empty() {
        return Err(Error::Study {
            id: verdict.id.clone(),
            reason: wrong.to_owned(),
        });
    }
    watch.ahead(seeds.len());
    let mut all: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for seed in seeds {
        let begun = Instant::now();
        let values = spec.seed(*seed, options).map_err(|e| match e {
            Error::Learn(ebb_learn::Error::Interrupted { .. }) => Error::Stopped,
            Error::Learn(source) => Error::Run {
                arm: "matrix".to_owned(),
                seed: *seed,
                source: Box::new(source),
            },
            e => e,
        })?;
        let measured = values
            .iter()
            .map(|((arm, name), v)| (format!("{arm}.{name}"), *v));
        watch.run(&Ended {
            arm: "matrix".to_owned(),
            seed: *seed,
            trial: None,
            seconds: begun.elapsed().as_secs_f64(),
            measured: measured.collect(),
        });
        for (key, value) in values {
            all.entry(key).or_default().push(value);
        }
    }
    let protocol = format!(
        "{} {} images, MLP {:?}; {tasks} tasks of {} steps of {} at {}; {} columns, {} known; {} test tasks",
        spec.dataset,
        spec.base_images,
        spec.hidden,
        spec.steps,
        spec.batch,
        spec.lr,
        spec.replayable + spec.held_out,
        spec.known,
        spec.tests,
    );
    let mut found = Found::new("planned", protocol, seeds);
    for ((arm, name), values) in all {
        let (direction, what) = about(name);
        found.add(arm, name, values, direction, what);
    }
    let (samples, arms) = found.finish()?;
    verdict.arms = arms;
    Ok(samples)
}

fn about(name: &str) -> (Direction, &'static str) {
    match name {
        "rmse" => (
            Direction::Lower,
            "RMSE on unseen columns, test tasks drawn at random",
        ),
        "rmse_pairs" => (
            Direction::Lower,
            "RMSE on unseen columns, test tasks whole pairs of classes",
        ),
        "z" => (
            Direction::Lower,
            "mean rise in loss of images never replayed, over test tasks",
        ),
        "wins" => (
            Direction::Higher,
            "test tasks in which that rise is at least 5 % below random replay's",
        ),
        "effective" => (
            Direction::None,
            "effective number of examples that replay draws among",
        ),
        "coverage" => (
            Direction::None,
            "share of unseen columns inside their interval",
        ),
        "coverage_mean" => (
            Direction::None,
            "share of test tasks whose mean is inside its interval",
        ),
        "additive" => (Direction::None, "R2 of the additive fit"),
        "row_means" => (Direction::None, "R2 of the tasks' means"),
        "column_means" => (Direction::None, "R2 of the columns' means"),
        "spread" => (Direction::None, "standard deviation of the rises in loss"),
        "mean" => (Direction::None, "mean rise in loss"),
        _ => (Direction::None, "R2 of this rank"),
    }
}

/// A base, its tasks, and what they did to its images.
struct World {
    recipe: Recipe,
    base: Model,
    stream: Stream,
    /// The columns: first those that may be replayed, then those that never are.
    upstream: Vec<Item>,
    base_loss: Vec<f32>,
    table: Table,
}

impl Spec {
    fn seed(&self, seed: u64, options: &Options) -> Result<Values> {
        let world = self.world(seed, options)?;
        let key = Key::new(seed, "forecast");
        let table = &world.table;
        let mut values = Values::new();
        let probe = rank_probe(table, key).map_err(probed)?;
        let shuffled_table = shuffled(table, key.sub("shuffled"))?;
        let noise = rank_probe(&shuffled_table, key).map_err(probed)?;
        for (arm, probe) in [("matrix", &probe), ("shuffled", &noise)] {
            let ranks = ["rank1", "rank2", "rank3", "rank4", "rank5"];
            ranks.iter().zip(&probe.r2).for_each(|(rank, r2)| {
                values.insert((arm, *rank), *r2);
            });
        }
        values.insert(("matrix", "additive"), probe.additive);
        values.insert(("matrix", "row_means"), probe.row_means);
        values.insert(("matrix", "column_means"), probe.column_means);
        let n = table.values().len() as f64;
        let mean = table.values().iter().map(|z| f64::from(*z)).sum::<f64>() / n;
        let square = |z: &f32| (f64::from(*z) - mean).powi(2);
        let spread = (table.values().iter().map(square).sum::<f64>() / n).sqrt();
        values.insert(("matrix", "mean"), mean);
        values.insert(("matrix", "spread"), spread);

        // What is known are columns that may be replayed: the others stay untouched.
        let replayable = table.select_columns(&(0..self.replayable).collect::<Vec<_>>());
        let known = known_columns(&replayable.map_err(probed)?, self.known, key.sub("known"));
        let known = known.map_err(probed)?;
        let at_random = Split::at_random(table, self.tests, key.sub("split")).map_err(probed)?;
        // Tasks stand pair by pair; the last pairs are as good as any, since pairs are drawn.
        let pairs = Split::of(table, table.height() - self.tests..table.height());
        let pairs = pairs.map_err(probed)?;
        let (factors, neighbours) = (Factors::default(), Neighbours::default());
        let (closed, additive) = (ClosedForm::default(), Additive::OFFLINE);
        let mut forecasts = BTreeMap::new();
        for (measure, split) in [("rmse", &at_random), ("rmse_pairs", &pairs)] {
            let arms: [(&'static str, &dyn Completer, bool); 6] = [
                ("factors", &factors, false),
                ("neighbours", &neighbours, false),
                ("closed", &closed, false),
                ("additive", &additive, false),
                ("column_means", &ColumnMean, false),
                ("permuted", &factors, true),
            ];
            // A control of the first split is control enough: each of its rows is a fit.
            let arms = arms.into_iter();
            for (arm, completer, permuted) in arms.filter(|a| !a.2 || measure == "rmse") {
                let made = forecast(table, split, completer, &known, permuted, key);
                let made = made.map_err(probed)?;
                values.insert((arm, measure), made.rmse(table, split));
                if measure == "rmse" {
                    forecasts.insert(arm, made.rows);
                }
            }
            let better = values[&("factors", measure)].min(values[&("neighbours", measure)]);
            values.insert(("better", measure), better);
        }
        self.intervals(table, &at_random, &known, &mut values)?;

        let test_rows = at_random.test.iter().map(|i| table.row(*i).to_vec());
        forecasts.insert("truth", test_rows.collect());
        let from_noise = Table::new(
            table.row_ids().to_vec(),
            table.column_ids().to_vec(),
            mixed(table, &shuffled_table, &at_random),
        );
        let from_noise = from_noise.map_err(probed)?;
        let made = forecast(&from_noise, &at_random, &factors, &known, false, key);
        forecasts.insert("shuffled", made.map_err(probed)?.rows);
        self.replay(&world, &at_random, &forecasts, key, options, &mut values)?;
        Ok(values)
    }

    /// Coverage of the closed form's intervals, calibrated on train tasks that it did not see.
    fn intervals(
        &self,
        table: &Table,
        split: &Split,
        known: &[usize],
        values: &mut Values,
    ) -> Result<()> {
        let (calibration, fitted) = split.train.split_at(self.calibration);
        let train = table.select(fitted).map_err(probed)?;
        let how = ClosedForm::default();
        let fit = how.fit(&train, Key::new(0, "fit")).map_err(probed)?;
        let unseen = |i: usize| -> Result<Vec<f32>> {
            let row = table.row(i);
            let of = known.iter().map(|j| row[*j]).collect();
            let of = Known::new(known.to_vec(), of, row.len()).map_err(probed)?;
            let made = fit.complete(&of).map_err(probed)?;
            let errors = row.iter().zip(&made).map(|(z, f)| z - f).enumerate();
            let unseen = errors.filter(|(j, _)| known.binary_search(j).is_err());
            Ok(unseen.map(|(_, e)| e).collect())
        };
        let errors =
            |rows: &[usize]| -> Result<Vec<Vec<f32>>> { rows.iter().map(|i| unseen(*i)).collect() };
        let mean = |e: &Vec<f32>| e.iter().map(|e| f64::from(*e)).sum::<f64>() / e.len() as f64;
        let (calibration, tests) = (errors(calibration)?, errors(&split.test)?);
        let means: Vec<f64> = calibration.iter().map(mean).collect();
        let of_mean = conformal::half_width(&means, self.level).map_err(probed)?;
        let of_each = conformal::example_half_width(&calibration, self.level).map_err(probed)?;
        let n = tests.len() as f64;
        let inside = tests.iter().filter(|e| mean(e).abs() <= of_mean).count();
        let share = |e: &Vec<f32>| {
            let inside = e.iter().filter(|e| f64::from(e.abs()) <= of_each).count();
            inside as f64 / e.len() as f64
        };
        values.insert(("closed", "coverage_mean"), inside as f64 / n);
        values.insert(
            ("closed", "coverage"),
            tests.iter().map(share).sum::<f64>() / n,
        );
        Ok(())
    }

    /// Learns each test task again with replay by each forecast.
    fn replay(
        &self,
        world: &World,
        split: &Split,
        forecasts: &BTreeMap<&'static str, Vec<Vec<f32>>>,
        key: Key,
        options: &Options,
        values: &mut Values,
    ) -> Result<()> {
        let pool = &world.upstream[..self.replayable];
        let ids: Vec<u64> = pool.iter().map(|i| i.id.mix()).collect();
        let size = (self.steps as usize * self.batch / self.per).max(1);
        let arms = [
            ("random", None),
            ("targeted", Some("factors")),
            ("column_means", Some("column_means")),
            ("permuted", Some("permuted")),
            ("shuffled", Some("shuffled")),
            ("truth", Some("truth")),
        ];
        let mut rises: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        for (at, task) in split.test.iter().enumerate() {
            for (arm, by) in arms {
                let weighed = match by {
                    None => vec![1.0; pool.len()],
                    Some(by) => {
                        let row = &forecasts[by][at][..self.replayable];
                        weights(row, TEMPERATURE).map_err(probed)?
                    }
                };
                if let (0, Some(_)) = (at, by) {
                    values.insert((arm, "effective"), effective_size(&weighed));
                }
                // A weight that underflows is as good as none: the draw needs enough of the others.
                let drawable = weighed.iter().map(|w| w.max(1e-300)).collect::<Vec<_>>();
                let mut rise = 0.0;
                for n in 0..self.draws {
                    let key = key.sub("replay").at(n).at(*task as u64);
                    let drawn = draw(&drawable, &ids, size, key).map_err(probed)?;
                    let ids: Vec<ExampleId> = drawn.iter().map(|j| pool[*j].id).collect();
                    rise += self.rise(world, *task, &ids, options)? / self.draws as f64;
                }
                rises.entry(arm).or_default().push(rise);
            }
        }
        let random = rises["random"].clone();
        for (arm, rises) in rises {
            let n = rises.len() as f64;
            values.insert((arm, "z"), rises.iter().sum::<f64>() / n);
            let pairs = rises.iter().zip(&random);
            let wins = pairs.filter(|(z, random)| *random - *z >= 0.05 * random.abs());
            values.insert((arm, "wins"), wins.count() as f64);
        }
        Ok(())
    }

    /// Mean rise in loss of the images that are never replayed, after a task with this replay.
    fn rise(
        &self,
        world: &World,
        task: usize,
        ids: &[ExampleId],
        options: &Options,
    ) -> Result<f64> {
        let list: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
        let recipe = self.recipe(
            world.recipe.file().seed,
            &format!(
                "method = \"planned\"\nwith = {{ ids = [{}], per = {} }}\n",
                list.join(", "),
                self.per
            ),
            self.lr,
            &format!("steps = {}", self.steps),
        )?;
        let stream = Arc::new(task_stream(&world.stream, task + 1, &world.upstream));
        let mut around = Around {
            data_dir: options.data_dir,
            progress: &mut Silent,
            stop: options.stop,
        };
        let tuned = fine_tune(&recipe, stream, &world.base, &mut around);
        let mut tuned = tuned.map_err(probed)?;
        let never = &world.upstream[self.replayable..];
        let after = measure(&mut tuned, never);
        let before = &world.base_loss[self.replayable..];
        let each = after.iter().zip(before);
        let sum: f64 = each.map(|(o, l)| f64::from(o.loss) - f64::from(*l)).sum();
        Ok(sum / never.len() as f64)
    }

    fn recipe(&self, seed: u64, method: &str, lr: f64, length: &str) -> Result<Recipe> {
        // The stream is built by hand; what stands here is what its scenario is.
        let text = format!(
            "seed = {seed}\n{method}\
             [stream]\ndataset = \"{}\"\nsplit = 1\nscenario = \"class\"\n\
             [network]\nkind = \"mlp\"\nhidden = {:?}\n\
             [train]\nlr = {lr:?}\nbatch = {}\n{length}\n\
             [evaluate]\nevery = 0\nends = \"last\"\noutcomes = false\n",
            self.dataset, self.hidden, self.batch
        );
        Ok(Recipe::parse(&text, &[])?)
    }

    fn world(&self, seed: u64, options: &Options) -> Result<World> {
        let key = Key::new(seed, "world");
        let (stream, columns) = self.stream(key, options)?;
        let base_recipe = self.recipe(
            seed,
            "",
            self.base_lr,
            &format!("epochs = {}", self.base_epochs),
        )?;
        let recipe = self.recipe(seed, "", self.lr, &format!("steps = {}", self.steps))?;
        let mut around = Around {
            data_dir: options.data_dir,
            progress: &mut Silent,
            stop: options.stop,
        };
        let fresh = Session::on(&base_recipe, Arc::new(stream.clone()))?
            .oracle
            .model;
        let base = base_model(&base_recipe, &stream, fresh, &columns, &mut around);
        let base = base.map_err(probed)?;
        let first = Arc::new(task_stream(&stream, 1, &columns));
        let before = measure_base(&recipe, first, &base, &columns).map_err(probed)?;
        let mut matrix = Association {
            recipe: String::new(),
            base: String::new(),
            tasks: stream.experiences[1..]
                .iter()
                .map(|e| e.name.clone())
                .collect(),
            examples: columns.iter().map(|i| i.id.to_string()).collect(),
            base_loss: before.iter().map(|o| o.loss).collect(),
            base_correct: Vec::new(),
            z: Vec::new(),
            wrong: Vec::new(),
        };
        for task in 1..stream.experiences.len() {
            let of_task = Arc::new(task_stream(&stream, task, &columns));
            let tuned = fine_tune(&recipe, of_task, &base, &mut around);
            let after = measure(&mut tuned.map_err(probed)?, &columns);
            let each = after.iter().zip(&before);
            matrix
                .z
                .extend(each.map(|(after, before)| after.loss - before.loss));
        }
        Ok(World {
            table: matrix.losses().map_err(probed)?,
            base_loss: matrix.base_loss,
            recipe,
            base,
            stream,
            upstream: columns,
        })
    }

    /// The base's images and every task's, as one stream; and the columns.
    fn stream(&self, key: Key, options: &Options) -> Result<(Stream, Vec<Item>)> {
        let split = ebb_data::load(&self.dataset, options.data_dir)?;
        let from = &split.train;
        let mut order: Vec<u32> = (0..from.len() as u32).collect();
        key.sub("images")
            .order(&mut order, |row| from.ids[*row as usize].mix());
        let (base, others) = order.split_at(self.base_images.min(order.len()));
        let mut pairs: Vec<(u32, u32)> =
            (0..10).flat_map(|a| (0..a).map(move |b| (b, a))).collect();
        key.sub("pairs")
            .order(&mut pairs, |(a, b)| u64::from(10 * a + b));
        pairs.truncate(self.pairs);

        let identity = |steps| Transform::new(from.shape, from.scale, steps, 0);
        let plain = identity(Vec::new())?;
        let rotated = identity(vec![Step::Rotate { degrees: 60.0 }])?;
        let halves = identity(vec![Step::Permute {
            order: half_permuted(from.features(), key.sub("pixels")),
        }])?;
        let mut pixels = Vec::new();
        from.gather(base, &plain, &mut pixels);
        let mut labels: Vec<u32> = base.iter().map(|r| from.labels[*r as usize]).collect();
        let mut ranges = vec![("base".to_owned(), 0..labels.len())];
        for (at, (a, b)) in pairs.iter().enumerate() {
            for (kind, name) in KINDS.iter().enumerate() {
                // Each task its own images, as far as there are enough.
                let key = key.sub("task").at((at * KINDS.len() + kind) as u64);
                let label = |row: &u32| from.labels[*row as usize];
                let of = others
                    .iter()
                    .copied()
                    .filter(|r| [*a, *b].contains(&label(r)));
                let mut rows: Vec<u32> = of.collect();
                key.order(&mut rows, |row| from.ids[*row as usize].mix());
                rows.truncate(self.images);
                let begin = labels.len();
                labels.extend(rows.iter().map(label));
                let transform = match kind {
                    1 => &rotated,
                    3 => &halves,
                    _ => &plain,
                };
                let first = pixels.len();
                from.gather(&rows, transform, &mut pixels);
                if kind == 2 {
                    let negative = |v: &mut f32| {
                        *v = from.scale.from_unit(1.0 - from.scale.to_unit(*v));
                    };
                    pixels[first..].iter_mut().for_each(negative);
                }
                ranges.push((format!("{b} or {a}, {name}"), begin..labels.len()));
            }
        }
        let pixels = Pixels::F32(pixels.into());
        let scale = Normalise::raw(1.0);
        let data = Dataset::new("tasks", from.shape, from.classes, pixels, labels, scale)?;
        let transform = Transform::identity(&data)?;
        let data = Arc::new(data);
        let items = |range: std::ops::Range<usize>| -> Vec<Item> {
            let item = |row: usize| Item {
                row: row as u32,
                label: data.labels[row],
                task: 0,
                id: data.ids[row],
            };
            range.map(item).collect()
        };
        let mut columns = items(0..base.len());
        key.sub("columns").order(&mut columns, |i| i.id.mix());
        columns.truncate(self.replayable + self.held_out);
        let classes: Vec<u32> = (0..from.classes as u32).collect();
        let test: Arc<[Item]> = columns[..1].into();
        let experiences = ranges
            .into_iter()
            .enumerate()
            .map(|(index, (name, range))| {
                let train: Arc<[Item]> = items(range).into();
                Experience {
                    index,
                    name,
                    task: 0,
                    classes: classes.clone(),
                    outputs: classes.clone(),
                    origins: vec![train.len()],
                    train,
                    test: test.clone(),
                }
            });
        let stream = Stream {
            spec: StreamSpec {
                dataset: self.dataset.clone(),
                ..StreamSpec::default()
            },
            experiences: experiences.collect(),
            evals: vec![EvalSet {
                name: "upstream".into(),
                task: 0,
                items: test,
            }],
            generic: Arc::default(),
            train: data.clone(),
            test: data,
            scenario: Scenario::Class,
            transforms: vec![transform],
            classes: from.classes,
            heads: 1,
        };
        Ok((stream, columns))
    }
}

/// An order in which half of the places, drawn, exchange what they hold.
fn half_permuted(n: usize, key: Key) -> Arc<[u32]> {
    let mut places = key.permutation(n);
    places.truncate(n / 2);
    let mut order: Vec<u32> = (0..n as u32).collect();
    let exchanged = key.sub("exchanged").permutation(places.len());
    let to = places.iter().zip(exchanged);
    to.for_each(|(at, from)| order[*at as usize] = places[from as usize]);
    order.into()
}

/// The table with its entries exchanged.
fn shuffled(table: &Table, key: Key) -> Result<Table> {
    let order = key.permutation(table.values().len());
    let values = order
        .iter()
        .map(|at| table.values()[*at as usize])
        .collect();
    let ids = (table.row_ids().to_vec(), table.column_ids().to_vec());
    Table::new(ids.0, ids.1, values).map_err(probed)
}

/// Train rows of `noise`, test rows of `table`.
fn mixed(table: &Table, noise: &Table, split: &Split) -> Vec<f32> {
    let row = |i: usize| match split.test.contains(&i) {
        true => table.row(i),
        false => noise.row(i),
    };
    (0..table.height())
        .flat_map(|i| row(i).iter().copied())
        .collect()
}

/// A run that failed keeps its own error; what else a forecast refuses is the study's fault.
fn probed(error: ebb_probe::Error) -> Error {
    match error {
        ebb_probe::Error::Learn(error) => Error::Learn(error),
        other => Error::Study {
            id: "S000a".to_owned(),
            reason: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_places_are_exchanged() {
        let order = half_permuted(784, Key::new(1, "pixels"));
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(i, v)| i == *v as usize));
        let moved = order
            .iter()
            .enumerate()
            .filter(|(i, v)| *i != **v as usize)
            .count();
        assert!((380..=392).contains(&moved), "{moved}");
    }

    #[test]
    fn a_shuffled_table_has_the_same_entries() {
        let t = Table::new(
            vec![0, 1],
            (0..30).collect(),
            (0..60).map(|v| v as f32).collect(),
        );
        let t = t.unwrap();
        let s = shuffled(&t, Key::new(0, "s")).unwrap();
        let mut values = s.values().to_vec();
        assert_ne!(values, t.values());
        values.sort_by(f32::total_cmp);
        assert_eq!(values, t.values());
        let split = Split::of(&t, [1]);
        assert!(split.is_err(), "one train row is too few");
    }
}
