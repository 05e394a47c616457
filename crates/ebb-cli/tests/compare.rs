//! `ebb compare` as a user has it, on runs whose summaries are written here and on runs it learned.

mod common;

use common::Desk;
use ebb_record::{Cost, ENVIRONMENT_VERSION, Environment, SUMMARY_VERSION, Summary};
use ebb_space::{Direction, Number, Unit};
use serde_json::Value;

/// A group of runs as their summaries tell of it.
struct Told {
    method: &'static str,
    /// Seed and average accuracy in hundredths of each run.
    seeds: Vec<(u64, u32)>,
    rows: u64,
    bytes: Option<u64>,
    protocol: &'static str,
}

/// Accuracies from seed 0 on.
fn told(method: &'static str, hundredths: &[u32], rows: u64, bytes: u64) -> Told {
    Told {
        method,
        seeds: (0..).zip(hundredths.iter().copied()).collect(),
        rows,
        bytes: Some(bytes),
        protocol: "mean over seen sets; digits",
    }
}

/// Writes finished runs into `place/seed-K`.
fn write(desk: &Desk, place: &str, told: &Told) {
    for (seed, hundredths) in &told.seeds {
        let run = desk.path(&format!("{place}/seed-{seed}"));
        std::fs::create_dir_all(&run).unwrap();
        let recipe = format!("# ebb recipe, format_version = 1\nseed = {seed}\n");
        std::fs::write(run.join("recipe.toml"), recipe).unwrap();
        let environment = Environment {
            format_version: ENVIRONMENT_VERSION,
            ..Environment::default()
        };
        let environment = serde_json::to_vec(&environment).unwrap();
        std::fs::write(run.join("environment.json"), environment).unwrap();
        let number = Number {
            name: "average_accuracy".into(),
            value: f64::from(*hundredths) / 100.0,
            ci_low: Some(0.0),
            ci_high: Some(1.0),
            n: 359,
            unit: Unit::Example,
            direction: Direction::Higher,
            protocol: format!("{}; 95 % interval over examples", told.protocol),
        };
        let summary = Summary {
            format_version: SUMMARY_VERSION,
            finished: true,
            recipe_id: format!("{} {}", told.method, told.rows),
            seed: *seed,
            method: told.method.into(),
            stream: "split digits".into(),
            scenario: "class".into(),
            numbers: vec![number],
            cost: Cost {
                forward_rows: Some(told.rows),
                backward_rows: Some(told.rows),
                gradient_calls: Some(730),
                memory_bytes: told.bytes,
                train_seconds: Some(1.5),
                ..Cost::default()
            },
            ..Summary::default()
        };
        summary.save(&run.join("summary.json")).unwrap();
    }
}

fn contains(text: &str, parts: &[&str]) {
    // Lines are broken between words wherever the width asks for it.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let all = words(text);
    for part in parts {
        assert!(all.contains(&words(part)), "no `{part}` in\n{text}");
    }
}

/// Three methods under eight seeds: er is better in each, ewc the same in four of them and in all
/// together, for twice the rows.
fn three() -> Desk {
    let desk = Desk::new();
    let fine_tune = [20, 21, 19, 22, 18, 20, 21, 19];
    let er = [60, 64, 58, 61, 63, 59, 62, 60];
    let ewc = [20, 21, 19, 22, 19, 19, 20, 20];
    write(&desk, "runs/er-1", &told("er", &er, 14_380, 164_000));
    write(
        &desk,
        "runs/fine-tune-1",
        &told("fine-tune", &fine_tune, 7190, 0),
    );
    write(&desk, "runs/ewc-1", &told("ewc", &ewc, 14_380, 168_800));
    desk
}

