//! From a run directory to what a page is drawn from.

use std::path::Path;

use ebb_record::{Environment, Record, Replay, Result, RunView, StateRecord, Summary};

use crate::data::{Cost, Curves, Experience, RunData, StateLink, Status};
use crate::format;

impl RunData {
    /// Reads a run directory, finished or not; nothing in it is changed.
    ///
    /// # Errors
    /// Those of [`RunView::load`] and [`RunView::records`].
    pub fn load(root: &Path) -> Result<RunData> {
        RunData::from_view(&RunView::load(root)?)
    }

    /// Takes from a run what a page shows. The curves come from the records, not from the
    /// summary, which thins long ones and could lose the lowest point.
    ///
    /// # Errors
    /// Those of [`RunView::records`].
    pub fn from_view(view: &RunView) -> Result<RunData> {
        let records = view.records()?;
        let replay = Replay::of(&records)?;
        let summary = &view.summary;
        let step = last_step(&records).max(replay.curves.steps.last().copied().unwrap_or(0));
        Ok(RunData {
            status: status(summary, &replay, step),
            experiences: experiences(summary, &replay),
            protocol: protocol(summary, &replay),
            curves: Curves {
                steps: replay.curves.steps,
                sets: replay.curves.sets,
                starts: replay.curves.starts,
            },
            ..told_by_summary(view)
        })
    }

    /// Reads what the summary of a finished run tells, which is all that a comparison needs: no
    /// curves, and quick where there are many runs. An unfinished run is read as by
    /// [`load`](RunData::load).
    ///
    /// # Errors
    /// Those of [`load`](RunData::load).
    pub fn outline(root: &Path) -> Result<RunData> {
        let view = RunView::load(root)?;
        match view.summary.finished {
            true => Ok(told_by_summary(&view)),
            false => RunData::from_view(&view),
        }
    }
}

fn told_by_summary(view: &RunView) -> RunData {
    let summary = &view.summary;
    RunData {
        name: name(view),
        method: summary.method.clone(),
        stream: summary.stream.clone(),
        scenario: summary.scenario.clone(),
        network: summary.network.clone(),
        seed: summary.seed,
        recipe_id: summary.recipe_id.clone(),
        status: Status::Finished,
        experiences: summary.experiences.iter().map(Experience::named).collect(),
        sets: summary.sets.clone(),
        initial: summary.initial.clone(),
        matrix: summary.matrix.clone(),
        numbers: summary.numbers.clone(),
        cost: cost(&summary.cost),
        protocol: Vec::new(),
        curves: Curves::default(),
        accepted: summary.accepted.clone(),
        recipe: view.recipe.clone(),
        environment: environment(&view.environment, &summary.code_version),
        states: states(&summary.states, summary.head.as_deref()),
    }
}

fn name(view: &RunView) -> String {
    let directory = || {
        view.root()
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
    };
    match view.summary.run.as_str() {
        "" => directory().unwrap_or_default(),
        run => run.into(),
    }
}

fn last_step(records: &[Record]) -> u64 {
    let step = |record: &Record| match record {
        Record::Step(step) => Some(step.step),
        _ => None,
    };
    records.iter().rev().find_map(step).unwrap_or(0)
}

fn status(summary: &Summary, replay: &Replay, step: u64) -> Status {
    if summary.finished {
        return Status::Finished;
    }
    let of = summary.experiences.len();
    Status::Unfinished(match replay.curves.starts.len() {
        0 => format!("before the first experience of {of}"),
        begun => format!(
            "in experience {begun} of {of}, step {}",
            format::count(step)
        ),
    })
}

fn experiences(summary: &Summary, replay: &Replay) -> Vec<Experience> {
    let sets = |i: usize| replay.start.experiences.get(i).and_then(|e| e.sets.clone());
    let named = |(i, name): (usize, &String)| Experience {
        name: name.clone(),
        teaches: sets(i),
    };
    summary.experiences.iter().enumerate().map(named).collect()
}

