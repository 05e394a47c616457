//! The road of a request: submitted, planned, carried out, verified, purged, certified.
//!
//! An office is a ledger with a folder for each request beside it; its keys lie elsewhere:
//!
//! ```text
//! OFFICE/entries.jsonl, head     the ledger: what was asked and done, without content
//! OFFICE/requests/ID/
//!   request.json                 ground, deadline, the run, how many records
//!   names                        the records, by names that only the key tells
//!   work.json                    what was done, once it is
//!   verified.json                what was measured of the result
//!   certificate.json, .html      signed
//! KEYS/names.key, signing.key    whoever holds these holds the office
//! ```
//! No file of it holds content, or ids that could be computed from content without the key. Every step
//! is written when it is done and is not done twice: after a crash the same call goes on.

mod certify;
mod submit;
mod verify;
mod work;

pub use certify::Certifying;
pub use submit::{Found, Submission};
pub use verify::{Verified, Verifying};
pub use work::{How, Work};

use crate::error::{Error, Result};
use ebb_learn::Recipe;
use ebb_learn::without::read_list;
use ebb_record::ledger::{Digest, Entry, Ground, Head, Ledger, NameKey, Records, RequestId};
use ebb_record::{Disk, RunView};
use ebb_space::ExampleId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Version of the files of a request.
const FORMAT: u32 = 1;

/// A place where requests are carried out.
pub struct Office {
    directory: PathBuf,
    keys: PathBuf,
    names: NameKey,
    clock: fn() -> u64,
}

/// A request, as it is kept until it is done and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Case {
    /// Version of the format.
    pub format_version: u32,
    /// Its name.
    pub id: RequestId,
    /// The run that it is about.
    pub run: PathBuf,
    /// When it came in, in seconds since 1970.
    pub received: u64,
    /// Why.
    pub ground: Ground,
    /// By when it must be done.
    pub deadline: Option<u64>,
    /// On whose authority, under the key of names.
    pub authority: Digest,
    /// Its records.
    pub records: Records,
    /// How many of them were found only because they are like what was named.
    pub near_duplicates: u64,
    /// How many were meant and are kept by law.
    pub kept_by_law: u64,
    /// Who approved it.
    pub approver: Option<String>,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It came in, and nothing was done yet.
    Submitted,
    /// It was refused.
    Refused,
    /// The records were erased; what they had reached is still there.
    Erased,
    /// And that was removed.
    Purged,
    /// A certificate was signed.
    Certified,
}

