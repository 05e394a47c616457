//! `ebb forecast`, `ebb plan`, `ebb learn --plan` and `ebb audit` as a user has them, one after the
//! other.

mod common;

use common::Desk;

fn recipe(degrees: &[f64], lr: f64) -> String {
    format!(
        "seed = 1\n[stream]\ndataset = \"digits\"\nkind = \"rotated\"\ndegrees = {degrees:?}\n\
         per_experience = 300\n[network]\nkind = \"mlp\"\nhidden = [32]\n\
         [train]\nlr = {lr:?}\nsteps = 30\nbatch = 16\n[evaluate]\nevery = 0\n"
    )
}

#[test]
fn from_tasks_to_an_audited_run() {
    let desk = Desk::new();
    let write = |name: &str, text: &str| std::fs::write(desk.path(name), text).unwrap();
    // The base, and sixteen tasks between -80 and 160 degrees.
    let degrees: Vec<f64> = [0.0]
        .into_iter()
        .chain((0..16).map(|i| -80.0 + 16.0 * f64::from(i)))
        .collect();
    write("tasks.toml", &recipe(&degrees, 0.02));
    write("new.toml", &recipe(&[0.0, 100.0], 0.02));
    write("other.toml", &recipe(&[0.0, 100.0], 0.03));
    let build = [
        "forecast",
        "build",
        "tasks.toml",
        "-o",
        "matrix",
        "--examples",
        "200",
        "--quiet",
    ];
    let base = [
        "--base-set",
        "train.steps=300",
        "--base-set",
        "train.lr=0.1",
        "--json",
    ];
    let part = [&build[..], &base[..], &["--shard", "2/2"]].concat();
    let half = desk.json(&part);
    assert_eq!((&half["done"], &half["tasks"]), (&8.into(), &16.into()));
    let error = desk.fails(&["forecast", "show", "matrix"]);
    assert!(error.contains("no matrix.parquet yet"), "{error}");
    let whole = desk.json(&[&build[..], &base[..]].concat());
    assert_eq!(whole["examples"], 200);
    assert!(whole["mean_rise"].as_f64().unwrap() > 0.0);

    let shown = desk.json(&["forecast", "show", "matrix", "--json", "--svg", "m.svg"]);
    assert!(shown["r2"][2].as_f64().unwrap() > shown["column_means"].as_f64().unwrap());
    assert!(
        std::fs::read_to_string(desk.path("m.svg"))
            .unwrap()
            .contains("</svg>")
    );
    assert!(
        desk.done(&["forecast", "show", "matrix"])
            .contains("rank 3")
    );
    let score = [
        "forecast",
        "score",
        "matrix",
        "--fast",
        "--repeats",
        "2",
        "--json",
    ];
    let scored = desk.json(&score);
    assert_eq!(scored["scores"].as_array().unwrap().len(), 3);
    let error = desk.fails(&["forecast", "score", "matrix", "--test", "nothing"]);
    assert!(error.contains("no task `nothing`"), "{error}");
    let error = desk.fails(&["forecast", "score", "matrix", "--known", "9"]);
    assert!(error.contains("too few"), "{error}");

    // A budget that nothing breaks is kept; one that everything breaks is told by the exit code.
    let plan = ["plan", "new.toml", "--matrix", "matrix", "-o", "plans"];
    let made = desk.json(&[&plan[..], &["--budget", "1000", "--json"]].concat());
    assert_eq!(made["replay"].as_array().unwrap().len(), 15);
    assert_eq!(made["guarded"].as_array().unwrap().len(), 11);
    let out = desk.ebb(&[&plan[..], &["--budget", "-1000"]].concat());
    assert_eq!(out.status.code(), Some(1));
    assert!(
        std::fs::read_to_string(desk.path("plans/plan.html"))
            .unwrap()
            .contains("Most at risk")
    );
    let error = desk.fails(&["plan", "other.toml", "--matrix", "matrix"]);
    assert!(error.contains("fine-tuning recipe"), "{error}");

    let learn = [
        "learn",
        "new.toml",
        "--plan",
        "plans/plan.json",
        "--matrix",
        "matrix",
    ];
    desk.done(&[&learn[..], &["-o", "run", "--quiet"]].concat());
    let text = std::fs::read_to_string(desk.path("run/recipe.toml")).unwrap();
    assert!(text.contains("kind = \"planned\""), "{text}");
    let audit = desk.json(&["audit", "--forecast", "run", "--matrix", "matrix", "--json"]);
    // Some of the fifteen replayed may be among the thirty known.
    let scored = audit["examples"].as_u64().unwrap();
    assert!((200 - 30 - 15..=200 - 30).contains(&scored), "{scored}");
    let error = desk.fails(&["audit", "--forecast", "matrix", "--matrix", "matrix"]);
    assert!(error.contains("plan.json"), "{error}");
}

#[test]
fn a_matrix_of_the_users_own() {
    let desk = Desk::new();
    let mut csv = "example,base_loss".to_owned();
    (0..12).for_each(|i| csv += &format!(",task {i}"));
    for j in 0..60 {
        csv += &format!("\nx{j},0.5");
        for i in 0..12 {
            let z = 0.1 * f64::from(i) + 0.01 * f64::from(j * (i % 3));
            let gap = (i, j) == (3, 7);
            csv += &if gap { ",".to_owned() } else { format!(",{z}") };
        }
    }
    std::fs::write(desk.path("m.csv"), csv).unwrap();
    let shown = desk.json(&["forecast", "show", "m.csv", "--json"]);
    assert_eq!(
        (&shown["tasks"], &shown["examples"]),
        (&12.into(), &59.into())
    );
    let scored = desk.json(&[
        "forecast",
        "score",
        "m.csv",
        "--fast",
        "--repeats",
        "2",
        "--json",
    ]);
    assert_eq!(scored["test"].as_array().unwrap().len(), 2);
    std::fs::write(desk.path("m.csv"), "example,a\nx,high\n").unwrap();
    let error = desk.fails(&["forecast", "show", "m.csv"]);
    assert!(error.contains("line 2"), "{error}");
}
