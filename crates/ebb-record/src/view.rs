//! Reading a run: for the report, for studies, for comparisons.

use std::path::{Path, PathBuf};

use crate::environment::{ENVIRONMENT_VERSION, Environment};
use crate::error::Result;
use crate::json::read_json;
use crate::lineage::Lineage;
use crate::outcomes::{self, Outcomes, read_outcomes};
use crate::outcomes_parquet::read_outcomes_parquet;
use crate::records::{Record, read_records};
use crate::records_parquet::read_records_parquet;
use crate::run::{
    ENVIRONMENT, LINEAGE, OUTCOMES, OUTCOMES_PARQUET, RECORDS, RECORDS_PARQUET, SEGMENTS, STATES,
    SUMMARY, read_recipe,
};
use crate::states::States;
use crate::summary::{SUMMARY_VERSION, Summary};

/// Reads a run, also while it is being written. Takes no lock and changes nothing.
#[derive(Clone, Debug)]
pub struct RunView {
    root: PathBuf,
    /// What the run came to; [`Summary::finished`] says whether that is final.
    pub summary: Summary,
    /// The recipe as resolved.
    pub recipe: String,
    /// The machine and the program.
    pub environment: Environment,
}

impl RunView {
    /// Loads a run: its summary if it is finished, and otherwise what its records so far tell.
    ///
    /// # Errors
    /// [`Error::NotARun`](crate::Error::NotARun), [`Error::Newer`](crate::Error::Newer), [`Error::Damaged`](crate::Error::Damaged), [`Error::Io`](crate::Error::Io).
    pub fn load(root: &Path) -> Result<RunView> {
        let recipe = read_recipe(root)?;
        let environment = read_json(&root.join(ENVIRONMENT), ENVIRONMENT_VERSION)?;
        let empty = Summary::default();
        let mut view = RunView {
            root: root.into(),
            summary: empty,
            recipe,
            environment,
        };
        let path = root.join(SUMMARY);
        view.summary = if path.is_file() && !root.join(RECORDS).exists() {
            read_json(&path, SUMMARY_VERSION)?
        } else {
            Summary::from_records(&view.records()?)?
        };
        Ok(view)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All whole records, in order.
    ///
    /// # Errors
    /// [`Error::Newer`](crate::Error::Newer), [`Error::Damaged`](crate::Error::Damaged), [`Error::Io`](crate::Error::Io); so for the methods below.
    pub fn records(&self) -> Result<Vec<Record>> {
        let (sealed, running) = (self.root.join(RECORDS_PARQUET), self.root.join(RECORDS));
        let (mut all, segments) = if sealed.exists() {
            read_records_parquet(&sealed)?
        } else {
            (Vec::new(), 0)
        };
        if running.exists() {
            let new = read_records(&running)?;
            if new.segment >= segments {
                all.extend(new.records);
            }
        }
        Ok(all)
    }

    /// All evaluations example by example, in order.
    ///
    /// # Errors
    /// See [`records`](RunView::records).
    pub fn outcomes(&self) -> Result<Vec<Outcomes>> {
        let (sealed, running) = (self.root.join(OUTCOMES_PARQUET), self.root.join(OUTCOMES));
        let (mut all, segments) = if sealed.exists() {
            read_outcomes_parquet(&sealed)?
        } else {
            (Vec::new(), 0)
        };
        if running.exists() && outcomes::segment_of(&running)? >= segments {
            all.extend(read_outcomes(&running)?);
        }
        Ok(all)
    }

    /// The chain of states.
    ///
    /// # Errors
    /// See [`records`](RunView::records).
    pub fn states(&self) -> Result<States> {
        States::view(&self.root.join(STATES))
    }

    /// The lineage.
    ///
    /// # Errors
    /// See [`records`](RunView::records).
    pub fn lineage(&self) -> Result<Lineage> {
        Lineage::read(&self.root.join(LINEAGE), &self.root.join(SEGMENTS))
    }
}
