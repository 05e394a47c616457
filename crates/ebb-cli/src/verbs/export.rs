//! `ebb export`: a run's language model as a folder that others load.

use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::out;
use crate::place::is_run;
use crate::verbs::states::resolve;
use ebb_net::Network;
use ebb_record::RunDir;
use std::path::PathBuf;

/// Write the language model of a run as a folder that `transformers` loads
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Export {
    /// The run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The folder to write; it must not be there yet
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The state whose weights are written: an id or its beginning; left out: the present one
    #[arg(long, value_name = "ID")]
    state: Option<String>,
    /// Write the adapter alone, as PEFT does
    #[arg(long)]
    adapter: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
The folder holds config.json, the weights in 32-bit floats, and the tokenizer.
`AutoModelForCausalLM.from_pretrained(FOLDER)` gives the same logits.

Examples:
  ebb export runs/er-1 taught
  ebb states runs/er-1                       which states there are
  ebb export runs/er-1 before --state 3f2a
  ebb export runs/lora-1 small --adapter     for PeftModel.from_pretrained
  ebb score taught --set general-v1";

impl Export {
    /// Does it.
    ///
    /// # Errors
    /// When the run trained no language model or cannot be read, or the folder not be written.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        if !is_run(&self.run) {
            return Err(Error::request(
                format!("`{}` is no run", self.run.display()),
                "give a directory that `ebb learn` wrote; `ebb runs` lists them",
            ));
        }
        let state = match &self.state {
            None => None,
            Some(asked) => Some(resolve(RunDir::open(&self.run)?.states(), asked)?),
        };
        let data_dir = around.data_dir()?;
        let model = ebb_learn::language::of_run(&self.run, state.as_deref(), &data_dir)?;
        let parameters = match self.adapter {
            true => {
                model.save_adapter(&self.folder, None)?;
                model.model.layout().len()
            }
            false => {
                model.save(&self.folder)?;
                model.decoder.layout().len()
            }
        };
        if self.json {
            out::json(&serde_json::json!({
                "folder": self.folder,
                "parameters": parameters,
            }))?;
        } else {
            let more = if self.adapter {
                " of the adapter"
            } else {
                " and the tokenizer"
            };
            out::print(&format!(
                "wrote {parameters} parameters{more} into {}",
                self.folder.display()
            ))?;
        }
        Ok(Ended::Done)
    }
}
