//! Groups against one another: every p is computed again here from its definition.

mod fixture;

use ebb_report::{
    Colour, Contest, Cost, Entry, Question, Refusal, RunData, Status, Terminal, Test, Verdict,
    contest, terminal_contest,
};
use ebb_space::{Direction, Number, Unit};
use fixture::{LEARNERS, run, unfinished};

/// Hundredths of average accuracy under seeds 0 to 7.
const FINE_TUNE: [i64; 8] = [20, 21, 19, 22, 18, 20, 21, 19];
const ER: [i64; 8] = [60, 64, 58, 61, 63, 59, 62, 60];
/// Better in five seeds, worse in two, equal in one.
const EWC: [i64; 8] = [21, 20, 22, 24, 18, 21, 20, 23];

fn number(name: &str, hundredths: i64, direction: Direction) -> Number {
    Number {
        name: name.into(),
        value: hundredths as f64 / 100.0,
        ci_low: Some(0.0),
        ci_high: Some(1.0),
        n: 359,
        unit: Unit::Example,
        direction,
        protocol: format!("{name} by its definition; digits; 95 % interval over examples"),
    }
}

/// A run as its summary tells of it; forgetting is what accuracy leaves.
fn told(method: &str, seed: u64, hundredths: i64, rows: u64, bytes: u64) -> RunData {
    RunData {
        name: format!("runs/{method}-{seed}"),
        method: method.into(),
        stream: "split digits".into(),
        scenario: "class".into(),
        seed,
        recipe_id: method.into(),
        numbers: vec![
            number("average_accuracy", hundredths, Direction::Higher),
            number("forgetting", 100 - hundredths, Direction::Lower),
        ],
        cost: Cost {
            forward_rows: Some(rows),
            backward_rows: Some(rows),
            gradient_calls: Some(730),
            memory_bytes: Some(bytes),
            train_seconds: Some(rows as f64 / 1000.0),
            ..Cost::default()
        },
        ..RunData::default()
    }
}

fn seeds(method: &str, values: &[i64], rows: u64, bytes: u64) -> Vec<Entry> {
    let run = |(seed, v): (usize, &i64)| told(method, seed as u64, *v, rows, bytes);
    unnamed(values.iter().enumerate().map(run))
}

fn unnamed(runs: impl IntoIterator<Item = RunData>) -> Vec<Entry> {
    let entry = |run| Entry { group: None, run };
    runs.into_iter().map(entry).collect()
}

fn three() -> Vec<Entry> {
    let er = seeds("er", &ER, 14_380, 164_000);
    let fine_tune = seeds("fine-tune", &FINE_TUNE, 7_190, 0);
    let ewc = seeds("ewc", &EWC, 14_380, 168_800);
    [er, fine_tune, ewc].concat()
}

fn question(metrics: &[&str]) -> Question {
    Question {
        metrics: metrics.iter().map(|m| m.to_string()).collect(),
        against: None,
        all_pairs: false,
        alpha: 0.05,
    }
}

fn accuracy() -> Question {
    question(&["average_accuracy"])
}

/// The share of all sign patterns of the differences whose sum is as far from 0 as the observed.
fn p_by_definition(a: &[i64], b: &[i64]) -> f64 {
    let d: Vec<i64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let observed = d.iter().sum::<i64>().abs();
    let patterns = 1u32 << d.len();
    let sum = |bits: u32| -> i64 {
        let signed = |(i, d): (usize, &i64)| if bits >> i & 1 == 1 { *d } else { -d };
        d.iter().enumerate().map(signed).sum()
    };
    let extreme = (0..patterns).filter(|bits| sum(*bits).abs() >= observed);
    extreme.count() as f64 / f64::from(patterns)
}

/// Holm's correction as the closure of Bonferroni's test (Marcus, Peritz & Gabriel 1976): a
/// hypothesis falls when every set of hypotheses that holds it does.
fn holm_by_definition(p: &[f64], i: usize) -> f64 {
    let sets = (0..1u32 << p.len()).filter(|set| set >> i & 1 == 1);
    let bonferroni = |set: u32| -> f64 {
        let held = (0..p.len()).filter(|k| set >> k & 1 == 1);
        let least = held.map(|k| p[k]).fold(1.0, f64::min);
        (f64::from(set.count_ones()) * least).min(1.0)
    };
    sets.map(bonferroni).fold(0.0, f64::max)
}

fn near(a: Option<f64>, b: f64) -> bool {
    a.is_some_and(|a| (a - b).abs() < 1e-12)
}