#[test]
fn methods_are_compared_over_seeds_with_their_costs() {
    let desk = three();
    let text = desk.done(&["compare", "runs/er-1", "runs/ewc-1", "runs/fine-tune-1"]);
    contains(
        &text,
        &[
            "Average accuracy, %",
            "fine-tune 8 20.0 (18.9 to 21.1)",
            "× against fine-tune",
            "er 14.4 k ×2.00 14.4 k ×2.00 730 ×1.00 160 KiB – 1.50 s ×1.00",
            "Average accuracy, points, against fine-tune",
            // 2/256, and twice that for two tests.
            "0.0078 0.0156 better",
            "undecided with 8 seeds",
            "Holm's correction is over the 2 tests shown",
            "point estimates alone: dominated are ewc by er and fine-tune.",
            "next ebb report runs/er-1 runs/ewc-1 runs/fine-tune-1 -o comparison.html",
        ],
    );
    assert!(!text.contains('\x1b'), "no colour in a pipe");
    // The same by folder, by pattern and by names; a report that lies beside the runs is no run.
    std::fs::write(desk.path("runs/report.html"), "").unwrap();
    let pairs = |args: &[&str]| {
        let found = desk.json(&[&["compare", "--json"], args].concat());
        assert_eq!(found["format_version"], 1);
        let list = found["measures"][0]["pairs"].as_array().unwrap().clone();
        let key = |p: &Value| (p["p"].clone(), p["p_holm"].clone(), p["verdict"].clone());
        let mut keys: Vec<_> = list.iter().map(key).collect();
        keys.sort_by_key(|k| k.0.to_string());
        (keys, found)
    };
    let (folder, _) = pairs(&["runs"]);
    let (pattern, found) = pairs(&["runs/*"]);
    let (names, named) = pairs(&["a=runs/er*", "b=runs/ewc-?", "c=runs/fine*"]);
    assert_eq!((&folder, &folder), (&pattern, &names));
    assert_eq!(found["left_out"][0]["run"], "runs/report.html");
    assert_eq!(
        (&named["against"], &named["groups"][1]["name"]),
        (&"c".into(), &"b".into())
    );
    // er: the two unanimous patterns of 256. ewc: differences 0, 0, 0, 0, 1, −1, −1, 1, whose sum
    // is 0, so that no pattern is less extreme.
    assert_eq!(
        folder,
        [
            ((2.0 / 256.0).into(), (4.0 / 256.0).into(), "better".into()),
            (1.0.into(), 1.0.into(), "undecided".into()),
        ]
    );
    // All pairs are three tests, and a stricter level asks for more.
    let all = desk.json(&["compare", "runs", "--all-pairs", "--alpha=0.01", "--json"]);
    let pairs = all["measures"][0]["pairs"].as_array().unwrap();
    assert_eq!((pairs.len(), &all["tests"]), (3, &3.into()));
    assert!(pairs.iter().all(|p| p["verdict"] == "undecided"));
    assert_eq!(pairs[0]["least_p_holm"], 6.0 / 256.0);
    let against = desk.json(&["compare", "runs", "--against", "er", "--json"]);
    assert_eq!(against["measures"][0]["pairs"][0]["verdict"], "worse");
}

#[test]
fn seeds_that_are_not_shared_fall_back_to_welch() {
    let desk = three();
    let mut later = told("gem", &[30, 31, 29, 33], 7190, 10);
    later.seeds.iter_mut().for_each(|(seed, _)| *seed += 20);
    later.bytes = None;
    write(&desk, "runs/gem-1", &later);
    let text = desk.done(&["compare", "runs/gem-1", "runs/fine-tune-1"]);
    contains(
        &text,
        &[
            "share no two seeds",
            "Welch's unpaired t test",
            "better",
            "gem 7.19 k ×1.00 7.19 k ×1.00 730 ×1.00 – –",
        ],
    );
    let found = desk.json(&["compare", "runs/gem-1", "runs/fine-tune-1", "--json"]);
    let pair = &found["measures"][0]["pairs"][0];
    assert_eq!(
        (&pair["test"], &pair["seeds"]),
        (&"welch".into(), &Value::Array(vec![]))
    );
    assert_eq!(pair["n"], serde_json::json!([4, 8]));
    assert_eq!(found["groups"][0]["cost"]["memory_bytes"], Value::Null);
}

