//! Draws the accuracy matrices of runs side by side, as SVG on standard output:
//! `cargo run --release -p ebbinghaus --example picture -- runs/fine-tune-1 runs/der++-1 > learn.svg`

use ebbinghaus::{record, report};
use std::path::Path;

fn main() -> record::Result<()> {
    let mut runs = Vec::new();
    for directory in std::env::args_os().skip(1) {
        let view = record::RunView::load(Path::new(&directory))?;
        runs.push(report::RunData::from_view(&view)?);
    }
    print!("{}", report::matrix_svg(&runs));
    Ok(())
}
