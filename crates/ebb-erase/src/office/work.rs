//! Carrying a request out: a new run without the records, then the old one removed.

use super::{Case, FORMAT, Office};
use crate::error::{Error, Result};
use crate::exact;
use crate::method::Method;
use crate::subject::Subject;
use ebb_learn::without::{list, read_list};
use ebb_learn::{Around, Recipe, Session, found, resume_into};
use ebb_record::ledger::{Claim, Digest, Entry, Merkle, Word};
use ebb_record::{Disk, Environment, RunDir, RunView, StateMeta, Verb};
use ebb_revise::{Fate, Reached, StateRef, Traces, reach};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How records are erased.
#[derive(Clone, Debug, PartialEq)]
pub enum How {
    /// By learning again without them.
    Exact,
    /// By changing the weights.
    By(Method),
}

impl How {
    fn name(&self) -> &'static str {
        match self {
            How::Exact => "exact",
            How::By(method) => method.eraser().name(),
        }
    }

    fn claim(&self) -> Claim {
        match self {
            How::Exact => Claim::Exact,
            How::By(method) => method.eraser().claim(),
        }
    }
}

/// What was done about a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Work {
    /// Version of the format.
    pub format_version: u32,
    /// The method.
    pub method: Word,
    /// What it claims.
    pub claim: Claim,
    /// Its settings that are numbers.
    pub settings: BTreeMap<Word, f64>,
    /// The seed.
    pub seed: u64,
    /// The run that came out.
    pub out: PathBuf,
    /// The model before.
    pub before: StateRef,
    /// The model after.
    pub after: StateRef,
    /// The length of the change of the weights.
    pub norm: Option<f64>,
    /// When it was done, in seconds since 1970.
    pub done: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// Seconds that learning all of it again would have taken, as the old run was timed.
    pub retraining_seconds: Option<f64>,
    /// Peak memory of the process.
    pub peak_rss_bytes: Option<u64>,
    /// Rows forward through a network.
    pub forward_rows: u64,
    /// Rows backward.
    pub backward_rows: u64,
    /// What the records had reached in the old run.
    pub reached: Vec<Reached>,
    /// Whether the old run was removed.
    pub purged: bool,
}

fn state(meta: &StateMeta) -> Result<StateRef> {
    Ok(StateRef {
        id: Word::new(&meta.id)?,
        weights: meta.weights_hash.parse()?,
    })
}

/// The newest state of a run.
fn head(run: &Path) -> Result<StateMeta> {
    let states = RunView::load(run)?.states()?;
    states.head().cloned().ok_or_else(|| Error::Run {
        path: run.to_owned(),
        reason: "it has no state yet: `ebb resume` it first".into(),
    })
}

/// The settings of a method that are numbers, by dotted names.
fn numbers(method: &Method) -> BTreeMap<Word, f64> {
    fn walk(prefix: &str, value: &serde_json::Value, into: &mut BTreeMap<Word, f64>) {
        match value {
            serde_json::Value::Object(map) => map.iter().for_each(|(k, v)| {
                let name = match prefix.is_empty() {
                    true => k.clone(),
                    false => format!("{prefix}.{k}"),
                };
                walk(&name, v, into);
            }),
            serde_json::Value::Number(n) => {
                if let (Ok(name), Some(n)) = (Word::new(prefix), n.as_f64()) {
                    into.insert(name, n);
                }
            }
            _ => {}
        }
    }
    let mut all = BTreeMap::new();
    if let Ok(value) = serde_json::to_value(method) {
        walk("", &value, &mut all);
    }
    all
}

impl Office {
    /// The recipe of a request's run, passing over its records and those of earlier requests.
    ///
    /// # Errors
    /// When the run passes records over under another key.
    pub fn recipe_without(&self, case: &Case) -> Result<Recipe> {
        let old = Recipe::parse(&RunView::load(&case.run)?.recipe, &[])?;
        let folder = self.folder(&case.id);
        let mut names = read_list(&folder.join("names"))?;
        let key = self.keys.join("names.key");
        let mut file = folder.join("names");
        if let Some(before) = &old.file().without {
            if before.key != key {
                return Err(Error::Run {
                    path: case.run.clone(),
                    reason: format!(
                        "it passes over records named under the key `{}`: use the office with that key",
                        before.key.display()
                    ),
                });
            }
            names.extend(read_list(&before.names)?);
            file = folder.join("names-all");
            Disk::default().replace(&file, list(&names).as_bytes())?;
        }
        let quoted =
            |path: &Path| toml::Value::String(path.to_string_lossy().into_owned()).to_string();
        let sets = [
            ("without.names".to_owned(), quoted(&file)),
            ("without.key".to_owned(), quoted(&key)),
        ];
        Ok(Recipe::parse(old.text(), &sets)?)
    }

