//! What stands in the terminal: within its width, without colour where none is wanted.

mod fixture;

use ebb_report::{Colour, RunData, Terminal, terminal_matrix, terminal_table};
use fixture::{LEARNERS, number, run, unfinished};

fn shapes() -> Vec<Vec<RunData>> {
    let four = LEARNERS
        .iter()
        .flat_map(|&l| (0..3).map(move |s| run(l, 5, 60, s)));
    vec![
        Vec::new(),
        vec![RunData::default()],
        vec![run(LEARNERS[2], 5, 60, 1)],
        vec![unfinished(LEARNERS[3])],
        vec![run(LEARNERS[3], 20, 30, 1)],
        vec![run(LEARNERS[3], 60, 30, 1)],
        four.clone().collect(),
        four.take(10).collect(),
    ]
}

#[test]
fn lines_stay_within_the_width() {
    for runs in shapes() {
        for width in [40, 60, 80, 120] {
            let terminal = Terminal {
                width,
                colour: Colour::None,
            };
            let text = terminal_matrix(&runs, &terminal) + &terminal_table(&runs, &terminal);
            for line in text.lines() {
                assert!(
                    line.chars().count() <= width,
                    "{width}: {}: {line}",
                    line.chars().count()
                );
            }
        }
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    for runs in shapes() {
        let text = |colour| {
            let terminal = Terminal { width: 100, colour };
            terminal_matrix(&runs, &terminal) + &terminal_table(&runs, &terminal)
        };
        let plain = text(Colour::None);
        assert!(!plain.contains('\x1b'));
        for colour in [Colour::Ansi256, Colour::True] {
            assert_eq!(strip(&text(colour)), plain);
        }
    }
}

#[test]
fn the_numbers_and_the_dip_are_there() {
    let mut r = run(LEARNERS[3], 5, 2_000, 1);
    r.curves.sets[1][7_200] = Some(0.021);
    let terminal = Terminal {
        width: 100,
        colour: Colour::None,
    };
    let text = terminal_matrix(std::slice::from_ref(&r), &terminal);
    for value in r.matrix.iter().flatten().flatten() {
        assert!(text.contains(&format!("{:.1}", 100.0 * value)), "{value}");
    }
    let line = text.lines().find(|l| l.starts_with("2 2 and 3")).unwrap();
    assert!(line.contains("2.1"), "{line}");
    // The one bad step is a gap in a row of high blocks.
    assert!(line.contains("█▁█"), "{line}");
    let table = terminal_table(std::slice::from_ref(&r), &terminal);
    for n in r.numbers.iter().take(4) {
        assert!(
            table.contains(&format!("{:.1}", 100.0 * n.value)),
            "{}",
            n.name
        );
    }
}

#[test]
fn different_protocols_are_refused_one_column() {
    let mut runs = vec![run(LEARNERS[2], 5, 60, 1), run(LEARNERS[3], 5, 60, 1)];
    let terminal = Terminal {
        width: 100,
        colour: Colour::None,
    };
    assert!(!terminal_table(&runs, &terminal).contains("shown apart"));
    number(&mut runs[1], "forgetting")
        .protocol
        .insert_str(0, "another ");
    let table = terminal_table(&runs, &terminal);
    assert!(
        table.contains("Forgetting [1]") && table.contains("Forgetting [2]"),
        "{table}"
    );
    assert!(
        table.contains("shown apart, because the numbers were taken under different protocols")
    );
}

#[test]
fn outside_text_cannot_drive_the_terminal() {
    let mut r = run(LEARNERS[2], 5, 60, 1);
    for text in [&mut r.method, &mut r.stream, &mut r.network] {
        text.push_str("\x1b[2J\x07");
    }
    r.experiences[0].name = "\x1b]0;x\x07".into();
    r.numbers[4].name.push('\x1b');
    let other = RunData {
        recipe_id: "\x1b[1m".into(),
        ..r.clone()
    };
    let terminal = Terminal {
        width: 100,
        colour: Colour::None,
    };
    for runs in [vec![r.clone()], vec![r, other]] {
        let text = terminal_matrix(&runs, &terminal) + &terminal_table(&runs, &terminal);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
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
