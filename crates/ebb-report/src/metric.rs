//! What the report knows about a metric by its name: a title and how its values are written.

/// How values of a metric are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// A fraction of examples, as per cent.
    Percent,
    /// A difference of two fractions, in percentage points.
    Points,
    Seconds,
    Bytes,
    Steps,
    Plain,
}

impl Scale {
    /// The sign after a value; empty where the value carries its own.
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Scale::Percent => "%",
            Scale::Points => "points",
            Scale::Steps => "steps",
            Scale::Seconds | Scale::Bytes | Scale::Plain => "",
        }
    }
}

/// The three slots of the header, each with the names that may fill it, best first.
pub(crate) const HEADLINES: [&[&str]; 3] = [
    &["average_accuracy"],
    &[
        "forgetting",
        "forgetting_at_learning",
        "forgetting_including_last",
    ],
    &["min_acc", "min_acc_split", "gap_depth", "wc_acc"],
];

/// Lower case with `_`, so that `min-ACC` and `min_acc` are one name.
pub(crate) fn canonical(name: &str) -> String {
    name.trim().to_lowercase().replace(['-', ' '], "_")
}

/// A title for a metric: `average_accuracy` as `Average accuracy`, `min_acc` as `min-ACC`.
pub(crate) fn title(name: &str) -> String {
    let canonical = canonical(name);
    let known = match canonical.as_str() {
        "average_accuracy_examples" => "Average accuracy, by example",
        "forgetting_at_learning" => "Forgetting since learning",
        "forgetting_including_last" => "Forgetting, last row included",
        "answers_exact" => "Answers, word for word",
        "answers_shown" => "Answers that show the truth",
        "answers_chosen" => "Truth likelier than other answers",
        "forgetting_superficial" => "Forgetting, superficial",
        "forgetting_essential" => "Forgetting, essential",
        "forgetting_by_choice" => "Forgetting, by choice",
        "bwt" => "Backward transfer",
        "fwt" => "Forward transfer",
        "fwt_isolated" => "Forward transfer, against isolated",
        "min_acc" => "min-ACC",
        "min_acc_split" => "min-ACC, split halves",
        "wc_acc" => "Worst-case accuracy",
        "gap_depth" => "Stability gap, depth",
        "gap_recovery" => "Stability gap, recovery",
        "gap_area" => "Stability gap, area",
        _ => "",
    };
    for (short, long) in [
        ("wf", "Windowed forgetting"),
        ("wp", "Windowed plasticity"),
        ("lca", "Learning curve area"),
    ] {
        if let Some(window) = canonical
            .strip_prefix(short)
            .filter(|w| w.parse::<u32>().is_ok())
        {
            return format!("{long}, {window}");
        }
    }
    if !known.is_empty() {
        return known.into();
    }
    let spaced = name.trim().replace('_', " ");
    let mut chars = spaced.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => "Unnamed".into(),
    }
}

/// How values of a metric are written, from the words in its name.
pub(crate) fn scale(name: &str) -> Scale {
    let name = canonical(name);
    let starts = |words: &[&str]| words.iter().any(|w| name.starts_with(w));
    let has = |words: &[&str]| words.iter().any(|w| name.contains(w));
    if has(&["seconds"]) {
        Scale::Seconds
    } else if has(&["bytes"]) {
        Scale::Bytes
    } else if has(&["recovery", "steps"]) {
        Scale::Steps
    } else if has(&["events", "count", "area", "loss", "norm"]) {
        Scale::Plain
    } else if has(&[
        "forgetting",
        "bwt",
        "fwt",
        "transfer",
        "depth",
        "plasticity",
        "intransigence",
    ]) || starts(&["wf", "wp"])
    {
        Scale::Points
    } else if has(&["acc", "share"]) || starts(&["lca", "answers"]) {
        Scale::Percent
    } else {
        Scale::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_titles_and_scales() {
        assert_eq!(title("average_accuracy"), "Average accuracy");
        assert_eq!(title("min-ACC"), "min-ACC");
        assert_eq!(title(""), "Unnamed");
        assert_eq!(scale("average accuracy"), Scale::Percent);
        assert_eq!(title("wf10"), "Windowed forgetting, 10");
        assert_eq!(scale("wf10"), Scale::Points);
        assert_eq!(scale("gap_recovery"), Scale::Steps);
        assert_eq!(scale("unforgettable_share"), Scale::Percent);
        assert_eq!(scale("lca10"), Scale::Percent);
        assert_eq!(scale("forgetting_events"), Scale::Plain);
        assert_eq!(scale("train_seconds"), Scale::Seconds);
    }
}