#[test]
fn p_values_and_their_correction_are_those_of_the_definitions() {
    let found = contest(&three(), &accuracy()).unwrap();
    assert_eq!((found.against.as_str(), found.tests), ("fine-tune", 2));
    let p = [
        p_by_definition(&ER, &FINE_TUNE),
        p_by_definition(&EWC, &FINE_TUNE),
    ];
    // Every seed is better with er: two patterns of 2⁸. With ewc the differences are
    // 1, −1, 3, 2, 0, 1, −1, 4, their sum 9 of at most 13: as far out are the patterns in which
    // what points the other way adds to at most 2: nothing, a one (4), the two, two ones (6).
    assert_eq!(p, [2.0 / 256.0, 24.0 / 128.0]);
    let pairs = &found.measures[0].pairs;
    for (i, (pair, name)) in pairs.iter().zip(["er", "ewc"]).enumerate() {
        assert_eq!((pair.a.as_str(), pair.b.as_str()), (name, "fine-tune"));
        assert_eq!((pair.test, pair.n), (Some(Test::SignFlip), [8, 8]));
        assert!(near(pair.p, p[i]), "{pair:?}");
        assert!(near(pair.p_holm, holm_by_definition(&p, i)), "{pair:?}");
        assert!(near(pair.least_p, 2.0 / 256.0) && near(pair.least_p_holm, 4.0 / 256.0));
    }
    assert!(near(pairs[0].p_holm, 4.0 / 256.0) && near(pairs[1].p_holm, 24.0 / 128.0));
    assert_eq!(
        [pairs[0].verdict, pairs[1].verdict],
        [Verdict::Better, Verdict::Undecided]
    );
    // Differences of er: 40, 43, 39, 39, 45, 39, 41, 41: mean 40.875, squared deviations 32.875 in
    // all, t(0.975, 7) = 2.364624.
    let half = 2.364_624_252 * (32.875f64 / 7.0 / 8.0).sqrt() / 100.0;
    assert!(near(pairs[0].difference, 0.408_75));
    assert!((pairs[0].ci_low.unwrap() - (0.408_75 - half)).abs() < 1e-9);
    assert!((pairs[0].ci_high.unwrap() - (0.408_75 + half)).abs() < 1e-9);
}

#[test]
fn all_pairs_and_all_measures_are_corrected_together() {
    let question = Question {
        all_pairs: true,
        against: Some("er".into()),
        ..question(&["forgetting", "average_accuracy"])
    };
    let found = contest(&three(), &question).unwrap();
    let pairs: Vec<_> = found.measures.iter().flat_map(|m| &m.pairs).collect();
    let names: Vec<[&str; 2]> = pairs.iter().map(|p| [p.a.as_str(), p.b.as_str()]).collect();
    let three = [["fine-tune", "er"], ["ewc", "er"], ["ewc", "fine-tune"]];
    assert_eq!(names, [three, three].concat());
    let p = [
        p_by_definition(&FINE_TUNE, &ER),
        p_by_definition(&EWC, &ER),
        p_by_definition(&EWC, &FINE_TUNE),
    ];
    let p = [p, p].concat();
    for (i, pair) in pairs.iter().enumerate() {
        assert!(near(pair.p, p[i]) && near(pair.p_holm, holm_by_definition(&p, i)));
    }
    // Less forgetting is better, so the verdicts on both measures agree.
    let verdicts: Vec<Verdict> = pairs.iter().map(|p| p.verdict).collect();
    let three = [Verdict::Worse, Verdict::Worse, Verdict::Undecided];
    assert_eq!(verdicts, [three, three].concat());
}

