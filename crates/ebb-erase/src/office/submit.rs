//! What a request means in a run's data.

use super::{Case, FORMAT, Office, make};
use crate::error::{Error, Result};
use ebb_data::{Part, Stream};
use ebb_learn::without::list;
use ebb_learn::{Recipe, Session, language};
use ebb_record::ledger::{Entry, Merkle, RequestId};
use ebb_record::{Disk, RunView};
use ebb_revise::{Content, Decision, Match, Matches, Record, Request, Select, Why, decide, expand};
use ebb_space::ExampleId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A record that a request means, to be shown and not to be kept.
#[derive(Clone, Debug)]
pub struct Found {
    /// Who it is.
    pub id: ExampleId,
    /// Why it is meant.
    pub why: Vec<Why>,
    /// Its text, or the name of its class.
    pub excerpt: String,
}

/// What became of a request on its way in.
pub struct Submission {
    /// Its name; none where it was only looked at.
    pub id: Option<RequestId>,
    /// The records it means.
    pub found: Vec<Found>,
    /// How many records were looked at.
    pub scanned: u64,
    /// Ids that were named and are not there.
    pub missing: Vec<ExampleId>,
    /// How many are meant only because they are like what was named.
    pub near_duplicates: u64,
    /// Why nothing will be done, if so.
    pub refused: Option<String>,
}

/// A record with what it holds.
struct Owned {
    id: ExampleId,
    label: u32,
    text: Option<String>,
    vector: Vec<f32>,
    class: String,
}

/// The stream of a recipe with all of its records, also those that it passes over.
pub(super) fn everything(recipe: &Recipe, data_dir: &Path) -> Result<Stream> {
    let recipe = bare(recipe)?;
    let session = Session::new(&recipe, data_dir)?;
    Ok(session.stream.as_ref().clone())
}

/// A recipe without its table `without`.
pub(super) fn bare(recipe: &Recipe) -> Result<Recipe> {
    let mut file: toml::Table = toml::from_str(recipe.text()).map_err(|e| Error::Request {
        reason: format!("the run's recipe is not readable: {e}"),
    })?;
    file.remove("without");
    Ok(Recipe::parse(&file.to_string(), &[])?)
}

/// Every record of a run, once.
fn records(recipe: &Recipe, data_dir: &Path, with_vectors: bool) -> Result<Vec<Owned>> {
    if recipe.file().language.is_some() {
        let texts = language::examples(&bare(recipe)?)?;
        let owned = |example: ebb_text::Example| Owned {
            id: example.id,
            label: 0,
            text: Some(words(&example.body)),
            vector: Vec::new(),
            class: String::new(),
        };
        return Ok(texts.into_iter().map(owned).collect());
    }
    let stream = everything(recipe, data_dir)?;
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    let parts = [
        (
            Part::Train,
            stream.train_items().copied().collect::<Vec<_>>(),
        ),
        (
            Part::Test,
            stream
                .evals
                .iter()
                .flat_map(|e| e.items.iter().copied())
                .collect(),
        ),
    ];
    for (part, items) in parts {
        let data = match part {
            Part::Train => &stream.train,
            Part::Test => &stream.test,
        };
        for item in items {
            if !seen.insert(item.id.with_view(0)) {
                continue;
            }
            let mut vector = Vec::new();
            if with_vectors {
                stream.gather(part, &[item], &mut vector);
            }
            let label = data.labels[item.row as usize];
            all.push(Owned {
                id: item.id.with_view(0),
                label,
                text: None,
                vector,
                class: format!("class {label}"),
            });
        }
    }
    Ok(all)
}

/// All that a text says.
fn words(body: &ebb_text::Body) -> String {
    match body {
        ebb_text::Body::Document(text) => text.clone(),
        ebb_text::Body::Completion { prompt, completion } => format!("{prompt}{completion}"),
        ebb_text::Body::Chat(messages) => {
            let said = messages.iter().filter_map(|m| m.content.as_str());
            said.collect::<Vec<_>>().join("\n")
        }
    }
}

impl Office {
    /// Takes a request in (TOML, or JSON where it begins with a brace) that is about the run in `run`,
    /// or only looks what it means.
    ///
    /// # Errors
    /// When the request, the run or its data cannot be read.
    pub fn submit(
        &self,
        text: &str,
        run: &Path,
        approver: Option<&str>,
        only_look: bool,
        data_dir: &Path,
    ) -> Result<Submission> {
        let request = match text.trim_start().starts_with('{') {
            true => Request::from_json(text)?,
            false => Request::from_toml(text)?,
        };
        let recipe = Recipe::parse(&RunView::load(run)?.recipe, &[])?;
        let by_values = |s: &Select| matches!(s, Select::Vector { .. });
        let all = records(&recipe, data_dir, request.forget.iter().any(by_values))?;
        let lent = |owned: &'_ Owned| -> (ExampleId, u32) { (owned.id, owned.label) };
        let matches = expand(
            &request,
            all.iter().map(|owned| {
                let (id, label) = lent(owned);
                let content = match &owned.text {
                    Some(text) => Content::Text(text),
                    None => Content::Vector(&owned.vector),
                };
                Record { id, label, content }
            }),
        )?;
        let now = (self.clock)();
        let decision = decide(&request, &matches, now, &BTreeMap::new());
        let mut submission = shown(&matches, &all, &decision);
        if only_look {
            return Ok(submission);
        }
        let (id, entry) = request.submitted(&self.names, text, now);
        let records: &[ExampleId] = match &decision {
            Decision::Accepted { records, .. } => records,
            Decision::Refused { .. } => &[],
        };
        let kept_by_law = match &decision {
            Decision::Accepted { kept, .. } => kept.len() as u64,
            Decision::Refused { .. } => 0,
        };
        let names: BTreeSet<_> = records.iter().map(|id| self.names.record(id)).collect();
        let folder = self.folder(&id);
        make(&folder)?;
        Disk::default().replace(&folder.join("names"), list(&names).as_bytes())?;
        let mut entries = vec![entry];
        entries.extend(decision.refusals(id));
        let Entry::Submitted { authority, .. } = entries[0] else {
            return Err(Error::Request {
                reason: "a request begins with being submitted".into(),
            });
        };
        let case = Case {
            format_version: FORMAT,
            id,
            run: std::path::absolute(run).unwrap_or_else(|_| run.to_owned()),
            received: now,
            ground: request.ground.kind(),
            deadline: request.deadline,
            authority,
            records: Merkle::new(names).records(),
            near_duplicates: matches.near_duplicates(),
            kept_by_law,
            approver: approver.map(str::to_owned),
        };
        // The ledger first: what it does not know of was never asked.
        self.tell(&entries)?;
        self.write(&id, "request.json", &case)?;
        submission.id = Some(id);
        Ok(submission)
    }
}

fn shown(matches: &Matches, all: &[Owned], decision: &Decision) -> Submission {
    let excerpt = |found: &Match| {
        let owned = all.iter().find(|o| o.id == found.id);
        owned.map_or_else(String::new, |o| {
            o.text.clone().unwrap_or_else(|| o.class.clone())
        })
    };
    Submission {
        id: None,
        found: matches
            .records
            .iter()
            .map(|m| Found {
                id: m.id,
                why: m.why.clone(),
                excerpt: excerpt(m),
            })
            .collect(),
        scanned: matches.scanned,
        missing: matches.missing.clone(),
        near_duplicates: matches.near_duplicates(),
        refused: match decision {
            Decision::Refused { says, .. } => Some(says.clone()),
            Decision::Accepted { .. } => None,
        },
    }
}
