//! The tables of `ebb compare`: what was measured, what it cost, and what the differences come to.

use std::fmt::Write;

use super::{Terminal, paint};
use crate::contest::{Contest, Costs, Measure, Paid, Pair, Test, Verdict};
use crate::format;
use crate::metric::{self, Scale};
use crate::protocol::Shared;
use ebb_record::LEVEL;
use ebb_space::stats::{Alternative, min_reachable_p};
use ebb_space::{Direction, Unit};

/// What a comparison found, within the width of the terminal. Columns that do not fit stand below
/// the others; nothing is left out.
pub fn terminal_contest(contest: &Contest, terminal: &Terminal) -> String {
    let mut out = String::new();
    let page = Page { contest, terminal };
    page.measures(&mut out);
    page.costs(&mut out);
    for measure in &contest.measures {
        page.differences(&mut out, measure);
    }
    page.about_p(&mut out);
    page.domination(&mut out);
    page.notes(&mut out);
    out
}

struct Page<'a> {
    contest: &'a Contest,
    terminal: &'a Terminal,
}

/// A column of a table.
struct Column {
    title: String,
    cells: Vec<String>,
    right: bool,
}

impl Column {
    fn right(title: impl Into<String>, cells: Vec<String>) -> Column {
        Column {
            title: title.into(),
            cells,
            right: true,
        }
    }

    fn width(&self) -> usize {
        let texts = self.cells.iter().chain([&self.title]);
        texts.map(|t| t.chars().count()).max().unwrap_or(0)
    }

    fn padded(&self, text: &str) -> String {
        match self.right {
            true => paint::right(text, self.width()),
            false => paint::left(text, self.width()),
        }
    }
}

