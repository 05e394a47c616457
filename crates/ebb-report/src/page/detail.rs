//! Where the numbers come from: protocol, recipe, machine, every run and its chain of states.

use std::fmt::Write;

use super::{comparison, dotted, scenario_words, section};
use crate::data::{RunData, Status};
use crate::escape::esc;
use crate::group::Group;

pub(super) fn write(out: &mut String, groups: &[Group]) {
    section(
        out,
        "provenance",
        "How it was done",
        "Protocol, recipe with every default written out, environment, and each run with its chain of model states.",
    );
    for group in groups {
        let first = group.first();
        let open = if groups.len() == 1 { " open" } else { "" };
        let _ = write!(
            out,
            "<details class=\"group\"{open}><summary><b>{}</b> <span>{}</span></summary>\n<div class=\"inside\">\n",
            esc(&group.label),
            esc(&dotted([
                first.stream.clone(),
                scenario_words(&first.scenario),
                first.network.clone(),
                group.seeds(),
            ]))
        );
        pairs(out, "Protocol", &first.protocol);
        environment(out, group);
        recipe(out, first);
        let all = group
            .runs
            .iter()
            .copied()
            .chain(group.set_aside.iter().map(|(run, _)| *run));
        let only = groups.len() == 1 && group.runs.len() == 1;
        for run in all {
            let shown_above = only && std::ptr::eq(run, first);
            one_run(out, run, shown_above, !shown_above);
        }
        out.push_str("</div></details>\n");
    }
    out.push_str("</section>\n");
}

fn pairs(out: &mut String, title: &str, pairs: &[(String, String)]) {
    if pairs.is_empty() {
        return;
    }
    let _ = write!(out, "<h3>{title}</h3>\n<dl class=\"pairs\">\n");
    for (name, value) in pairs {
        let _ = writeln!(
            out,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            esc(name),
            esc(value)
        );
    }
    out.push_str("</dl>\n");
}

/// The environment of the first run, and what differs in the others.
fn environment(out: &mut String, group: &Group) {
    let first = group.first();
    pairs(out, "Environment", &first.environment);
    for run in group
        .runs
        .iter()
        .skip(1)
        .filter(|r| r.environment != first.environment)
    {
        let other: Vec<String> = run
            .environment
            .iter()
            .filter(|pair| !first.environment.contains(pair))
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        let _ = writeln!(
            out,
            "<p class=\"differs\">{} differs: {}</p>",
            esc(&run.name),
            esc(&other.join(", "))
        );
    }
}

fn recipe(out: &mut String, run: &RunData) {
    if run.recipe.trim().is_empty() {
        return;
    }
    let id: String = run.recipe_id.chars().take(12).collect();
    let _ = writeln!(
        out,
        "<details class=\"recipe\"><summary>Recipe as resolved <span>{}</span></summary><pre tabindex=\"0\">{}</pre></details>",
        esc(&id),
        esc(run.recipe.trim_end())
    );
}

/// `with_numbers`: unless the page shows the same table above.
fn one_run(out: &mut String, run: &RunData, open: bool, with_numbers: bool) {
    let status = match &run.status {
        Status::Finished => "finished".to_string(),
        Status::Unfinished(at) => format!("unfinished {at}"),
    };
    let _ = write!(
        out,
        "<details class=\"run\"{}><summary>{} <span>{}</span></summary>\n<div class=\"inside\">\n",
        if open { " open" } else { "" },
        esc(&run.name),
        esc(&dotted([format!("seed {}", run.seed), status]))
    );
    if with_numbers && !run.numbers.is_empty() {
        comparison::list(out, &run.numbers, str::to_string);
    }
    states(out, run);
    out.push_str("</div></details>\n");
}

/// The chain of states in order; a parent is named only where it is not the state before.
fn states(out: &mut String, run: &RunData) {
    if run.states.is_empty() {
        return;
    }
    out.push_str("<h3>Model states</h3>\n<ol class=\"states\">\n");
    let mut before: Option<&str> = None;
    for state in &run.states {
        let head = if state.head { " class=\"head\"" } else { "" };
        let _ = write!(
            out,
            "<li{head}><b>{}</b> <code title=\"{}\">{}</code> <span>{}</span>",
            esc(&state.verb),
            esc(&state.id),
            esc(&short(&state.id)),
            esc(&state.at)
        );
        if let Some(parent) = state.parent.as_deref().filter(|p| Some(*p) != before) {
            let _ = write!(
                out,
                " <span>from <code>{}</code></span>",
                esc(&short(parent))
            );
        }
        if state.head {
            out.push_str(" <em>HEAD</em>");
        }
        out.push_str("</li>\n");
        before = Some(&state.id);
    }
    out.push_str("</ol>\n");
}

fn short(id: &str) -> String {
    id.chars().take(12).collect()
}
