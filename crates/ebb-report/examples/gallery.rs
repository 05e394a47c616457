//! Writes every kind of page from synthetic runs, to look at in a browser:
//! `cargo run --release -p ebb-report --example gallery -- DIR`

#[path = "../tests/fixture/mod.rs"]
mod fixture;

use std::path::Path;

use ebb_report::{
    Options, RunData, Terminal, Theme, matrix_svg, render, terminal_matrix, terminal_table,
};
use fixture::{LEARNERS, number, run, unfinished};

fn main() -> std::io::Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "gallery".into());
    let dir = Path::new(&dir);
    std::fs::create_dir_all(dir)?;
    let four: Vec<RunData> = LEARNERS
        .iter()
        .flat_map(|&l| (0..5).map(move |seed| run(l, 5, 200, seed)))
        .collect();
    let mut refused = four.clone();
    for r in refused.iter_mut().filter(|r| r.method == "ewc") {
        let forgetting = number(r, "forgetting");
        forgetting.protocol = forgetting.protocol.replace(
            "maximum over rows excluding the last",
            "row after the set was trained",
        );
    }
    refused.truncate(16);
    let long: Vec<RunData> = (0..3).map(|seed| run(LEARNERS[3], 20, 60, seed)).collect();
    let long_four: Vec<RunData> = LEARNERS
        .iter()
        .flat_map(|&l| (0..3).map(move |seed| run(l, 20, 60, seed)))
        .collect();
    let pages = [
        ("four", four.clone()),
        ("refused", refused),
        ("one", vec![run(LEARNERS[2], 5, 200, 1)]),
        ("seeds", four[15..].to_vec()),
        ("long", long.clone()),
        ("long-four", long_four),
        ("unfinished", vec![unfinished(LEARNERS[3])]),
        ("empty", Vec::new()),
    ];
    for (name, runs) in &pages {
        for (suffix, theme) in [
            ("", Theme::Auto),
            ("-light", Theme::Light),
            ("-dark", Theme::Dark),
        ] {
            let options = Options {
                theme,
                footer: Some("ebb 0.1.0, synthetic runs".into()),
                ..Options::default()
            };
            let page = render(runs, &options);
            println!("{name}{suffix}: {} kB", page.len() / 1024);
            std::fs::write(dir.join(format!("{name}{suffix}.html")), page)?;
        }
        std::fs::write(dir.join(format!("{name}.svg")), matrix_svg(runs))?;
    }
    let terminal = Terminal::detect(true, Some(100), |name| std::env::var(name).ok());
    for (_, runs) in &pages[1..] {
        println!(
            "{}{}",
            terminal_matrix(runs, &terminal),
            terminal_table(runs, &terminal)
        );
    }
    Ok(())
}