/// One of the costs: its title, how to read it and how to write it.
type Kind = (&'static str, fn(&Costs) -> Option<Paid>, fn(f64) -> String);

const KINDS: [Kind; 5] = [
    ("rows forward", |c| c.forward_rows, format::short_count),
    ("rows backward", |c| c.backward_rows, format::short_count),
    ("gradients", |c| c.gradient_calls, format::short_count),
    (
        "bytes stored",
        |c| c.memory_bytes,
        |v| format::bytes(v.round() as u64),
    ),
    ("training", |c| c.train_seconds, format::duration),
];

impl Page<'_> {
    fn heading(&self, out: &mut String, title: &str, about: &str) {
        let gap = if out.is_empty() { "" } else { "\n" };
        let title = paint::fit(title, self.terminal.width);
        let _ = writeln!(out, "{gap}{}", paint::bold(self.terminal.colour, &title));
        self.faint(out, about);
    }

    fn faint(&self, out: &mut String, text: &str) {
        for line in paint::wrapped(text, self.terminal.width) {
            let _ = writeln!(out, "{}", paint::dim(self.terminal.colour, &line));
        }
    }

    /// A table whose first column names the rows; columns that do not fit follow below.
    fn table(&self, out: &mut String, names: &[String], columns: Vec<Column>) {
        let names: Vec<String> = names
            .iter()
            .map(|n| paint::fit(n, (self.terminal.width / 3).min(32)))
            .collect();
        let first = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
        let mut rest: Vec<Column> = columns
            .into_iter()
            .map(|c| Column {
                title: paint::clean(&c.title),
                cells: c.cells.iter().map(|t| paint::clean(t)).collect(),
                right: c.right,
            })
            .collect();
        while !rest.is_empty() {
            let mut width = first;
            let fits = |c: &&Column| {
                width += 2 + c.width();
                width <= self.terminal.width
            };
            let shown = rest.iter().take_while(fits).count().max(1);
            let below = rest.split_off(shown);
            let line = |name: String, cell: &dyn Fn(&Column) -> String| {
                let mut line = name;
                for column in &rest {
                    line.push_str("  ");
                    line.push_str(&column.padded(&cell(column)));
                }
                // A single column may still be too wide.
                paint::fit(line.trim_end(), self.terminal.width)
            };
            let header = line(paint::left("", first), &|c| c.title.clone());
            let _ = writeln!(out, "{}", paint::dim(self.terminal.colour, &header));
            for (g, name) in names.iter().enumerate() {
                let _ = writeln!(
                    out,
                    "{}",
                    line(paint::left(name, first), &|c| c.cells[g].clone())
                );
            }
            rest = below;
        }
    }

    fn measures(&self, out: &mut String) {
        let contest = self.contest;
        let protocols = contest.measures.iter().map(|m| m.protocol.as_str());
        let common = Shared::between(protocols).common();
        let over = match contest.measures.iter().map(|m| m.unit).next() {
            Some(Unit::Seed) => "the mean over seeds with its 95 % interval over seeds",
            Some(Unit::Example) => {
                "one run each, with its 95 % interval over examples, which says nothing about \
                 other seeds"
            }
            _ => "the mean with its 95 % interval",
        };
        let parts = [common.as_str(), over];
        let about: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        self.heading(out, "What they reach", &about.join("; "));
        let groups = &contest.groups;
        let names: Vec<String> = groups.iter().map(|g| g.name.clone()).collect();
        let mut columns = Vec::new();
        if groups.iter().any(|g| !g.name.starts_with(&g.method)) {
            columns.push(Column {
                title: "method".into(),
                cells: groups.iter().map(|g| g.method.clone()).collect(),
                right: false,
            });
        }
        let seeds = groups.iter().map(|g| g.seeds.len().to_string());
        columns.push(Column::right("seeds", seeds.collect()));
        for measure in &contest.measures {
            let cell = |v: &crate::contest::Value| match &v.number {
                None => format::MISSING.to_owned(),
                Some(number) => match format::interval(number) {
                    Some(interval) => format!("{} ({interval})", format::value(number)),
                    None => format::value(number),
                },
            };
            let cells = measure.values.iter().map(cell).collect();
            columns.push(Column::right(titled(measure, false), cells));
        }
        self.table(out, &names, columns);
    }

    fn costs(&self, out: &mut String) {
        let contest = self.contest;
        let about = format!(
            "mean of a run; gradients are calls for one, training is its wall time; × against {}",
            contest.against
        );
        self.heading(out, "What a run costs", &about);
        let names: Vec<String> = contest.groups.iter().map(|g| g.name.clone()).collect();
        let column = |(title, of, text): &Kind| {
            let paid: Vec<Option<Paid>> = contest.groups.iter().map(|g| of(&g.cost)).collect();
            let missing = || format::MISSING.to_owned();
            let value = |p: &Option<Paid>| p.map_or_else(missing, |p| text(p.mean));
            let ratio = |p: &Option<Paid>| {
                let ratio = p.and_then(|p| p.ratio);
                ratio.map_or_else(missing, |r| format!("×{}", ratio_text(r)))
            };
            let values: Vec<String> = paid.iter().map(value).collect();
            let ratios: Vec<String> = paid.iter().map(ratio).collect();
            let wide = |t: &[String]| t.iter().map(|t| t.chars().count()).max().unwrap_or(0);
            let (v, r) = (wide(&values), wide(&ratios));
            let cells = values.iter().zip(&ratios);
            Column::right(
                *title,
                cells.map(|(a, b)| format!("{a:>v$} {b:>r$}")).collect(),
            )
        };
        self.table(out, &names, KINDS.iter().map(column).collect());
    }

    fn differences(&self, out: &mut String, measure: &Measure) {
        let contest = self.contest;
        let one_side = measure.pairs.iter().all(|p| p.b == contest.against);
        let title = match one_side {
            true => format!("{}, against {}", titled(measure, true), contest.against),
            false => format!("{}, pair by pair", titled(measure, true)),
        };
        let direction = match measure.direction {
            Direction::Higher => "higher is better; ",
            Direction::Lower => "lower is better; ",
            Direction::None => "",
        };
        let about = format!("{direction}mean difference with its 95 % interval");
        self.heading(out, &title, &about);
        let pairs = &measure.pairs;
        let name = |p: &Pair| match one_side {
            true => p.a.clone(),
            false => format!("{} − {}", p.a, p.b),
        };
        let p = |of: fn(&Pair) -> Option<f64>| -> Vec<String> {
            let text = |p| of(p).map_or_else(|| format::MISSING.to_owned(), format::probability);
            pairs.iter().map(text).collect()
        };
        let mut columns = vec![
            Column::right(
                "difference",
                pairs.iter().map(|p| difference(&measure.name, p)).collect(),
            ),
            Column::right("p", p(|p| p.p)),
        ];
        if contest.tests > 1 {
            columns.push(Column::right("p (Holm)", p(|p| p.p_holm)));
        }
        columns.push(Column {
            title: "verdict".into(),
            cells: pairs.iter().map(verdict).collect(),
            right: false,
        });
        let names: Vec<String> = pairs.iter().map(name).collect();
        self.table(out, &names, columns);
    }

    /// What the tests are, and what they can show with so many seeds.
    fn about_p(&self, out: &mut String) {
        let contest = self.contest;
        let pairs = || contest.measures.iter().flat_map(|m| &m.pairs);
        let alpha = contest.alpha;
        let tests = contest.tests;
        let mut seeds: Vec<usize> = pairs()
            .filter(|p| p.test == Some(Test::SignFlip))
            .map(|p| p.n[0])
            .collect();
        seeds.sort_unstable();
        seeds.dedup();
        let mut lines = Vec::new();
        if !seeds.is_empty() {
            let mut text =
                "p: sign-flip test, two-sided, of the differences within the seeds that \
                            both have."
                    .to_owned();
            for &n in &seeds {
                let with = |p: &&Pair| p.test == Some(Test::SignFlip) && p.n[0] == n;
                let least = format::probability(min_reachable_p(n, Alternative::TwoSided));
                let _ = write!(
                    text,
                    " With {n} seeds the smallest p it can reach is {least}"
                );
                let after = pairs().filter(with).filter_map(|p| p.least_p_holm);
                let after = after.fold(f64::INFINITY, f64::min);
                if tests > 1 && after.is_finite() {
                    let after = format::probability(after);
                    let _ = write!(text, ", and {after} after Holm's correction");
                }
                if pairs().filter(with).any(|p| !p.can_decide(contest.alpha)) {
                    let _ = write!(text, ": that cannot reach {alpha}, whatever they measure");
                    if let Some(enough) = enough(tests, contest.alpha) {
                        let _ = write!(text, " ({enough} seeds could)");
                    }
                }
                text.push('.');
            }
            lines.push(text);
        }
        let welch: Vec<String> = pairs()
            .filter(|p| p.test == Some(Test::Welch))
            .map(|p| format!("{} − {}", p.a, p.b))
            .collect();
        if !welch.is_empty() {
            lines.push(format!(
                "{}: the groups share no two seeds, so this is Welch's unpaired t test, which \
                 takes the values to be normal and needs larger differences. The same seeds for \
                 both give a sharper test.",
                unique(&welch)
            ));
        }
        if tests > 1 {
            lines.push(format!(
                "Holm's correction is over the {tests} tests shown; a verdict is at {alpha}."
            ));
        }
        let part = |p: &&Pair| p.test == Some(Test::SignFlip) && self.more_than(p);
        let part: Vec<String> = pairs()
            .filter(part)
            .map(|p| format!("{} − {}", p.a, p.b))
            .collect();
        if !part.is_empty() {
            lines.push(format!(
                "{}: not all seeds are shared, and the others do not count in the difference.",
                unique(&part)
            ));
        }
        // At a wider level the test decides earlier than the interval for that alone.
        let level = 1.0 - LEVEL + 1e-9;
        let disagree: Vec<String> = pairs()
            .filter(|_| self.contest.alpha <= level)
            .filter(|p| p.test == Some(Test::SignFlip) && p.decided() && p.holds_nothing())
            .map(|p| format!("{} − {}", p.a, p.b))
            .collect();
        if !disagree.is_empty() {
            lines.push(format!(
                "{}: the test decides although the interval holds 0. The interval takes the \
                 differences to be normal; the test asks only that, were the groups alike, either \
                 sign be as likely.",
                unique(&disagree)
            ));
        }
        if !lines.is_empty() {
            out.push('\n');
        }
        lines.iter().for_each(|line| self.faint(out, line));
    }

    /// Whether a side of the pair has seeds that the other lacks.
    fn more_than(&self, pair: &Pair) -> bool {
        let seeds = |name: &str| self.contest.groups.iter().find(|g| g.name == name);
        let more = |name: &str| seeds(name).is_some_and(|g| g.seeds.len() > pair.n[0]);
        more(&pair.a) || more(&pair.b)
    }

    fn domination(&self, out: &mut String) {
        let groups = &self.contest.groups;
        for measure in &self.contest.measures {
            let title = metric::title(&measure.name);
            let dominated: Vec<String> = measure
                .dominated
                .iter()
                .map(|d| format!("{} by {}", d.group, d.by.join(" and ")))
                .collect();
            let judged = measure.direction != Direction::None
                && groups.iter().all(|g| g.cost.work().is_some())
                && measure.values.iter().all(|v| v.number.is_some());
            let text = match dominated.is_empty() {
                false => format!(
                    "{title} against cost, by the point estimates alone: dominated are {}. That \
                     is, no better and no cheaper, neither in rows nor in bytes. This is no test: \
                     where the verdict is open, more seeds may turn it.",
                    dominated.join("; ")
                ),
                true if judged => format!(
                    "{title} against cost, by the point estimates alone: no group is dominated. \
                     Each is better than any other, or cheaper in rows or in bytes."
                ),
                true => continue,
            };
            out.push('\n');
            self.faint(out, &text);
        }
    }

    fn notes(&self, out: &mut String) {
        let contest = self.contest;
        let left_out = contest
            .left_out
            .iter()
            .map(|l| format!("left out: {} ({})", l.run, l.reason));
        let notes = contest.notes.iter().map(|note| format!("note: {note}"));
        let all: Vec<String> = left_out.chain(notes).collect();
        if !all.is_empty() {
            out.push('\n');
        }
        all.iter().for_each(|line| self.faint(out, line));
    }
}