    /// How the records of a request would be learnt around.
    ///
    /// # Errors
    /// As [`exact::route`].
    pub fn route(&self, case: &Case, data_dir: &Path) -> Result<exact::Route> {
        exact::route(&case.run, &self.ids(case, data_dir)?)
    }

    /// Erases the records of a request, into a new run in `out`. A call that was cut off goes on; one
    /// that ended is not made twice.
    ///
    /// # Errors
    /// When the run cannot be read, the method fails, or the user stops.
    pub fn erase(&self, case: &Case, how: &How, out: &Path, around: &mut Around) -> Result<Work> {
        if let Some(done) = self.work(case)? {
            return Ok(done);
        }
        if case.records.count == 0 {
            return Err(Error::Request {
                reason: "it was refused: there is nothing to erase".into(),
            });
        }
        let request = case.id;
        let planned = Entry::Planned {
            request,
            records: case.records,
            method: Word::new(how.name())?,
            claim: how.claim(),
        };
        if !self.told(|e| *e == planned)? {
            self.tell(&[planned, Entry::Started { request }])?;
        }
        let begun = Instant::now();
        let recipe = self.recipe_without(case)?;
        let ids = self.ids(case, around.data_dir)?;
        let old = RunView::load(&case.run)?;
        let before = head(&case.run)?;
        let summary = match how {
            How::Exact => {
                let route = exact::route(&case.run, &ids)?;
                match begun_before(out, &recipe)? {
                    Some(dir) if dir.states().head().is_some() => resume_into(dir, around)?,
                    Some(dir) => exact::retrain(&case.run, &route, dir, around)?,
                    None => exact::retrain(&case.run, &route, fresh(out, &recipe)?, around)?,
                }
            }
            How::By(method) => self.change(case, method, &recipe, out, around)?,
        };
        let after = head(out)?;
        let (before_ref, after_ref) = (state(&before)?, state(&after)?);
        let traces = Traces::gather(&case.run, &ids)?;
        let reached = (reach(&traces).holders.into_iter())
            .map(|holder| Reached {
                kind: holder.kind,
                how: holder.how,
                name: self.names.text(&holder.path.to_string_lossy()),
                bytes: holder.bytes,
                fate: Fate::Kept,
            })
            .collect();
        let work = Work {
            format_version: FORMAT,
            method: Word::new(how.name())?,
            claim: how.claim(),
            settings: match how {
                How::Exact => BTreeMap::new(),
                How::By(method) => numbers(method),
            },
            seed: recipe.file().seed,
            out: std::path::absolute(out).unwrap_or_else(|_| out.to_owned()),
            norm: distance(
                &recipe,
                around.data_dir,
                (&case.run, &before),
                (out, &after),
            ),
            before: before_ref,
            after: after_ref,
            done: (self.clock)(),
            seconds: begun.elapsed().as_secs_f64(),
            retraining_seconds: old.summary.cost.train_seconds,
            peak_rss_bytes: ebb_record::peak_rss_bytes(),
            forward_rows: summary.cost.forward_rows.unwrap_or(0),
            backward_rows: summary.cost.backward_rows.unwrap_or(0),
            reached,
            purged: false,
        };
        let erased = Entry::Erased {
            request,
            before: work.before.weights,
            after: work.after.weights,
        };
        if !self.told(|e| *e == erased)? {
            let phase = Word::new("erase")?;
            self.tell(&[Entry::PhaseDone { request, phase }, erased])?;
        }
        self.write(&request, "work.json", &work)?;
        Ok(work)
    }