#[test]
fn every_refusal_says_what_to_do() {
    let desk = three();
    write(&desk, "single", &told("lwf", &[40], 7190, 10));
    let letters = Told {
        protocol: "mean over seen sets; letters",
        ..told("gem", &[40, 41, 42, 43, 44, 45, 46, 47], 7190, 10)
    };
    write(&desk, "letters", &letters);
    std::fs::create_dir(desk.path("empty")).unwrap();
    let cases: [(&[&str], &[&str]); 11] = [
        (&["nowhere"], &["there is no `nowhere`", "ebb runs"]),
        (&["nowhere*"], &["nothing matches `nowhere*`", "ebb runs"]),
        (
            &["empty"],
            &[
                "there is no finished run",
                "left out: empty (it is no run and holds none)",
                "ebb learn",
            ],
        ),
        (
            &["runs/er-1"],
            &["`er` is one group", "--method NAME --seeds 8"],
        ),
        (
            &["runs", "single"],
            &[
                "`lwf` is a single run and `er` is not",
                "over examples and over seeds",
                "ebb learn single/seed-0 --seeds 8",
            ],
        ),
        (
            &["runs/er-1", "letters"],
            &["the protocols differ: `digits` and `letters`", "one stream"],
        ),
        (
            &["runs", "--metric", "min_acc"],
            &[
                "no run has measured `min_acc`",
                "average_accuracy",
                "evaluate.every",
            ],
        ),
        (
            &["runs", "--against", "lwf"],
            &["there is no group `lwf`", "er, ewc, fine-tune"],
        ),
        (
            &["all=runs"],
            &[
                "`all` is two experiments: the method is er in",
                "all-1=PATH",
            ],
        ),
        (
            &["a=runs/er-1", "b=runs/er-1/seed-0"],
            &["`runs/er-1/seed-0` stands in two groups, `a` and `b`"],
        ),
        (&["runs", "--alpha", "5"], &["--alpha", "between 0 and 1"]),
    ];
    for (args, parts) in cases {
        contains(&desk.fails(&[&["compare"], args].concat()), parts);
    }
    assert!(desk.fails(&["compare"]).contains("<GROUP>"));
}

#[test]
fn what_was_learned_is_compared_and_what_is_unfinished_is_named() {
    let desk = Desk::new();
    for method in ["er", "fine-tune"] {
        let method = format!("--method={method}");
        let args = [
            "--set=train.epochs=1",
            "--set=evaluate.every=0",
            "--seeds=2",
            "-q",
        ];
        desk.done(&[&["learn", method.as_str()], &args[..]].concat());
    }
    // Another setting of the same method is another group, told by that setting.
    let small = "--set=with.capacity=20";
    let args = [
        "--set=train.epochs=1",
        "--set=evaluate.every=0",
        "--seeds=2",
        "-q",
    ];
    desk.done(&[&["learn", "--method=er", small], &args[..]].concat());
    desk.fails(&["learn", "--set", "train.lr=1e9", "-o", "runs/diverged"]);
    let found = desk.json(&["compare", "runs", "--metric", "forgetting", "--json"]);
    let names: Vec<&str> = found["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| g["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["er · capacity=500", "er · capacity=20", "fine-tune"]
    );
    assert_eq!(found["left_out"][0]["run"], "runs/diverged");
    let reason = found["left_out"][0]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("unfinished: in experience 1 of 5"),
        "{reason}"
    );
    // The values are those of the runs, and the mean is theirs.
    let of = |seed: u64| {
        let summary = desk.path(&format!("runs/er-1/seed-{seed}/summary.json"));
        let summary: Value = serde_json::from_slice(&std::fs::read(summary).unwrap()).unwrap();
        let numbers = summary["numbers"].as_array().unwrap().clone();
        let named = numbers.iter().find(|n| n["name"] == "forgetting");
        named.unwrap()["value"].as_f64().unwrap()
    };
    let value = &found["measures"][0]["values"][0];
    assert_eq!(value["per_seed"]["0"], of(0));
    let mean = value["number"]["value"].as_f64().unwrap();
    assert!((mean - (of(0) + of(1)) / 2.0).abs() < 1e-12);
    let cost = &found["groups"][0]["cost"];
    assert!(cost["backward_rows"]["ratio"].as_f64().unwrap() > 1.0);
    let text = desk.done(&["compare", "runs", "--metric", "forgetting"]);
    contains(
        &text,
        &[
            "With 2 seeds the smallest p it can reach is 0.5000",
            "left out: runs/diverged (unfinished: in experience 1 of 5",
        ],
    );
}