/// `Average accuracy, %`; of a difference, `Average accuracy, points`.
fn titled(measure: &Measure, difference: bool) -> String {
    let sign = match metric::scale(&measure.name) {
        Scale::Percent if difference => Scale::Points.sign(),
        scale => scale.sign(),
    };
    let title = metric::title(&measure.name);
    match sign {
        "" => title,
        sign => format!("{title}, {sign}"),
    }
}

fn difference(name: &str, pair: &Pair) -> String {
    let Some(difference) = pair.difference else {
        return format::MISSING.to_owned();
    };
    let difference = format::signed(name, difference);
    match pair.ci_low.zip(pair.ci_high) {
        Some((low, high)) => format!(
            "{difference} ({} to {})",
            format::on_scale(name, low),
            format::on_scale(name, high)
        ),
        None => difference,
    }
}

fn verdict(pair: &Pair) -> String {
    let seeds = match pair.n {
        [1, 1] => "1 seed".to_owned(),
        [a, b] if a == b => format!("{a} seeds"),
        [a, b] => format!("{a} and {b} seeds"),
    };
    match pair.verdict {
        Verdict::Better => "better".into(),
        Verdict::Worse => "worse".into(),
        Verdict::Differs => "different".into(),
        Verdict::Same => format!("the same in {seeds}"),
        Verdict::Undecided => format!("undecided with {seeds}"),
        Verdict::NotTested if pair.n.contains(&0) => "not measured".into(),
        Verdict::NotTested if pair.n.contains(&1) => "not tested: too few seeds".into(),
        Verdict::NotTested => "not tested: no variation".into(),
    }
}

/// The least number of seeds with which that many tests could all be significant.
fn enough(tests: usize, alpha: f64) -> Option<usize> {
    let least = |n: &usize| tests as f64 * min_reachable_p(*n, Alternative::TwoSided) <= alpha;
    (2..=64).find(least)
}

fn ratio_text(ratio: f64) -> String {
    let decimals = match ratio {
        r if r < 9.995 => 2,
        r if r < 99.95 => 1,
        _ => 0,
    };
    format::fixed(ratio, decimals)
}

/// Each name once, in order.
fn unique(names: &[String]) -> String {
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if !seen.contains(&name.as_str()) {
            seen.push(name);
        }
    }
    seen.join(", ")
}
