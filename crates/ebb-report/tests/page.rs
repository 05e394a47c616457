//! The page as a whole: it is well formed, complete, closed to the network and to outside markup.

mod fixture;
mod markup;

use ebb_report::{Options, RunData, Status, Theme, matrix_svg, render};
use fixture::{LEARNERS, number, run, unfinished};

fn four() -> Vec<RunData> {
    LEARNERS
        .iter()
        .flat_map(|&l| (0..3).map(move |seed| run(l, 5, 60, seed)))
        .collect()
}

fn page(runs: &[RunData]) -> String {
    render(runs, &Options::default())
}

/// Every shape of input the page has a layout for.
fn shapes() -> Vec<(&'static str, Vec<RunData>)> {
    let mut broken = run(LEARNERS[2], 5, 60, 1);
    broken.matrix[2][1] = Some(f64::NAN);
    broken.matrix[3].truncate(2);
    broken.initial.clear();
    number(&mut broken, "average_accuracy").value = f64::NAN;
    number(&mut broken, "forgetting").ci_low = Some(f64::NEG_INFINITY);
    broken.cost.train_seconds = Some(f64::INFINITY);
    broken.curves.sets[1][40] = Some(f64::NAN);
    broken.curves.sets[2].truncate(10);
    let mut recurring = run(LEARNERS[2], 5, 60, 1);
    recurring.sets = vec!["a".into(), "b".into(), "c".into(), "d".into(), "e".into()];
    recurring.experiences[3].teaches = Some(vec![0, 1]);
    recurring.experiences[4].teaches = Some(vec![]);
    vec![
        ("none", vec![]),
        ("nothing measured", vec![RunData::default()]),
        ("one", vec![run(LEARNERS[2], 5, 60, 1)]),
        (
            "seeds",
            (0..3).map(|s| run(LEARNERS[3], 5, 60, s)).collect(),
        ),
        ("four", four()),
        (
            "twenty",
            vec![run(LEARNERS[3], 20, 20, 1), run(LEARNERS[2], 20, 20, 1)],
        ),
        ("unfinished", vec![unfinished(LEARNERS[3])]),
        ("broken", vec![broken.clone(), run(LEARNERS[3], 5, 60, 1)]),
        ("broken alone", vec![broken]),
        ("recurring", vec![recurring]),
    ]
}

#[test]
fn every_page_and_picture_is_well_formed() {
    for (name, runs) in shapes() {
        for theme in [Theme::Auto, Theme::Light, Theme::Dark] {
            let html = render(
                &runs,
                &Options {
                    theme,
                    ..Options::default()
                },
            );
            markup::check(&html).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(!html.contains("NaN") && !html.contains("inf%"), "{name}");
        }
        markup::check(&matrix_svg(&runs)).unwrap_or_else(|e| panic!("{name}, svg: {e}"));
    }
}

#[test]
fn the_checker_finds_what_it_is_there_for() {
    for bad in [
        "<p>",
        "<p></b>",
        "<p a=1></p>",
        "a < b",
        "<p>1 > 2</p>",
        "<i x=\"a\" x=\"b\"></i>",
    ] {
        assert!(markup::check(bad).is_err(), "{bad}");
    }
    assert!(markup::check("<p a=\"1\">x<br><path d=\"\"/></p><style>a>b{}</style>").is_ok());
}

#[test]
fn nothing_is_fetched_and_nothing_is_left_to_scripts() {
    let html = page(&four());
    for (tag, attributes) in markup::check(&html).unwrap() {
        assert!(
            !["link", "img", "iframe", "object", "embed", "base"].contains(&tag.as_str()),
            "{tag}"
        );
        for (key, value) in attributes {
            assert!(
                !["src", "href", "xlink:href"].contains(&key.as_str()) || value.starts_with('#'),
                "{key}={value}"
            );
            assert!(!key.starts_with("on"), "{key}={value}");
        }
    }
    assert!(!html.contains("@import") && !html.contains("url(") && !html.contains("@font-face"));
    // Without the script, only what needs it is gone.
    let start = html.find("<script>").unwrap();
    assert!(
        html[start..].find("</script>").unwrap() < 6_000,
        "the script stays small"
    );
    assert!(html[..start].contains("</main>"));
}