    /// Changes the weights of the old run's model, and makes that a run.
    fn change(
        &self,
        case: &Case,
        method: &Method,
        recipe: &Recipe,
        out: &Path,
        around: &mut Around,
    ) -> Result<ebb_record::Summary> {
        // What is there is whole, or is made anew: this takes no states on its way.
        if let Some(dir) = begun_before(out, recipe)? {
            drop(dir);
            if out.join("summary.json").is_file() {
                let summary = RunView::load(out)?.summary;
                if summary.finished {
                    return Ok(summary);
                }
            }
            std::fs::remove_dir_all(out).map_err(|source| Error::Io {
                action: "remove",
                path: out.to_owned(),
                source,
            })?;
        }
        let exact_instead = |reason: &str| Error::Run {
            path: case.run.clone(),
            reason: format!("{reason}: take the method `exact`"),
        };
        if recipe.file().adapter.is_some() {
            return Err(exact_instead(
                "it trains an adapter, whose weights no eraser changes yet",
            ));
        }
        let gone = self.gone(case)?;
        let mut subject = Subject::open(&case.run, &gone, around.data_dir, around.stop)?;
        method.eraser().erase(&mut subject)?;
        let model = &subject.oracle().model;
        let (weights, buffers) = (model.weights(), model.buffers().clone());
        let meter = subject.oracle().meter;
        let mut session = Session::new(recipe, around.data_dir)?;
        session.oracle.meter = meter;
        let new = &mut session.oracle.model;
        if new.set_weights(&weights).is_err() || new.set_buffers(buffers).is_err() {
            return Err(exact_instead(
                "without the records its vocabulary is another, and so is the network",
            ));
        }
        Ok(found(session, fresh(out, recipe)?, Verb::Forget)?)
    }

    /// Removes the old run of a request that was carried out, and all of it that the records had
    /// reached; what had not been reached was taken over before.
    ///
    /// # Errors
    /// When nothing was done yet, or the run cannot be removed: the same call goes on then.
    pub fn purge(&self, case: &Case) -> Result<Work> {
        let Some(mut work) = self.work(case)? else {
            return Err(Error::Request {
                reason: "it was not carried out yet: `ebb forget run` first".into(),
            });
        };
        if work.purged {
            return Ok(work);
        }
        let result = head(&work.out)?;
        if state(&result)? != work.after {
            return Err(Error::Run {
                path: work.out,
                reason: "it is not the run that the request was carried out into".into(),
            });
        }
        if case.run.exists() {
            std::fs::remove_dir_all(&case.run).map_err(|source| Error::Io {
                action: "remove",
                path: case.run.clone(),
                source,
            })?;
        }
        let purged = Entry::Purged {
            request: case.id,
            what: Word::new("run")?,
            artifacts: work.reached.len() as u64,
            bytes: work.reached.iter().map(|r| r.bytes).sum(),
            root: Merkle::new(work.reached.iter().map(|r| r.name)).root(),
        };
        if !self.told(|e| *e == purged)? {
            self.tell(&[purged])?;
        }
        work.reached.iter_mut().for_each(|r| r.fate = Fate::Purged);
        work.purged = true;
        self.write(&case.id, "work.json", &work)?;
        Ok(work)
    }
}

/// A run that was begun in `out` by this recipe.
fn begun_before(out: &Path, recipe: &Recipe) -> Result<Option<RunDir>> {
    if !out.join("recipe.toml").is_file() {
        return Ok(None);
    }
    // A run that was cut off before its first record has nothing to be viewed.
    let dir = RunDir::open(out)?;
    if Recipe::parse(&dir.recipe()?, &[])?.hash() != recipe.hash() {
        return Err(Error::Run {
            path: out.to_owned(),
            reason: "there is another run: choose another place with -o".into(),
        });
    }
    Ok(Some(dir))
}

fn fresh(out: &Path, recipe: &Recipe) -> Result<RunDir> {
    let environment = Environment::collect(Default::default(), 0);
    Ok(RunDir::create(out, recipe.text(), &environment)?)
}

/// The length of the change between two states with the tensors of `recipe`'s network.
fn distance(
    recipe: &Recipe,
    data_dir: &Path,
    old: (&Path, &StateMeta),
    new: (&Path, &StateMeta),
) -> Option<f64> {
    let session = Session::new(recipe, data_dir).ok()?;
    let layout = session.oracle.model.layout();
    let load = |(run, meta): (&Path, &StateMeta)| {
        let states = RunView::load(run).ok()?.states().ok()?;
        states.checkout(&meta.id).ok()?.weights(layout).ok()
    };
    Some(load(old)?.squared_distance(&load(new)?).sqrt())
}

/// The hash of what is left to learn from: ids of all training items, in order.
pub(super) fn data_hash(session: &Session) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("ebbinghaus v1 data that remained");
    for item in session.stream.train_items() {
        hasher.update(item.id.to_string().as_bytes());
    }
    Digest(*hasher.finalize().as_bytes())
}
