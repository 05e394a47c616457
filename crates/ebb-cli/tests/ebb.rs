//! The program as a user has it: the built binary, its output, its exit codes.

mod common;

use common::Desk;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A run of about a second whose memory, optimizer and penalty all have state.
const LONG: [&str; 9] = [
    "learn",
    "--set=train.epochs=40",
    "--set=train.momentum=0.5",
    "--set=evaluate.every=7",
    "--set=save.checkpoint-every=500",
    "--set=network.hidden=[64,32]",
    "--set=penalty=[{kind=\"si\",c=0.1,damping=0.1,clamp=true}]",
    "--quiet",
    "-o",
];

/// What the tests here ask of a run.
trait Runs {
    /// The states that stay: id, weights hash and step of each milestone.
    fn milestones(&self, run: &str) -> Vec<[String; 3]>;
    /// The summary without what differs from sitting to sitting: times, name, checkpoints.
    fn substance(&self, run: &str) -> Value;
}

impl Runs for Desk {
    fn milestones(&self, run: &str) -> Vec<[String; 3]> {
        let states = self.json(&["states", run, "--json"]);
        let text = |v: &Value| v.to_string();
        let of = |s: &Value| [text(&s["id"]), text(&s["weights_hash"]), text(&s["step"])];
        let states = states.as_array().unwrap();
        let milestone = |s: &&Value| s["milestone"] == Value::Bool(true);
        states.iter().filter(milestone).map(of).collect()
    }

    fn substance(&self, run: &str) -> Value {
        let mut summary = self.json(&["resume", run, "--json"]);
        let object = summary.as_object_mut().unwrap();
        for key in ["cost", "run", "directory", "states"] {
            object.remove(key);
        }
        summary
    }
}

#[test]
fn learning_shows_a_table_and_a_picture_and_what_comes_next() {
    let desk = Desk::new();
    let text = desk.done(&["learn", "--set", "train.epochs=2"]);
    for part in [
        "after 5",
        "lowest",
        "Average accuracy",
        "Forgetting",
        "run  runs/der++-1",
        "ebb report runs/der++-1 --open",
        "--method fine-tune",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    assert!(!text.contains('\x1b'), "no colour in a pipe");
    for file in [
        "recipe.toml",
        "records.parquet",
        "summary.json",
        "states/HEAD",
    ] {
        assert!(desk.path("runs/der++-1").join(file).is_file(), "{file}");
    }
    // A second run gets a place of its own, and both are listed.
    let quiet = desk.done(&["learn", "--set", "train.epochs=1", "--quiet"]);
    assert_eq!(quiet, "runs/der++-2\n");
    let runs = desk.json(&["runs", "--json"]);
    let of = |i: usize, key: &str| runs[i][key].clone();
    assert_eq!(of(0, "directory"), "runs/der++-1");
    assert_eq!(
        (of(1, "finished"), of(1, "method")),
        (true.into(), "der++".into())
    );
    assert_ne!(of(0, "recipe_hash"), of(1, "recipe_hash"));
    let page = desk.done(&["report", "runs"]);
    assert_eq!(page, "runs/report.html\n");
    let html = std::fs::read_to_string(desk.path("runs/report.html")).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.contains("der++"));
}

#[test]
fn json_is_the_summary_and_nothing_else() {
    let desk = Desk::new();
    let run = desk.json(&["learn", "--set", "train.epochs=1", "--json", "-o", "a b"]);
    assert_eq!(run["directory"], "a b");
    assert_eq!(run["finished"], true);
    assert_eq!(run["matrix"].as_array().unwrap().len(), 5);
    let names: Vec<&str> = run["numbers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"average_accuracy") && names.contains(&"min_acc"),
        "{names:?}"
    );
    let stored: Value =
        serde_json::from_slice(&std::fs::read(desk.path("a b/summary.json")).unwrap()).unwrap();
    assert_eq!(run["matrix"], stored["matrix"]);
    // Everything that the machine form names can be asked for.
    let head = run["head"].as_str().unwrap();
    let ids = desk.done(&["lineage", "a b", &head[..8]]);
    assert_eq!(ids.lines().count(), 1438);
    let reached = desk.json(&["lineage", "a b", ids.lines().next().unwrap(), "--json"]);
    let named = |name: &str| {
        reached
            .as_array()
            .unwrap()
            .iter()
            .any(|r| r["name"] == name)
    };
    assert!(named(head) && named("memory"));
}