/// A text that would become markup, in every place that takes outside text.
#[test]
fn outside_text_stays_text() {
    let evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;";
    let mut runs = vec![
        run(LEARNERS[0], 5, 20, 0),
        run(LEARNERS[1], 5, 20, 1),
        run(LEARNERS[1], 5, 20, 1),
    ];
    runs.push(run(LEARNERS[2], 20, 20, 0));
    for (n, r) in runs.iter_mut().enumerate() {
        r.name = format!("{evil}{n}");
        for text in [
            &mut r.method,
            &mut r.stream,
            &mut r.scenario,
            &mut r.network,
            &mut r.recipe,
            &mut r.recipe_id,
        ] {
            *text = format!("{evil}{text}");
        }
        r.experiences.iter_mut().for_each(|e| e.name = evil.into());
        r.sets = vec![evil.into(); r.experiences.len()];
        r.accepted = vec![evil.into()];
        r.protocol = vec![(evil.into(), evil.into())];
        r.environment = vec![(evil.into(), format!("{evil}{n}"))];
        for number in &mut r.numbers {
            number.protocol = format!("{evil}{}", number.protocol);
        }
        r.numbers[3].name = evil.into();
        for state in &mut r.states {
            state.id = format!("{evil}{}", state.id);
            state.verb = evil.into();
            state.at = evil.into();
            state.parent = Some(evil.into());
        }
    }
    runs[0].status = Status::Unfinished(evil.into());
    let options = Options {
        title: Some(evil.into()),
        footer: Some(evil.into()),
        ..Options::default()
    };
    for document in [render(&runs, &options), page(&runs), matrix_svg(&runs)] {
        let tags = markup::check(&document).unwrap();
        assert!(tags.iter().filter(|(tag, _)| tag == "script").count() <= 1);
        assert!(
            tags.iter()
                .all(|(tag, a)| tag != "img" && a.iter().all(|(k, _)| k != "onerror"))
        );
        assert!(document.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    }
}

#[test]
fn every_number_of_a_run_is_on_its_page() {
    let r = run(LEARNERS[2], 5, 60, 1);
    let html = page(std::slice::from_ref(&r));
    let text = |v: f64| {
        format!("{:.1}", 100.0 * v)
            .replace('-', "−")
            .replace("−0.0", "0.0")
    };
    let shown = |t: &str| html.contains(&format!(">{t}<"));
    for value in r.matrix.iter().flatten().chain(&r.initial).flatten() {
        assert!(shown(&text(*value)), "matrix {value}");
    }
    assert!(r.numbers.len() > 15);
    for n in &r.numbers {
        // Steps and areas are not fractions of examples.
        let steps = n.name == "gap_recovery" || n.name == "gap_area";
        let write = |v: f64| if steps { four_digits(v) } else { text(v) };
        assert!(shown(&write(n.value)), "{} {}", n.name, n.value);
        if let (Some(low), Some(high)) = (n.ci_low, n.ci_high) {
            let interval = format!("{} to {}", write(low), write(high));
            assert!(html.contains(&interval), "{} {interval}", n.name);
        }
    }
    let cost = &r.cost;
    let per_second = (cost.steps.unwrap() as f64 / cost.train_seconds.unwrap()).round();
    for expected in [
        format!("{:.2} s", cost.train_seconds.unwrap()),
        format!("{:.2} s", cost.total_seconds.unwrap()),
        cost.steps.unwrap().to_string(),
        format!("{per_second}"),
        "91,400".into(),
        "38,400".into(),
        "1.50 MiB".into(),
    ] {
        assert!(shown(&expected), "{expected}");
    }
    assert_eq!(
        (cost.forward_rows, cost.backward_rows),
        (Some(91_400), Some(38_400))
    );
    for state in &r.states {
        assert!(html.contains(&state.id));
    }
}

#[test]
fn the_lowest_point_of_each_curve_is_drawn_and_written() {
    let mut r = run(LEARNERS[3], 5, 3_000, 1);
    // One step, far from any switch, in the middle of a long stretch.
    r.curves.sets[0][11_111] = Some(0.017);
    let html = page(std::slice::from_ref(&r));
    assert!(html.contains("<td>1.7</td>") && html.contains("<td>11,111</td>"));
    assert!(html.contains("M11111 983h.01"), "its ring");
    // Drawn from the top in thousandths: the line itself must reach 983 at step 11,111.
    let line = html.split("class=\"line s0\"").nth(1).unwrap();
    let d = line
        .split("d=\"M")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let values: Vec<i64> = d.split(['l', ' ']).map(|v| v.parse().unwrap()).collect();
    let (mut x, mut y, mut reached) = (values[0], values[1], false);
    for step in values[2..].chunks(2) {
        (x, y) = (x + step[0], y + step[1]);
        reached |= (x, y) == (11_111, 983);
    }
    assert!(reached);
    assert!(
        values.len() / 2 < r.curves.steps.len() / 4,
        "and yet it is thinned"
    );
}

#[test]
fn protocols_that_differ_are_refused_one_column() {
    let mut runs = four();
    for r in runs.iter_mut().filter(|r| r.method == "ewc") {
        let protocol = &mut number(r, "forgetting").protocol;
        *protocol = protocol.replace(
            "maximum over rows excluding the last",
            "row after the set was trained",
        );
    }
    let html = page(&runs);
    assert!(html.contains(
        "Forgetting: shown apart, because the numbers were taken under different protocols"
    ));
    assert!(html.contains("Not comparable with the panel before"));
    assert!(!html.contains("Average accuracy: shown apart"));
    let same = page(&four());
    assert!(!same.contains("shown apart, because") && !same.contains("Not comparable"));
}

#[test]
fn what_was_accepted_by_name_and_what_does_not_count_is_said() {
    let mut runs = four();
    runs.push(RunData {
        name: "again".into(),
        ..runs[0].clone()
    });
    let html = page(&runs);
    assert!(html.contains("it cannot separate classes it never sees together"));
    assert!(html.contains("<b>again</b> left out of the means"));
    let html = page(&[unfinished(LEARNERS[3])]);
    assert!(html.contains("stopped in experience 3 of 5 at step 520"));
}

#[test]
fn the_same_runs_give_the_same_bytes() {
    assert_eq!(page(&four()), page(&four()));
    assert_eq!(matrix_svg(&four()), matrix_svg(&four()));
}

#[test]
fn tables_name_their_rows_and_columns() {
    let html = page(&four());
    let tags = markup::check(&html).unwrap();
    let heads = tags.iter().filter(|(tag, _)| tag == "th");
    assert!(heads.clone().count() > 50);
    assert!(
        heads
            .clone()
            .all(|(_, a)| a.iter().any(|(k, _)| k == "scope"))
    );
    let plots = tags
        .iter()
        .filter(|(_, a)| a.iter().any(|(k, v)| k == "role" && v == "img"));
    assert!(plots.clone().count() >= 4);
    assert!(
        plots
            .clone()
            .all(|(_, a)| a.iter().any(|(k, v)| k == "aria-label" && !v.is_empty()))
    );
}

/// Four significant digits, as the page writes numbers that are no fractions.
fn four_digits(v: f64) -> String {
    let decimals = (3 - v.abs().log10().floor() as i32).clamp(0, 9) as usize;
    if v == v.trunc() {
        format!("{v}")
    } else {
        format!("{v:.decimals$}")
    }
}
