//! The studies that come with the program, and how their verdicts stand.

use crate::error::{Error, Result};
use crate::runner::{Options, Watch, run};
use crate::study::Study;
use crate::verdict::{Verdict, path_of};
use std::path::Path;

// `FILES`: every study file, by its name.
include!(concat!(env!("OUT_DIR"), "/studies.rs"));

/// Every study that comes with the program, by id.
///
/// # Errors
/// None but a bug of the program: a test reads them all.
pub fn catalogue() -> Result<Vec<Study>> {
    FILES
        .iter()
        .map(|(name, text)| Study::parse(name, text))
        .collect()
}

/// The studies in the `.toml` files of a folder, by file name.
///
/// # Errors
/// When a file cannot be read.
pub fn read_dir(dir: &Path) -> Result<Vec<Study>> {
    let io = |source| Error::Io {
        path: dir.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

/// The study in a file.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<Study> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })?;
    Study::parse(&path.display().to_string(), &text)
}

/// The study called `id`, whatever its case.
///
/// # Errors
/// [`Error::Unknown`].
pub fn find(id: &str) -> Result<Study> {
    let all = catalogue()?;
    let known: Vec<String> = all.iter().map(|s| s.id.clone()).collect();
    all.into_iter()
        .find(|s| s.id.eq_ignore_ascii_case(id))
        .ok_or_else(|| Error::Unknown {
            id: id.to_owned(),
            known: known.join(", "),
        })
}

/// How a study stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Its id.
    pub id: String,
    /// What it is about.
    pub title: String,
    /// Whether CI reruns it.
    pub fast: bool,
    /// Its committed verdict, if there is one.
    pub committed: Option<Committed>,
}

/// A committed verdict in short.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// Whether the claim holds.
    pub holds: bool,
    /// What it took.
    pub wall_seconds: f64,
    /// Why it may be out of date.
    pub stale: Option<String>,
}

/// How every one of `studies` stands, by the verdicts in `evidence`.
///
/// # Errors
/// When a verdict is there but cannot be read.
pub fn list(studies: &[Study], evidence: &Path) -> Result<Vec<Standing>> {
    studies
        .iter()
        .map(|study| {
            let path = path_of(evidence, &study.id);
            let committed = match path.exists() {
                false => None,
                true => {
                    let verdict = Verdict::load(&path)?;
                    Some(Committed {
                        holds: verdict.holds,
                        wall_seconds: verdict.wall_seconds,
                        stale: verdict.stale(study),
                    })
                }
            };
            Ok(Standing {
                id: study.id.clone(),
                title: study.title.clone(),
                fast: study.fast,
                committed,
            })
        })
        .collect()
}

/// What a rerun found.
#[derive(Debug)]
pub struct Checked {
    /// The study.
    pub id: String,
    /// The new verdict, or why there is none.
    pub now: Result<Verdict>,
    /// Whether the committed one holds; none where there is none.
    pub before: Option<bool>,
}

impl Checked {
    /// Whether CI must fail: an error, or another answer than the committed one. A recorded
    /// `holds: false` that is found again is no failure.
    pub fn failed(&self) -> bool {
        match (&self.now, self.before) {
            (Err(_), _) => true,
            (Ok(now), Some(before)) => now.holds != before,
            (Ok(_), None) => false,
        }
    }
}