#[test]
fn seeds_are_repetitions_with_an_interval_over_seeds() {
    let desk = Desk::new();
    let args = [
        "learn",
        "--set=train.epochs=1",
        "--seeds=3",
        "--seed=4",
        "--json",
        "-o",
        "s",
    ];
    let group = desk.json(&args);
    assert_eq!(group["runs"].as_array().unwrap().len(), 3);
    let accuracy = group["numbers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|n| n["name"] == "average_accuracy")
        .unwrap();
    assert_eq!(
        (&accuracy["n"], &accuracy["unit"]),
        (&3.into(), &"seed".into())
    );
    let of = |run: &Value| {
        run["numbers"]
            .as_array()
            .unwrap()
            .iter()
            .find(|n| n["name"] == "average_accuracy")
            .unwrap()["value"]
            .as_f64()
            .unwrap()
    };
    let mean = group["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(of)
        .sum::<f64>()
        / 3.0;
    assert!((accuracy["value"].as_f64().unwrap() - mean).abs() < 1e-12);
    // The same seed alone is the same run; another is another.
    desk.done(&[
        "learn",
        "--set=train.epochs=1",
        "--seed=5",
        "-q",
        "-o",
        "alone",
    ]);
    assert_eq!(desk.milestones("alone"), desk.milestones("s/seed-5"));
    assert_ne!(desk.milestones("alone"), desk.milestones("s/seed-6"));
}

#[test]
fn threads_change_nothing() {
    let desk = Desk::new();
    for threads in ["1", "2"] {
        let args = [
            "--set=train.epochs=1",
            "--set=train.batch=64",
            "-q",
            "-o",
            threads,
        ];
        desk.done(&[&["learn", "--threads", threads], &args[..]].concat());
    }
    assert_eq!(desk.milestones("1"), desk.milestones("2"));
}

#[test]
fn every_mistake_has_its_message_and_leaves_nothing_behind() {
    let desk = Desk::new();
    let bad = desk.path("bad.toml");
    std::fs::write(&bad, "[stream]\ndataset = \"digits\"\nspilt = 5\n").unwrap();
    let broken = desk.path("broken.toml");
    std::fs::write(&broken, "[stream\n").unwrap();
    let prompts = desk.path("prompts.jsonl");
    std::fs::write(
        &prompts,
        "{\"prompt\": \"Once\"}\n\n{\"promt\": \"upon\"}\n",
    )
    .unwrap();
    let cases: [(&[&str], &[&str]); 17] = [
        (
            &["learn", "--set", "train.rate=1"],
            &["unknown field `rate`", "`lr`", "train", "--print-recipe"],
        ),
        (
            &["learn", "bad.toml"],
            &["bad.toml", "line 3", "unknown field `spilt`", "`split`"],
        ),
        (&["learn", "broken.toml"], &["broken.toml", "line 1"]),
        (
            &["learn", "--set", "train.lr=fast"],
            &["train.lr", "invalid type: string \"fast\", expected f64"],
        ),
        (
            &["learn", "--set", "train.lr"],
            &["must look like train.lr=0.05"],
        ),
        (
            &["learn", "--method", "emc"],
            &["no method called `emc`", "did you mean `ewc`"],
        ),
        (&["methods", "show", "dr++"], &["did you mean `der++`"]),
        (
            &["learn", "--method", "ewc"],
            &[
                "refused",
                "accept = [\"penalty-alone-on-class-incremental\"]",
                "--set 'accept=",
            ],
        ),
        (
            &["learn", "--method", "ewc", "--set", "with.lamda=3"],
            &["no parameter `lamda`", "lambda"],
        ),
        (
            &["learn", "split-mnist-er"],
            &["mnist is not in", "ebb data fetch mnist"],
        ),
        (
            &["learn", "nowhere.toml"],
            &["there is no recipe `nowhere.toml`", "split-mnist-er"],
        ),
        (
            &["learn", "--set", "stream.split=3"],
            &["10 classes cannot be dealt evenly to 3"],
        ),
        (&["resume", "."], &["is not a run"]),
        (&["report", "."], &["is no run and holds none"]),
        (
            &["data", "fetch", "cifar"],
            &["no dataset \"cifar\"", "mnist"],
        ),
        (&["learn", "--threads", "0"], &["--threads"]),
        // There is no such model on this desk: the line is read before it is looked for.
        (
            &["generate", "smollm2-135m", "-i", "prompts.jsonl"],
            &["`prompts.jsonl`, line 3", "{\"prompt\": "],
        ),
    ];
    for (args, parts) in cases {
        let error = desk.fails(args);
        for part in parts {
            assert!(error.contains(part), "{args:?}: no `{part}` in\n{error}");
        }
    }
    let left: Vec<_> = std::fs::read_dir(desk.path("runs")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_impossible_combination_runs_where_it_is_accepted_by_name() {
    let desk = Desk::new();
    let accept = "accept=[\"penalty-alone-on-class-incremental\"]";
    // A weak pull: a strong one is stiff at this rate.
    let args = [
        "learn",
        "--method=ewc",
        "--set=with.lambda=1",
        "--set",
        accept,
        "--set=train.epochs=1",
        "--json",
    ];
    let run = desk.json(&args);
    assert_eq!(run["accepted"][0], "penalty-alone-on-class-incremental");
}

#[test]
fn a_run_is_never_overwritten() {
    let desk = Desk::new();
    desk.done(&["learn", "--set=train.epochs=1", "-q", "-o", "r"]);
    let before = desk.milestones("r");
    let error = desk.fails(&["learn", "-o", "r"]);
    assert!(
        error.contains("is not empty") && error.contains("ebb resume"),
        "{error}"
    );
    std::fs::create_dir(desk.path("mine")).unwrap();
    std::fs::write(desk.path("mine/notes.txt"), "dear").unwrap();
    desk.fails(&["learn", "-o", "mine"]);
    assert_eq!(
        std::fs::read_to_string(desk.path("mine/notes.txt")).unwrap(),
        "dear"
    );
    assert_eq!(desk.milestones("r"), before);
}

#[test]
fn a_diverged_run_survives_and_says_what_to_do() {
    let desk = Desk::new();
    let error = desk.fails(&["learn", "--set", "train.lr=1e9"]);
    for part in [
        "not a finite number",
        "lower the learning rate",
        "ebb report runs/der++-1",
        "runs/der++-1/recipe.toml --set train.lr=",
    ] {
        assert!(error.contains(part), "no `{part}` in\n{error}");
    }
    let states = desk.json(&["states", "runs/der++-1", "--json"]);
    assert_eq!(states[0]["kept"], true);
    let runs = desk.json(&["runs", "--json"]);
    assert_eq!(
        (&runs[0]["finished"], &runs[0]["damaged"]),
        (&false.into(), &Value::Null)
    );
    // What the message proposes works.
    let again = [
        "learn",
        "runs/der++-1/recipe.toml",
        "--set=train.lr=0.05",
        "--set=train.epochs=1",
        "-q",
    ];
    assert_eq!(desk.done(&again), "runs/der++-2\n");
}

#[test]
fn states_are_listed_and_purged() {
    let desk = Desk::new();
    desk.done(&["learn", "--set=train.epochs=1", "-q", "-o", "r"]);
    let states = desk.json(&["states", "r", "--json"]);
    let id = states[1]["id"].as_str().unwrap();
    assert!(desk.path("r/states").join(id).is_dir());
    assert!(
        desk.fails(&["states", "r", "--purge", &id[..2]])
            .contains("too short")
    );
    assert!(
        desk.fails(&["states", "r", "--purge", "HEAD"])
            .contains("cannot be purged")
    );
    desk.done(&["states", "r", "--purge", &id[..12]]);
    assert!(!desk.path("r/states").join(id).exists());
    let states = desk.json(&["states", "r", "--json"]);
    assert_eq!(
        (&states[1]["kept"], states.as_array().unwrap().len()),
        (&false.into(), 6)
    );
}

#[test]
fn methods_are_told_to_people_and_to_machines() {
    let desk = Desk::new();
    let all = desk.json(&["methods", "--json"]);
    assert!(all.as_array().unwrap().len() >= 14);
    for method in all.as_array().unwrap() {
        let name = method["name"].as_str().unwrap();
        let text = desk.done(&["methods", "show", name]);
        for key in ["title", "source", "card", "use_it", "stores", "costs"] {
            let value = method[key].as_str().unwrap();
            assert!(!value.is_empty() && text.contains(value), "{name}: {key}");
        }
    }
}

#[test]
fn what_is_embedded_needs_no_fetching() {
    let desk = Desk::new();
    let list = desk.done(&["data", "list"]);
    assert!(
        list.contains("embedded")
            && list.contains("absent")
            && list.contains("next ebb data fetch mnist")
    );
    assert_eq!(
        desk.json(&["data", "fetch", "digits", "--json"])["source"],
        "embedded"
    );
}

#[test]
fn a_printed_recipe_is_the_same_run() {
    let desk = Desk::new();
    let text = desk.done(&["learn", "--set=train.epochs=1", "--print-recipe"]);
    std::fs::write(desk.path("mine.toml"), &text).unwrap();
    desk.done(&["learn", "--set=train.epochs=1", "-q", "-o", "a"]);
    desk.done(&["learn", "mine.toml", "-q", "-o", "b"]);
    assert_eq!(desk.milestones("a"), desk.milestones("b"));
    assert!(!desk.path("runs").exists());
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let desk = Desk::new();
    let mut command = desk.command(&["methods", "--json"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert!(
        out.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert_eq!(out.status.code(), Some(0));
}

/// A study of two arms that claims a gain of at least so much.
fn study(gain: &str) -> String {
    format!(
        "id = \"T001\"\ntitle = \"Replay\"\nclaim = \"replay helps\"\nsource = \"a test\"\n\
         budget_s = 20\nseeds = 2\n[base]\nstream = {{ dataset = \"digits\", split = 5 }}\n\
         evaluate = {{ every = 0 }}\n[arm.er]\nabout = \"replay\"\nset = {{ method = \"er\" }}\n\
         [arm.plain]\nabout = \"none\"\nset = {{ method = \"fine-tune\" }}\n\
         [expect]\ngain = \"min(er.average_accuracy - plain.average_accuracy) >= {gain}\"\n"
    )
}

#[test]
fn a_study_says_by_its_exit_code_whether_it_holds() {
    let desk = Desk::new();
    for (file, gain) in [("true.toml", "0.1"), ("false.toml", "0.99")] {
        std::fs::write(desk.path(file), study(gain)).unwrap();
    }
    let out = desk.ebb(&["study", "run", "true.toml", "-o", "e"]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(0), "{text}");
    assert!(
        text.contains("T001 holds") && text.contains("✓ gain"),
        "{text}"
    );
    let stored = std::fs::read(desk.path("e/T001.json")).unwrap();
    let stored: Value = serde_json::from_slice(&stored).unwrap();
    // The same claim as a stricter one does not hold: that is 1, and no error.
    let out = desk.ebb(&["study", "run", "false.toml", "-o", "f", "--json"]);
    assert_eq!(out.status.code(), Some(1));
    let verdicts: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(verdicts[0]["holds"], false);
    // Both measured the same, whichever was asked.
    assert_eq!(
        verdicts[0]["arms"][0]["per_seed"],
        stored["arms"][0]["per_seed"]
    );
    let checked = desk.ebb(&["study", "check", "false.toml", "-o", "e"]);
    assert_eq!(checked.status.code(), Some(1), "it was recorded as holding");
    assert_eq!(
        desk.ebb(&["study", "check", "false.toml", "-o", "f"])
            .status
            .code(),
        Some(0)
    );
    let shown = desk.done(&["study", "show", "true.toml", "-o", "e"]);
    assert!(
        shown.contains("replay helps") && shown.contains("verdict    holds"),
        "{shown}"
    );
    assert!(
        desk.fails(&["study", "run", "S999"])
            .contains("there is no study `S999`")
    );
    assert!(desk.fails(&["study", "run"]).contains("--all"));
}

#[test]
fn every_shipped_study_is_listed_and_shown() {
    let desk = Desk::new();
    let list = desk.json(&["study", "list", "--json"]);
    let list = list.as_array().unwrap();
    assert!(list.len() >= 16);
    for study in list {
        let id = study["id"].as_str().unwrap();
        assert!(
            desk.done(&["study", "show", id])
                .contains(study["title"].as_str().unwrap())
        );
    }
}

/// A safetensors file of 40 records with two inputs each.
fn own_data(path: &Path, spoil: Option<usize>, label: impl Fn(usize) -> u8) {
    let header = br#"{"x":{"dtype":"F32","shape":[40,2],"data_offsets":[0,320]},"y":{"dtype":"U8","shape":[40],"data_offsets":[320,360]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    for i in 0..80 {
        let x = if spoil == Some(i) {
            f32::NAN
        } else {
            i as f32 / 80.0
        };
        bytes.extend(x.to_le_bytes());
    }
    bytes.extend((0..40).map(label));
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn bad_data_is_named_and_nothing_is_written() {
    let desk = Desk::new();
    let learn = |name: &str, split: &str| {
        let dataset = format!("--set=stream.dataset=\"{name}\"");
        desk.fails(&["learn", "--method=er", &dataset, split, "-o", "r"])
    };
    own_data(&desk.path("nan.safetensors"), Some(7), |i| (i % 4) as u8);
    let error = learn("nan.safetensors", "--set=stream.split=2");
    assert!(
        error.contains("nan.safetensors") && error.contains("NaN"),
        "{error}"
    );
    // Class 2 has no example, and it is alone in its experience.
    own_data(&desk.path("gap.safetensors"), None, |i| [0, 1, 3][i % 3]);
    let error = learn("gap.safetensors", "--set=stream.split=4");
    assert!(error.contains("no training example"), "{error}");
    std::fs::write(desk.path("cut.safetensors"), b"not one").unwrap();
    let error = learn("cut.safetensors", "--set=stream.split=2");
    assert!(error.contains("cut.safetensors is malformed"), "{error}");
    assert!(!desk.path("r").exists());
}

/// Sends a signal.
#[cfg(unix)]
fn signal(child: &std::process::Child, name: &str) {
    let status = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Waits until `path` is there.
#[cfg(unix)]
fn wait_for(path: &Path) {
    for _ in 0..2000 {
        if path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{} did not appear", path.display());
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_the_rest_is_the_same_run() {
    let desk = Desk::new();
    let begun = Instant::now();
    desk.done(&[&LONG[..], &["whole"]].concat());
    let whole = begun.elapsed();
    for name in ["-INT", "-TERM"] {
        let run = format!("stopped{name}");
        let mut command = desk.command(&[&LONG[..], &[&run]].concat());
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for(&desk.path(&run).join("states/HEAD"));
        std::thread::sleep(whole.mul_f64(0.3));
        signal(&child, name);
        let out = child.wait_with_output().unwrap();
        let error = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(130), "{error}");
        assert!(out.stdout.is_empty());
        assert!(error.contains(&format!("ebb resume {run}")), "{error}");
        // Nothing is lost: the run stands where it was stopped.
        let states = desk.json(&["states", &run, "--json"]);
        let head = states
            .as_array()
            .unwrap()
            .iter()
            .find(|s| s["head"] == true)
            .unwrap()
            .clone();
        assert!(
            error.contains(&format!("step {}", head["step"])),
            "{error} {head}"
        );
        desk.done(&["resume", &run, "--quiet"]);
        assert_eq!(desk.milestones(&run), desk.milestones("whole"));
        assert_eq!(desk.substance(&run), desk.substance("whole"));
    }
}

#[cfg(unix)]
#[test]
fn a_damaged_checkpoint_is_named_and_left_alone() {
    let desk = Desk::new();
    let run = desk.command(&[&LONG[..], &["r"]].concat());
    let mut child = { run }
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&desk.path("r/states/HEAD"));
    std::thread::sleep(Duration::from_millis(50));
    child.kill().unwrap();
    child.wait().unwrap();
    let states = desk.json(&["states", "r", "--json"]);
    let states = states.as_array().unwrap();
    let head = states.iter().find(|s| s["head"] == true).unwrap();
    let id = head["id"].as_str().unwrap();
    let weights = desk.path("r/states").join(id).join("weights.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    for bytes in [
        &whole[..whole.len() / 2],
        &[],
        &[&whole[..whole.len() - 1], &[7]].concat(),
    ] {
        std::fs::write(&weights, bytes).unwrap();
        let error = desk.fails(&["resume", "r"]);
        assert!(error.contains("weights.safetensors` is damaged"), "{error}");
        assert!(error.contains("restore the file from a copy"), "{error}");
    }
    // With the copy back in its place the run goes on.
    std::fs::write(&weights, &whole).unwrap();
    desk.done(&["resume", "r", "--quiet"]);
}

#[cfg(unix)]
#[test]
fn a_killed_run_goes_on_to_the_same_bits() {
    let desk = Desk::new();
    let begun = Instant::now();
    desk.done(&[&LONG[..], &["whole"]].concat());
    let whole = begun.elapsed();
    for (i, share) in [0.02, 0.2, 0.45, 0.7, 0.95].into_iter().enumerate() {
        let run = format!("killed-{i}");
        let mut child = desk
            .command(&[&LONG[..], &[&run]].concat())
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(&desk.path(&run).join("recipe.toml"));
        std::thread::sleep(whole.mul_f64(share));
        child.kill().unwrap();
        child.wait().unwrap();
        desk.done(&["resume", &run, "--quiet"]);
        assert_eq!(
            desk.milestones(&run),
            desk.milestones("whole"),
            "killed after {share}"
        );
        assert_eq!(
            desk.substance(&run),
            desk.substance("whole"),
            "killed after {share}"
        );
    }
}

/// What a method asks of the network is found out when it begins; the run is then not there, for
/// its recipe would stop it again.
#[test]
fn a_recipe_that_cannot_begin_leaves_no_run() {
    let desk = Desk::new();
    let said = desk.fails(&["learn", "--method", "prd", "-q", "-o", "r"]);
    assert!(said.contains("network.head"), "{said}");
    assert!(!said.contains("ebb resume"), "{said}");
    assert!(!desk.path("r").exists());
}
