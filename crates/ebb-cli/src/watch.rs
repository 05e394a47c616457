//! Runs, searches and studies on standard error: a bar where there is a terminal, and a line now and then.

use ebb_learn::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// The bar is redrawn at most this often.
const REDRAW: Duration = Duration::from_millis(80);
/// A longer stream gets about this many lines.
const LINES: usize = 20;

/// Watches a run.
pub struct Watch {
    bar: Option<ProgressBar>,
    lines: bool,
    /// The run, where there are several.
    name: String,
    experiences: usize,
    names: Vec<String>,
    drawn: Instant,
    colour: bool,
}

impl Watch {
    /// Someone who looks at standard error, or (`quiet`) does not. `name` is the run's, where
    /// there are several.
    pub fn new(quiet: bool, colour: bool, name: &str) -> Watch {
        let terminal = std::io::stderr().is_terminal();
        Watch {
            bar: (terminal && !quiet).then(ProgressBar::hidden),
            lines: !quiet,
            name: name.to_owned(),
            experiences: 0,
            names: Vec::new(),
            drawn: Instant::now(),
            colour,
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            _ if !self.lines => {}
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }
}

impl Progress for Watch {
    fn begin(&mut self, experiences: usize, step: u64, steps: u64) {
        self.experiences = experiences;
        let Some(bar) = &self.bar else {
            return;
        };
        let colours = if self.colour { ".cyan/dim" } else { "" };
        let template = format!(
            "{{prefix}} {{bar:24{colours}}} {{percent:>3}} %  {{pos}} of {{len}} steps  {{per_sec}}  {{msg}}  {{eta}} left"
        );
        let style = ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key(
                "per_sec",
                |state: &indicatif::ProgressState, w: &mut dyn std::fmt::Write| {
                    let _ = write!(w, "{:.0} steps/s", state.per_sec());
                },
            )
            .progress_chars("━━─");
        bar.set_style(style);
        bar.set_length(steps);
        bar.set_position(step);
        bar.reset_eta();
        bar.set_draw_target(ProgressDrawTarget::stderr());
    }

    fn experience(&mut self, index: usize, name: &str, _steps: u64) {
        self.names.resize(index, String::new());
        self.names.push(name.to_owned());
        if let Some(bar) = &self.bar {
            let of = format!("{}experience {}/{}", self.name, index + 1, self.experiences);
            bar.set_prefix(of);
        }
    }

    fn step(&mut self, step: u64, loss: f64, _rows: usize) {
        let Some(bar) = &self.bar else {
            return;
        };
        if self.drawn.elapsed() >= REDRAW {
            self.drawn = Instant::now();
            // The number of steps is an estimate where a memory is mixed into the data.
            if bar.length().is_some_and(|length| length < step) {
                bar.set_length(step);
            }
            bar.set_message(format!("loss {loss:.3}"));
            bar.set_position(step);
        }
    }

    fn column(&mut self, after: usize, _accuracies: &[f64], mean: f64) {
        let (done, all) = (after + 1, self.experiences);
        let every = all.div_ceil(LINES).max(1);
        if done % every == 0 || done == all {
            let name = self.names.get(after).map_or("", String::as_str);
            let width = all.to_string().len();
            self.line(&format!(
                "{}experience {done:>width$}/{all}  {:<14}  accuracy over what was seen {:5.1} %",
                self.name,
                name.replace(char::is_control, "\u{fffd}"),
                100.0 * mean
            ));
        }
    }

    fn note(&mut self, text: &str) {
        self.line(text);
    }

    fn end(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // After an error the bar would stay in the way of the message.
        if let Some(bar) = self.bar.as_ref().filter(|bar| !bar.is_finished()) {
            bar.finish_and_clear();
        }
    }
}

/// Watches numbers of a model that are done, from several threads.
pub struct Numbers {
    bar: ProgressBar,
}

impl Numbers {
    /// Someone who looks at standard error where it is a terminal, or (`quiet`) does not.
    pub fn new(all: usize, quiet: bool) -> Numbers {
        if quiet || !std::io::stderr().is_terminal() {
            return Numbers {
                bar: ProgressBar::hidden(),
            };
        }
        let bar = ProgressBar::new(all as u64);
        let template = "{bar:24} {percent:>3} %  {human_pos} of {human_len} numbers  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━━─"));
        }
        Numbers { bar }
    }

    /// So many more are done.
    pub fn more(&self, numbers: usize) {
        self.bar.inc(numbers as u64);
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Watches many runs: a study or a search.
pub struct RunsWatch {
    bar: Option<ProgressBar>,
    ahead: usize,
    ended: usize,
}

impl RunsWatch {
    /// Someone who looks at standard error.
    pub fn new() -> RunsWatch {
        let terminal = std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let bar = ProgressBar::new(0);
            let template = "{prefix} {bar:24} {pos} of {len} runs  {msg}  {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━━─"));
            }
            bar
        });
        RunsWatch {
            bar,
            ahead: 0,
            ended: 0,
        }
    }

    /// A study or a search begins.
    pub fn begin(&mut self, id: &str, title: &str) {
        match &self.bar {
            Some(bar) => bar.set_prefix(id.to_owned()),
            None => eprintln!("{id}: {title}"),
        }
    }

    fn more(&mut self, runs: usize) {
        self.ahead += runs;
        if let Some(bar) = &self.bar {
            bar.set_length(self.ahead as u64);
        }
    }

    /// A run ended; `what` it was.
    fn one(&mut self, what: String) {
        self.ended += 1;
        if let Some(bar) = &self.bar {
            bar.set_message(what);
            bar.set_position(self.ended as u64);
        } else if self.ended == self.ahead {
            eprintln!("{} of {} runs", self.ended, self.ahead);
        }
    }
}

impl ebb_study::Watch for RunsWatch {
    fn ahead(&mut self, runs: usize) {
        self.more(runs);
    }

    fn run(&mut self, run: &ebb_study::Ended) {
        let trial = run
            .trial
            .as_ref()
            .map_or_else(String::new, |t| format!(" ({t})"));
        self.one(format!("{} seed {}{trial}", run.arm, run.seed));
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }
}

impl ebb_learn::tune::Watch for RunsWatch {
    fn ahead(&mut self, runs: usize) {
        self.more(runs);
    }

    fn run(&mut self, trial: &ebb_learn::tune::Trial, seed: u64, _value: Option<f64>) {
        self.one(format!("{} seed {seed}", trial.words()));
    }
}

impl Drop for RunsWatch {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