impl Office {
    /// Opens the office in `directory` with the keys in `keys`; where there is none, it is founded, with
    /// a key of names of its own.
    ///
    /// # Errors
    /// When a ledger is there without its key, or neither can be written.
    pub fn open(directory: &Path, keys: &Path, clock: fn() -> u64) -> Result<Office> {
        let path = keys.join("names.key");
        let founded = directory.join("entries.jsonl").is_file();
        let names = match (path.is_file(), founded) {
            (true, _) => NameKey::load(&path)?,
            (false, true) => {
                return Err(Error::Office {
                    path: directory.to_owned(),
                    reason: format!(
                        "its key of names is not at `{}`: say where with --keys",
                        path.display()
                    ),
                });
            }
            (false, false) => {
                make(keys)?;
                NameKey::create(&path)?
            }
        };
        if !founded {
            make(directory)?;
            drop(Ledger::create(directory, &names, clock())?);
        }
        make(&directory.join("requests"))?;
        // Elsewhere in the system paths are taken as they are; a case outlives the working directory.
        let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Office {
            directory: whole(directory),
            keys: whole(keys),
            names,
            clock,
        })
    }

    /// Where the ledger lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Every request, oldest first.
    ///
    /// # Errors
    /// When a file of one cannot be read.
    pub fn cases(&self) -> Result<Vec<(Case, Stage)>> {
        let mut all = Vec::new();
        let folder = self.directory.join("requests");
        let io = |source| Error::Io {
            action: "read",
            path: folder.clone(),
            source,
        };
        for entry in std::fs::read_dir(&folder).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            if let Ok(id) = name.to_string_lossy().parse() {
                let case = self.case(&id)?;
                let stage = self.stage(&case)?;
                all.push((case, stage));
            }
        }
        all.sort_by_key(|(case, _)| (case.received, case.id));
        Ok(all)
    }

    /// The one request whose name begins with `prefix`.
    ///
    /// # Errors
    /// [`Error::Request`] where there is none, or several.
    pub fn find(&self, prefix: &str) -> Result<Case> {
        let all = self.cases()?;
        let mut fits = all
            .iter()
            .filter(|(c, _)| c.id.to_string().starts_with(prefix));
        match (fits.next(), fits.next()) {
            (Some((case, _)), None) => Ok(case.clone()),
            (None, _) => Err(Error::Request {
                reason: format!("there is no request `{prefix}`: `ebb forget list` shows them"),
            }),
            _ => Err(Error::Request {
                reason: format!("several requests begin with `{prefix}`: give more of its name"),
            }),
        }
    }

    fn case(&self, id: &RequestId) -> Result<Case> {
        self.read(id, "request.json")?.ok_or_else(|| Error::Request {
            reason: format!("the folder of the request {id} has no `request.json`: its submission was cut off; submit it again"),
        })
    }

    /// How far a request is.
    ///
    /// # Errors
    /// When a file of it cannot be read.
    pub fn stage(&self, case: &Case) -> Result<Stage> {
        if self.folder(&case.id).join("certificate.json").is_file() {
            return Ok(Stage::Certified);
        }
        Ok(match self.read::<Work>(&case.id, "work.json")? {
            Some(work) if work.purged => Stage::Purged,
            Some(_) => Stage::Erased,
            None if case.records.count == 0 => Stage::Refused,
            None => Stage::Submitted,
        })
    }

    /// What was done about a request, if it was.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn work(&self, case: &Case) -> Result<Option<Work>> {
        self.read(&case.id, "work.json")
    }

    /// The folder of a request.
    pub fn folder(&self, id: &RequestId) -> PathBuf {
        self.directory.join("requests").join(id.to_string())
    }

    /// Whether a record is one of a request's.
    ///
    /// # Errors
    /// When its names cannot be read.
    pub fn gone(&self, case: &Case) -> Result<impl Fn(&ExampleId) -> bool + '_> {
        let names = read_list(&self.folder(&case.id).join("names"))?;
        Ok(move |id: &ExampleId| names.contains(&self.names.record(id)))
    }

    /// The ids of a request's records, as the run's data has them. Nothing keeps them: they are found
    /// anew among all records each time.
    fn ids(&self, case: &Case, data_dir: &Path) -> Result<Vec<ExampleId>> {
        let gone = self.gone(case)?;
        let recipe = Recipe::parse(&RunView::load(&case.run)?.recipe, &[])?;
        let stream = submit::everything(&recipe, data_dir)?;
        let test = stream.evals.iter().flat_map(|e| e.items.iter());
        let all = stream
            .train_items()
            .chain(stream.generic.iter())
            .chain(test);
        let base = |id: ExampleId| id.with_view(0);
        let ids: BTreeSet<ExampleId> = all.map(|i| i.id).filter(|id| gone(id)).map(base).collect();
        Ok(ids.into_iter().collect())
    }

    /// Adds entries to the ledger and acknowledges them; returns its head.
    fn tell(&self, entries: &[Entry]) -> Result<Head> {
        let mut ledger = Ledger::open(&self.directory)?;
        for entry in entries {
            ledger.append((self.clock)(), entry)?;
        }
        Ok(ledger.commit()?)
    }

    /// Whether the ledger has an entry that `is` knows.
    fn told(&self, is: impl Fn(&Entry) -> bool) -> Result<bool> {
        let mut found = false;
        ebb_record::ledger::for_each(&self.directory, |_, _, entry| {
            found |= is(&entry);
            Ok(())
        })?;
        Ok(found)
    }

    fn read<T: DeserializeOwned>(&self, id: &RequestId, name: &str) -> Result<Option<T>> {
        let path = self.folder(id).join(name);
        if !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|e| Error::Office {
                path,
                reason: format!("it is not readable ({e}): restore it from a copy"),
            })
    }

    fn write(&self, id: &RequestId, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.folder(id).join(name);
        let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::Office {
            path: path.clone(),
            reason: format!("it cannot be written: {e}"),
        })?;
        text.push('\n');
        Ok(Disk::default().replace(&path, text.as_bytes())?)
    }
}

fn make(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(|source| Error::Io {
        action: "make",
        path: directory.to_owned(),
        source,
    })
}