fn cost(cost: &ebb_record::Cost) -> Cost {
    Cost {
        train_seconds: cost.train_seconds,
        total_seconds: cost.total_seconds,
        steps: cost.steps,
        gradient_calls: cost.gradient_calls,
        forward_rows: cost.forward_rows,
        backward_rows: cost.backward_rows,
        memory_bytes: cost.memory_bytes,
        peak_rss_bytes: cost.peak_rss_bytes,
    }
}

/// Pairs that have a value.
fn pairs<const N: usize>(all: [(&str, String); N]) -> Vec<(String, String)> {
    all.into_iter()
        .filter(|(_, v)| !v.is_empty())
        .map(|(k, v)| (k.into(), v))
        .collect()
}

fn protocol(summary: &Summary, replay: &Replay) -> Vec<(String, String)> {
    let sizes: Vec<u64> = summary.set_sizes.iter().copied().flatten().collect();
    let sizes = match (sizes.iter().min(), sizes.iter().max()) {
        (Some(low), Some(high)) if low == high => format!("{} examples each", format::count(*low)),
        (Some(low), Some(high)) => format!(
            "{} to {} examples",
            format::count(*low),
            format::count(*high)
        ),
        _ => String::new(),
    };
    pairs([
        ("accuracy of", summary.protocol.clone()),
        ("while learning", replay.start.panel_protocol.clone()),
        ("test sets", sizes),
    ])
}

fn environment(e: &Environment, code_version: &str) -> Vec<(String, String)> {
    let mut all = pairs([("ebb", code_version.to_string())]);
    let versions = e.versions.iter().filter(|(name, _)| *name != "ebb");
    all.extend(versions.map(|(name, version)| (name.clone(), version.clone())));
    let caches: Vec<String> = e
        .caches
        .iter()
        .map(|(n, b)| format!("{n} {}", format::bytes(*b)))
        .collect();
    let threads = match (e.threads_used, e.threads_available) {
        (0, _) => String::new(),
        (used, available) => format!("{used} of {available}"),
    };
    all.extend(pairs([
        ("processor", e.cpu.clone().unwrap_or_default()),
        ("instruction sets", e.instruction_sets.join(", ")),
        ("caches", caches.join(", ")),
        ("threads", threads),
        (
            "memory",
            e.memory_bytes.map(format::bytes).unwrap_or_default(),
        ),
        (
            "system",
            [
                e.os.as_str(),
                e.architecture.as_str(),
                e.kernel.as_deref().unwrap_or(""),
            ]
            .join(" ")
            .trim()
            .to_string(),
        ),
        (
            "created",
            if e.created_unix_seconds == 0 {
                String::new()
            } else {
                utc(e.created_unix_seconds)
            },
        ),
    ]));
    all
}

/// The milestones and HEAD; checkpoints on the way are not part of the story.
fn states(states: &[StateRecord], head: Option<&str>) -> Vec<StateLink> {
    let at = |s: &StateRecord| match s.experience {
        Some(experience) => format!(
            "experience {}, step {}",
            experience + 1,
            format::count(s.step)
        ),
        None => format!("step {}", format::count(s.step)),
    };
    let link = |s: &StateRecord| StateLink {
        id: s.id.clone(),
        parent: s.parent.clone(),
        verb: s.verb.name().into(),
        at: at(s),
        head: head == Some(s.id.as_str()),
    };
    states
        .iter()
        .filter(|s| s.milestone || head == Some(s.id.as_str()))
        .map(link)
        .collect()
}

/// Seconds since 1970 as `2026-11-21 09:52 UTC` (Howard Hinnant's days-to-civil algorithm).
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02} UTC",
        rest / 3600,
        rest % 3600 / 60
    )
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn dates_agree_with_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(utc(1_709_251_199), "2024-02-29 23:59 UTC");
        assert_eq!(utc(4_102_444_800), "2100-01-01 00:00 UTC");
    }
}
