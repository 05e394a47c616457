//! `ebb audit`: whether what was promised of a run came true.

use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::out;
use ebb_data::Item;
use ebb_learn::{Recipe, Session};
use ebb_probe::build::read_matrix;
use ebb_probe::plan::{Plan, audit};
use ebb_probe::tasks::{measure, task_stream};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Check a run against the forecast it was planned by
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Audit {
    /// Score the forecast of a run that `ebb learn --plan` made
    #[arg(long, value_name = "RUN")]
    forecast: PathBuf,
    /// The folder of the matrix it was made from
    #[arg(long, value_name = "DIR")]
    matrix: PathBuf,
    /// Print JSON, and nothing else on standard output
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
The forecast is that of the task without replay; a run that replayed should do better. Scored are
the examples of the matrix that were neither measured for the forecast nor replayed.

Examples:
  ebb audit --forecast runs/planned-1 --matrix matrix";

impl Audit {
    /// Does it.
    ///
    /// # Errors
    /// When the run has no plan, or run and matrix do not belong together.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        let plan = Plan::read(&self.forecast.join("plan.json"))?;
        let matrix = read_matrix(&self.matrix)?;
        let view = ebb_record::RunView::load(&self.forecast)?;
        let text = std::fs::read_to_string(self.forecast.join("recipe.toml"));
        let text = text.map_err(|source| Error::Io {
            action: "read",
            path: self.forecast.join("recipe.toml"),
            source,
        })?;
        let recipe = Recipe::parse(&text, &[])?;
        let mut session = Session::new(&recipe, &around.data_dir_or_here())?;
        let states = view.states()?;
        let head = states.head().map(|s| s.id.clone()).ok_or_else(|| {
            Error::request(
                "the run has no state yet",
                "`ebb resume` goes on with a run that was stopped",
            )
        })?;
        session.restore(&states.checkout(&head)?)?;
        let items = session.stream.experiences[0].train.iter();
        let items: HashMap<String, Item> = items.map(|i| (i.id.to_string(), *i)).collect();
        let found = matrix.examples.iter().map(|e| {
            items.get(e).copied().ok_or_else(|| {
                Error::request(
                    format!("the run's first experience has no example `{e}` of the matrix"),
                    "give the matrix that the run's plan was made from",
                )
            })
        });
        let upstream: Vec<Item> = found.collect::<Result<_>>()?;
        session.stream = Arc::new(task_stream(&session.stream, 1, &upstream));
        let after: Vec<f32> = measure(&mut session, &upstream)
            .iter()
            .map(|o| o.loss)
            .collect();
        let audit = audit(&matrix, &plan, &after)?;
        if self.json {
            out::json(&audit)?;
            return Ok(Ended::Done);
        }
        let inside = (audit.forecast.low..=audit.forecast.high).contains(&audit.measured);
        out::print(&format!(
            "{}: {} examples neither measured before nor replayed\n\
             mean rise  forecast {:+.4} ({:+.4} to {:+.4}) without replay, measured {:+.4}{}\n\
             examples   RMSE {:.4}, of the examples' means {:.4}; {:.1} % inside their {:.0} % intervals\n",
            audit.task,
            audit.examples,
            audit.forecast.value,
            audit.forecast.low,
            audit.forecast.high,
            audit.measured,
            match (inside, audit.measured < audit.forecast.low) {
                (true, _) => ", inside the interval",
                (false, true) => ", below the interval",
                (false, false) => ", above the interval",
            },
            audit.rmse,
            audit.rmse_means,
            100.0 * audit.coverage,
            100.0 * audit.level
        ))?;
        Ok(Ended::Done)
    }
}