/// Reruns studies and compares with the committed verdicts.
///
/// # Errors
/// Only when the user stops it or a committed verdict cannot be read; a study's own error is part
/// of the answer.
pub fn check(
    studies: &[Study],
    evidence: &Path,
    options: &Options,
    watch: &mut dyn Watch,
) -> Result<Vec<Checked>> {
    let standing = list(studies, evidence)?;
    let mut all = Vec::new();
    for (study, standing) in studies.iter().zip(standing) {
        let now = match run(study, options, watch) {
            Err(Error::Stopped) => return Err(Error::Stopped),
            now => now,
        };
        all.push(Checked {
            id: study.id.clone(),
            now,
            before: standing.committed.map(|c| c.holds),
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::Rule;
    use crate::runner::Unwatched;
    use crate::study::Plan;
    use std::collections::BTreeSet;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn every_study_is_valid_and_every_file_is_listed() {
        let all = catalogue().unwrap();
        let ids: BTreeSet<&str> = all.iter().map(|s| s.id.as_str()).collect();
        assert_eq!(ids.len(), all.len(), "an id a study");
        for ((name, _), study) in FILES.iter().zip(&all) {
            assert!(name.starts_with(&study.id), "{name} holds {}", study.id);
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../studies");
        assert_eq!(
            read_dir(&folder).unwrap().len(),
            all.len(),
            "a file is not embedded"
        );
        assert!(find("s029").is_ok());
        assert!(find("S999").unwrap_err().to_string().contains("R01, "));
    }

    /// The published figures, typed a second time, and the rule of the reference rows.
    #[test]
    fn reference_rows_carry_the_published_figures() {
        let published = [
            ("R01", [93.46, 55.16, 19.71], [2.01, 1.38, 0.08]),
            ("R02", [97.70, 58.85, 19.80], [0.81, 2.59, 0.05]),
            ("R03", [98.56, 64.76, 19.67], [0.49, 3.09, 0.09]),
            ("R04", [99.60, 71.02, 24.17], [0.03, 1.26, 0.33]),
            ("R05", [99.40, 95.16, 90.78], [0.08, 0.49, 0.85]),
            ("R06", [99.52, 98.59, 97.53], [0.16, 0.15, 0.30]),
        ];
        for (id, means, sds) in published {
            let study = find(id).unwrap();
            let Plan::Reference(reference) = &study.plan else {
                panic!("{id} is a reference study")
            };
            let rule = Rule {
                slack: reference.slack,
                half_width: reference.half_width,
            };
            assert_eq!(
                (rule.slack, rule.half_width, reference.most_seeds),
                (0.5, 1.5, 20)
            );
            for (i, scenario) in ["task", "domain", "class"].into_iter().enumerate() {
                let row = &reference.rows[scenario];
                let theirs = row.published.unwrap();
                assert_eq!((theirs.mean, theirs.sd), (means[i], sds[i]), "{id}");
                assert_eq!(row.fine_tune.unwrap().mean, [93.46, 55.16, 19.71][i]);
                assert_eq!(theirs.n, 10);
            }
        }
    }

    const SMALL: &str = r#"
id = "S900"
title = "Replay on digits"
claim = "Replay keeps more than fine-tuning"
source = "a test"
budget_s = 60
seeds = 5
report = ["forgetting"]
[base]
stream = { dataset = "digits", split = 5, scenario = "class" }
network = { kind = "mlp", hidden = [16] }
train = { lr = 0.1, batch = 16 }
evaluate = { every = 0 }
[arm.plain]
set = { method = "fine-tune" }
[arm.er]
set = { method = "er" }
[tune]
experiences = 2
seeds = [9]
maximise = "average_accuracy"
grid = { er = { "with.capacity" = [10, 100] } }
[expect]
keeps = "paired(er.average_accuracy - plain.average_accuracy) > 0 at 0.05"
[control.same]
about = "fine-tuning is no replay"
replace = { er = "plain" }
"#;

    #[test]
    fn a_small_study_runs_is_judged_kept_and_found_again() {
        let study = Study::parse("small", SMALL).unwrap();
        let stop = AtomicBool::new(false);
        let on = |threads| Options {
            data_dir: Path::new("."),
            threads,
            stop: &stop,
            kept: None,
        };
        let verdict = run(&study, &on(2), &mut Unwatched).unwrap();
        assert!(verdict.holds, "{verdict:#?}");
        assert_eq!((verdict.n_seeds, verdict.p_value), (5, Some(1.0 / 32.0)));
        assert!(!verdict.controls[0].holds);
        let tuning = verdict.tuning.as_ref().unwrap();
        assert_eq!((tuning.trials, tuning.arms["er"].tried.len()), (2, 2));
        assert!(verdict.number("er", "forgetting").is_some());

        // One run at a time, the same numbers to the bit.
        let alone = run(&study, &on(1), &mut Unwatched).unwrap();
        for (a, b) in verdict.arms.iter().zip(&alone.arms) {
            assert_eq!(a.per_seed, b.per_seed);
        }

        let folder = tempfile::tempdir().unwrap();
        let studies = [study];
        assert_eq!(list(&studies, folder.path()).unwrap()[0].committed, None);
        let path = verdict.save(folder.path()).unwrap();
        assert_eq!(Verdict::load(&path).unwrap(), verdict);
        let standing = list(&studies, folder.path()).unwrap();
        assert_eq!(standing[0].committed.as_ref().unwrap().stale, None);

        let checked = check(&studies, folder.path(), &on(2), &mut Unwatched).unwrap();
        assert!(!checked[0].failed() && checked[0].before == Some(true));
        // The same claim the other way round is a change, and changes the study's hash.
        let other = [Study::parse("small", &SMALL.replace("> 0 at", "< 0 at")).unwrap()];
        let checked = check(&other, folder.path(), &on(2), &mut Unwatched).unwrap();
        assert!(checked[0].failed(), "{checked:?}");
        let stale = list(&other, folder.path()).unwrap()[0]
            .committed
            .clone()
            .unwrap()
            .stale;
        assert!(stale.unwrap().contains("the study has changed"));
    }

    #[test]
    fn a_diverging_arm_decides_nothing_a_failing_one_is_named_and_a_stop_stops() {
        let start = SMALL.find("[tune]").unwrap();
        let end = SMALL.find("[expect]").unwrap();
        let untuned = format!("{}{}", &SMALL[..start], &SMALL[end..]);
        let stop = AtomicBool::new(false);
        let options = Options {
            data_dir: Path::new("."),
            threads: 2,
            stop: &stop,
            kept: None,
        };
        let text = untuned.replace("\"fine-tune\" }", "\"fine-tune\", train = { lr = 1e30 } }");
        let verdict = run(&Study::parse("x", &text).unwrap(), &options, &mut Unwatched).unwrap();
        let arm = |name: &str| verdict.arms.iter().find(|a| a.name == name).unwrap();
        assert_eq!(arm("plain").diverged, [1, 2, 3, 4, 5]);
        assert!(arm("er").diverged.is_empty() && !arm("er").measured.is_empty());
        assert!(verdict.expected[0].value.is_none() && !verdict.holds);
        assert!(verdict.controls[0].undecided && !verdict.controls[0].holds);

        let text = untuned.replace("[\"forgetting\"]", "[\"forgetfulness\"]");
        let study = Study::parse("x", &text).unwrap();
        let error = run(&study, &options, &mut Unwatched)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`forgetfulness`") && error.contains("average_accuracy"),
            "{error}"
        );

        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let study = Study::parse("small", SMALL).unwrap();
        assert!(matches!(
            run(&study, &options, &mut Unwatched),
            Err(Error::Stopped)
        ));
    }
}