#[test]
fn too_few_seeds_cannot_decide_and_it_is_said() {
    let five = |method, values: &[i64]| seeds(method, &values[..5], 100, 0);
    let entries = [five("fine-tune", &FINE_TUNE), five("er", &ER)].concat();
    let found = contest(&entries, &accuracy()).unwrap();
    let pair = &found.measures[0].pairs[0];
    // All five seeds agree: two patterns of 32 are as extreme, and none is more so.
    assert!(near(pair.p, 0.0625) && near(pair.least_p, 0.0625) && near(pair.p_holm, 0.0625));
    assert!(!pair.can_decide(found.alpha));
    assert_eq!(pair.verdict, Verdict::Undecided);
    let text = plain(&found, 200);
    for part in [
        "undecided with 5 seeds",
        "With 5 seeds the smallest p it can reach is 0.0625: that cannot reach 0.05",
        "(6 seeds could)",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

#[test]
fn an_interval_that_disagrees_with_the_test_is_explained() {
    // Eight differences above 0, one of them far out: p is the least there is, while the mean is
    // 18.5 and t(0.975, 7)·s/√8 is 2.3646·48.69/2.8284 = 40.7.
    let above: Vec<i64> = [1, 2, 1, 1, 2, 1, 1, 139].to_vec();
    let nothing = [0i64; 8];
    let entries = [
        seeds("er", &above, 100, 0),
        seeds("fine-tune", &nothing, 100, 0),
    ]
    .concat();
    let found = contest(&entries, &accuracy()).unwrap();
    let pair = &found.measures[0].pairs[0];
    assert_eq!((pair.p, pair.verdict), (Some(2.0 / 256.0), Verdict::Better));
    assert!((pair.difference.unwrap() - 0.185).abs() < 1e-12);
    assert!(
        (pair.ci_low.unwrap() - (0.185 - 0.407_071)).abs() < 1e-6,
        "{pair:?}"
    );
    let text = plain(&found, 200);
    assert!(
        text.contains("er − fine-tune: the test decides although the interval holds 0"),
        "{text}"
    );
}

#[test]
fn costs_are_ratios_and_what_is_missing_is_not_0() {
    let mut entries = three();
    for entry in &mut entries {
        if entry.run.method == "ewc" {
            entry.run.cost.memory_bytes = None;
        }
    }
    // A mean over the other seven would pass for one over all.
    entries[3].run.cost.train_seconds = None;
    let found = contest(&entries, &accuracy()).unwrap();
    let [er, fine_tune, ewc] = &found.groups[..] else {
        panic!("three groups")
    };
    assert_eq!(er.cost.forward_rows.unwrap().ratio, Some(2.0));
    assert_eq!(er.cost.gradient_calls.unwrap().ratio, Some(1.0));
    // Nothing is a multiple of nothing.
    assert_eq!(
        er.cost.memory_bytes.map(|p| (p.mean, p.ratio)),
        Some((164_000.0, None))
    );
    assert_eq!(fine_tune.cost.memory_bytes.unwrap().mean, 0.0);
    assert_eq!((ewc.cost.memory_bytes, er.cost.train_seconds), (None, None));
    let text = plain(&found, 200);
    let line = text
        .lines()
        .rfind(|l| l.starts_with("ewc  ") && l.contains("14.4 k"));
    assert!(line.unwrap().contains('–'), "{text}");
}

#[test]
fn domination_needs_every_cost_and_the_value() {
    let dominated = |change: &dyn Fn(&mut RunData)| {
        let mut entries = three();
        entries.iter_mut().for_each(|entry| change(&mut entry.run));
        let found = contest(&entries, &accuracy()).unwrap();
        let list = found.measures[0].dominated.iter();
        list.map(|d| format!("{} by {}", d.group, d.by.join(" ")))
            .collect::<Vec<_>>()
    };
    // As many rows as er, more bytes, less accuracy; fine-tuning is the cheapest of all.
    assert_eq!(dominated(&|_| {}), ["ewc by er"]);
    let of = |method: &'static str, change: fn(&mut Cost)| {
        dominated(&|run| {
            if run.method == method {
                change(&mut run.cost);
            }
        })
    };
    assert!(of("ewc", |c| c.memory_bytes = Some(0)).is_empty());
    assert!(of("ewc", |c| c.forward_rows = Some(1)).is_empty());
    assert!(of("ewc", |c| c.memory_bytes = None).is_empty());
    assert!(of("er", |c| c.backward_rows = None).is_empty());
    assert_eq!(
        of("fine-tune", |c| c.memory_bytes = Some(1 << 20)),
        ["ewc by er"]
    );
}

#[test]
fn what_cannot_be_compared_is_refused_with_the_reason() {
    let refused = |entries: &[Entry]| contest(entries, &accuracy()).unwrap_err();
    let with = |change: &dyn Fn(&mut RunData)| {
        let mut entries = three();
        let ewc = entries.iter_mut().filter(|e| e.run.method == "ewc");
        ewc.for_each(|entry| change(&mut entry.run));
        entries
    };
    let protocol = refused(&with(&|r| {
        r.numbers[0].protocol = "average_accuracy by its definition; letters".into();
    }));
    assert_eq!(
        protocol.to_string(),
        "average_accuracy of `er` and of `ewc` cannot be compared: the protocols differ: `digits` \
         and `letters`"
    );
    let stream = refused(&with(&|r| r.stream = "permuted digits".into()));
    assert!(
        stream
            .to_string()
            .contains("the streams differ: `split digits, class` and"),
        "{stream}"
    );
    // A single run's interval is over examples.
    let mut single = three();
    single.truncate(17);
    let single = refused(&single);
    assert!(
        matches!(&*single, Refusal::SingleRun { single, run, group, .. }
            if single == "ewc" && run == "runs/ewc-0" && group == "er"),
        "{single:?}"
    );
    // Another measure of the same runs is not concerned.
    let mut entries = with(&|r| r.numbers[0].protocol.push_str("; letters"));
    assert!(contest(&entries, &question(&["forgetting"])).is_ok());
    let unknown = contest(&entries, &question(&["accuracy"])).unwrap_err();
    assert!(
        unknown
            .to_string()
            .contains("measured were: average_accuracy, forgetting"),
        "{unknown}"
    );
    entries.truncate(8);
    let alone = refused(&entries);
    assert_eq!(
        alone.to_string(),
        "`er` is one group, and it takes two to compare"
    );
    let against = Question {
        against: Some("gem".into()),
        ..accuracy()
    };
    let nobody = contest(&three(), &against).unwrap_err();
    assert!(nobody.to_string().contains("there are: er, fine-tune, ewc"));
}

#[test]
fn single_runs_stand_beside_one_another_without_a_test() {
    let entries = unnamed([told("er", 0, 60, 100, 10), told("fine-tune", 0, 20, 100, 0)]);
    let found = contest(&entries, &accuracy()).unwrap();
    let pair = &found.measures[0].pairs[0];
    assert_eq!(
        (pair.verdict, pair.p, found.tests),
        (Verdict::NotTested, None, 0)
    );
    assert!(near(pair.difference, 0.4));
    let text = plain(&found, 100);
    assert!(
        text.contains("interval over examples") && text.contains("not tested: too few seeds"),
        "{text}"
    );
}

#[test]
fn an_unfinished_run_and_a_twin_are_named_and_do_not_count() {
    let mut entries = three();
    entries[0].run.status = Status::Unfinished("in experience 2 of 5, step 300".into());
    entries.push(entries[9].clone());
    entries.last_mut().unwrap().run.name = "runs/again".into();
    let found = contest(&entries, &accuracy()).unwrap();
    let left: Vec<&str> = found.left_out.iter().map(|l| l.run.as_str()).collect();
    assert_eq!(left, ["runs/er-0", "runs/again"]);
    assert_eq!(found.groups[0].seeds, [1, 2, 3, 4, 5, 6, 7]);
    // Seven shared seeds are left: two patterns of 128.
    let pair = &found.measures[0].pairs[0];
    assert!(near(pair.p, 2.0 / 128.0) && pair.n == [7, 7]);
    let text = plain(&found, 200);
    for part in [
        "left out: runs/er-0 (unfinished: in experience 2 of 5, step 300)",
        "left out: runs/again (same recipe and seed as runs/fine-tune-1",
        "er − fine-tune: not all seeds are shared",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    let only = unnamed([unfinished(LEARNERS[2])]);
    let nothing = contest(&only, &accuracy()).unwrap_err().to_string();
    assert!(
        nothing.contains("no finished run") && nothing.contains("left out: stopped"),
        "{nothing}"
    );
}

#[test]
fn a_name_makes_a_group_of_one_experiment() {
    let name = |name: &str, entries: Vec<Entry>| -> Vec<Entry> {
        let named = |e: Entry| Entry {
            group: Some(name.into()),
            ..e
        };
        entries.into_iter().map(named).collect()
    };
    let er = |from: usize, recipe: &str| -> Vec<Entry> {
        let mut entries = seeds("er", &ER, 100, 10).split_off(from);
        for entry in &mut entries {
            entry.run.recipe_id = recipe.into();
            entry.run.recipe = format!("seed = 1\n[evaluate]\nevery = {}", recipe.len());
        }
        entries
    };
    let plain_runs = seeds("fine-tune", &FINE_TUNE, 100, 0);
    // One experiment whose recipe was worded differently for some seeds.
    let two = [&er(0, "a")[..4], &er(4, "bb")].concat();
    let found = contest(
        &[name("mine", two), plain_runs.clone()].concat(),
        &accuracy(),
    )
    .unwrap();
    assert_eq!(found.groups[0].name, "mine");
    assert_eq!(found.groups[0].recipe_ids, ["a", "bb"]);
    assert!(
        found.notes[0].contains("mine puts 2 recipes together")
            && found.notes[0].contains("evaluate.every"),
        "{:?}",
        found.notes
    );
    assert!(plain(&found, 80).contains("method"));
    let refused = |entries: Vec<Entry>| contest(&entries, &accuracy()).unwrap_err();
    // Two recipes under one seed, two methods, and one name for two groups.
    let same_seed = [er(0, "a"), er(7, "b")].concat();
    let same_seed = refused([name("mine", same_seed), plain_runs.clone()].concat());
    assert!(
        same_seed
            .to_string()
            .contains("the recipe under seed 7 is a in runs/er-7 and b in"),
        "{same_seed}"
    );
    let mixed = refused(name("mine", three()));
    assert!(
        mixed
            .to_string()
            .contains("the method is er in runs/er-0 and fine-tune in"),
        "{mixed}"
    );
    let twice = refused([name("fine-tune", er(0, "a")), plain_runs].concat());
    assert_eq!(
        *twice,
        Refusal::NameTwice {
            name: "fine-tune".into()
        }
    );
}

#[test]
fn what_must_be_known_is_noted() {
    let mut entries = three();
    for entry in &mut entries {
        let ewc = entry.run.method == "ewc";
        let order = if ewc { "by-seed" } else { "fixed" };
        entry.run.recipe = format!("[stream]\nclass_order = \"{order}\"\n[train]\nlr = 0.1");
        let threads = if ewc { "1 of 2" } else { "2 of 2" };
        entry.run.environment = vec![("threads".into(), threads.into())];
    }
    entries[0].run.numbers.remove(1);
    for entry in entries.iter_mut().filter(|e| e.run.method == "fine-tune") {
        entry.run.numbers.remove(1);
    }
    let metrics = question(&["average_accuracy", "forgetting"]);
    let found = contest(&entries, &metrics).unwrap();
    let text = found.notes.join("\n");
    for part in [
        "describe their streams differently, in stream.class_order",
        "different machines or numbers of threads",
        "er measured forgetting in 7 runs only",
        "fine-tune did not measure forgetting",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    let pair = &found.measures[1].pairs[0];
    assert_eq!((pair.verdict, pair.difference), (Verdict::NotTested, None));
    // What was not tested is no part of the correction.
    assert_eq!(found.tests, 2);
    assert!(plain(&found, 200).contains("not measured"));
}

#[test]
fn the_machine_form_has_every_value() {
    let found = contest(&three(), &accuracy()).unwrap();
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["format_version"], 1);
    assert_eq!(json["measures"][0]["values"][0]["per_seed"]["3"], 0.61);
    assert_eq!(json["measures"][0]["values"][0]["number"]["unit"], "seed");
    assert_eq!(json["measures"][0]["pairs"][0]["test"], "sign-flip");
    assert_eq!(json["measures"][0]["pairs"][1]["verdict"], "undecided");
    assert_eq!(json["groups"][0]["cost"]["forward_rows"]["ratio"], 2.0);
}

fn plain(contest: &Contest, width: usize) -> String {
    let colour = Colour::None;
    let text = terminal_contest(contest, &Terminal { width, colour });
    // Lines are broken between words.
    match width {
        200.. => text.replace('\n', " \n"),
        _ => text,
    }
}

#[test]
fn lines_stay_within_the_width_and_lose_nothing() {
    let learners = LEARNERS
        .iter()
        .flat_map(|&l| (0..3).map(move |seed| run(l, 5, 60, seed)));
    let entries = unnamed(learners);
    let question = Question {
        all_pairs: true,
        ..question(&["average_accuracy", "forgetting", "min_acc", "gap_recovery"])
    };
    let mut found = contest(&entries, &question).unwrap();
    found.groups[1].name.push_str("\x1b[2J");
    for width in [40, 60, 80, 120] {
        let text = |colour| terminal_contest(&found, &Terminal { width, colour });
        let plain = text(Colour::None);
        for line in plain.lines() {
            let chars = line.chars().count();
            assert!(chars <= width, "{width}: {chars}: {line}");
        }
        assert!(plain.chars().all(|c| c == '\n' || !c.is_control()));
        for title in ["training", "p (Holm)", "verdict", "min-ACC, %"] {
            assert!(plain.contains(title), "{width}: {title}\n{plain}");
        }
        assert_eq!(strip(&text(Colour::True)), plain);
    }
}

fn strip(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\x1b') {
        out.push_str(&rest[..at]);
        let end = rest[at..].find('m').expect("only colours");
        rest = &rest[at + end + 1..];
    }
    out + rest
}
