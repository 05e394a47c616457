//! Where the records of a run go: into its directory, or into memory for studies.

use crate::error::Result;
use ebb_record::{Logs, Record, RunDir, RunView, Summary};
use ebb_space::ExampleId;
use std::collections::HashMap;

/// A run's records on their way out.
pub struct Recorder {
    run: Option<(RunDir, Logs)>,
    /// Every record, when there is no directory.
    kept: Vec<Record>,
    segments: HashMap<usize, String>,
}

impl Recorder {
    /// Records into `run`.
    ///
    /// # Errors
    /// When the logs cannot be opened.
    pub fn to_directory(run: RunDir) -> Result<Self> {
        let logs = run.logs()?;
        Ok(Self {
            run: Some((run, logs)),
            kept: Vec::new(),
            segments: HashMap::new(),
        })
    }

    /// Keeps records in memory.
    pub fn in_memory() -> Self {
        Self {
            run: None,
            kept: Vec::new(),
            segments: HashMap::new(),
        }
    }

    /// The directory and its logs, if there is one.
    pub fn run(&mut self) -> Option<(&mut RunDir, &mut Logs)> {
        self.run.as_mut().map(|(r, l)| (r, l))
    }

    /// The hash of the weights in the newest state, if there is one.
    pub fn head_hash(&self) -> Option<String> {
        let (run, _) = self.run.as_ref()?;
        run.states().head().map(|s| s.weights_hash.clone())
    }

    /// Adds a record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, record: Record) -> Result<()> {
        match &mut self.run {
            Some((_, logs)) => logs.records.append(&record)?,
            None => self.kept.push(record),
        }
        Ok(())
    }

    /// Adds the outcome of each example of a test set.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn outcomes(
        &mut self,
        step: u64,
        after: i32,
        set: usize,
        ids: &[ExampleId],
        loss: &[f32],
        correct: &[bool],
    ) -> Result<()> {
        if let Some((_, logs)) = &mut self.run {
            logs.outcomes
                .append(step, after, set as u32, ids, loss, correct)?;
        }
        Ok(())
    }

    /// The lineage segment that lists the examples of `experience`, written once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn segment(
        &mut self,
        experience: usize,
        ids: impl FnOnce() -> Vec<ExampleId>,
    ) -> Result<Option<String>> {
        let Some((_, logs)) = &mut self.run else {
            return Ok(None);
        };
        if let Some(name) = self.segments.get(&experience) {
            return Ok(Some(name.clone()));
        }
        let name = logs.lineage.segment(&ids())?;
        self.segments.insert(experience, name.clone());
        Ok(Some(name))
    }

    /// Closes a run whose last state is committed, and says what it came to.
    ///
    /// # Errors
    /// When the directory cannot be finished.
    pub fn finish(self) -> Result<Summary> {
        let Some((mut run, mut logs)) = self.run else {
            return Ok(Summary::from_records(&self.kept)?);
        };
        logs.records.flush()?;
        // Through the view: a run killed while it was being finished has sealed some already.
        let records = RunView::load(run.root())?.records()?;
        let summary = Summary::from_records(&records)?;
        run.finish(logs, &summary)?;
        Ok(summary)
    }
}
