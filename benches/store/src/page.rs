//! The page that says what was measured.

use serde_json::Value;

/// (name, what it is, its unit, whether more is better)
const ROWS: [(&str, &str, &str, bool); 19] = [
    ("inserts_per_s", "insert, batches of 1,000", "/s", true),
    (
        "scores_in_order_per_s",
        "set every score, batches of 1,000 in order",
        "/s",
        true,
    ),
    (
        "uniform_draws_per_s",
        "uniform draw of 128, inputs read",
        "/s",
        true,
    ),
    ("first_weighted_draw_s", "first weighted draw", "s", false),
    (
        "weighted_draws_per_s",
        "weighted draw of 128, inputs read",
        "/s",
        true,
    ),
    (
        "score_updates_per_s",
        "update scores, batches of 128 at random",
        "/s",
        true,
    ),
    (
        "logit_updates_per_s",
        "update logits, batches of 128 at random",
        "/s",
        true,
    ),
    (
        "replay_steps_per_s",
        "step: weighted draw, 128 scores, 128 logits",
        "/s",
        true,
    ),
    ("lookups_per_s", "find by id and read the input", "/s", true),
    ("open_s", "open", "s", false),
    (
        "resident_bytes_open",
        "memory of its own, opened",
        "bytes",
        false,
    ),
    (
        "resident_bytes_drawing",
        "memory of its own, after draws",
        "bytes",
        false,
    ),
    (
        "resident_bytes_per_record",
        "the same, a record",
        "bytes",
        false,
    ),
    ("file_bytes_per_record", "file, a record", "bytes", false),
    (
        "deletes_per_s",
        "delete by id, overwritten, batches of 1,000",
        "/s",
        true,
    ),
    (
        "compaction_s",
        "compaction after 1 % was deleted",
        "s",
        false,
    ),
    (
        "synced_inserts_per_s",
        "insert, each batch of 1,000 synced",
        "/s",
        true,
    ),
    (
        "synced_update_batches_per_s",
        "update 128 scores, each batch synced",
        "/s",
        true,
    ),
    (
        "mean_score_drawn",
        "check: mean score drawn by weight (1 expected)",
        "",
        true,
    ),
];

pub fn write(all: &Value) -> String {
    let mut out = format!(
        "# The replay store beside SQLite\n\nRecords of a 24-byte id, {} bytes of input, {} logits, \
         score, loss and counter. Both survive a kill of the process (SQLite: write-ahead log, \
         `synchronous = NORMAL`, `secure_delete = ON`, 256 MiB of cache); the rows that say so sync every \
         batch. Memory is that without pages of files. Systems ran in turn, each turn a process of its own, files in the page cache; medians, with the smallest \
         and largest in brackets. Ratios are of medians, with those of the turns in brackets; above 1 means that `ebb` needs less. SQLite draws \
         in the fastest exact way found: random keys, by weight with rejection against the known largest weight.\n\n\
         Made by `{}` on {} threads of {}.\n",
        all["work"]["input_bytes"],
        all["work"]["logits"],
        all["command"].as_str().unwrap_or(""),
        all["threads"],
        all["cpu"].as_str().unwrap_or(""),
    );
    table(&mut out, &all["work"], &all["rounds"]);
    if all["large"].is_object() {
        table(&mut out, &all["large"]["work"], &all["large"]["rounds"]);
    }
    pages(&mut out, &all["pages"]);
    features(&mut out, &all["features"]);
    reverb(&mut out, all);
    out
}

fn table(out: &mut String, work: &Value, rounds: &Value) {
    let rounds: Vec<&Value> = rounds.as_array().into_iter().flatten().collect();
    let turns = if rounds.len() == 1 {
        "one turn"
    } else {
        "turns"
    };
    out.push_str(&format!(
        "\n## {} records ({turns}: {})\n\n| what | ebb | SQLite | ratio |\n|---|---|---|---|\n",
        grouped(work["records"].as_f64().unwrap_or(0.0)),
        rounds.len(),
    ));
    for (name, what, unit, more) in ROWS {
        let of = |system: &str| -> Vec<f64> {
            rounds
                .iter()
                .filter_map(|round| round[system][name].as_f64())
                .collect()
        };
        let (ours, theirs) = (of("ebb"), of("sqlite"));
        let ratios: Vec<f64> = ours
            .iter()
            .zip(&theirs)
            .map(|(a, b)| if more { a / b } else { b / a })
            .collect();
        let (a, b) = (median(&ours), median(&theirs));
        let ratio = if more { a / b } else { b / a };
        out.push_str(&format!(
            "| {what} | {} | {} | {} |\n",
            spread(&ours, unit),
            spread(&theirs, unit),
            match name {
                "mean_score_drawn" => String::new(),
                _ => format!("{}{}", short(ratio), bracket(&ratios, short)),
            },
        ));
    }
}

fn pages(out: &mut String, all: &Value) {
    out.push_str(&format!(
        "\n## Beside a store of pages\n\n{} records, every batch synced, against `redb`; bytes are those handed to \
         the file system. `found` counts the {} deleted inputs that a scan of every byte of every \
         file still finds.\n\n| what | ebb | redb |\n|---|---|---|\n",
        grouped(all["records"].as_f64().unwrap_or(0.0)), all["deleted"],
    ));
    for (name, what, per) in [
        ("insert", "insert, batches of 1,000", 1e5),
        (
            "update",
            "update 128 marks of 12 bytes, 100 times",
            12_800.0,
        ),
    ] {
        let cell = |system: &str| {
            let part = &all[system][name];
            let (s, bytes) = (
                part["seconds"].as_f64().unwrap_or(0.0),
                part["bytes"].as_f64().unwrap_or(0.0),
            );
            format!("{s:.2} s, {:.0} bytes written a record", bytes / per)
        };
        out.push_str(&format!(
            "| {what} | {} | {} |\n",
            cell("ebb"),
            cell("redb")
        ));
    }
    for (name, what) in [
        ("found_after_delete", "found after the deletion"),
        ("found_after_compaction", "found after compaction"),
    ] {
        out.push_str(&format!(
            "| {what} | {} | {} |\n",
            all["ebb"][name], all["redb"][name]
        ));
    }
}

fn features(out: &mut String, all: &Value) {
    let of = |name: &str| -> Vec<f64> {
        let turns = all["turns"].as_array().into_iter().flatten();
        turns.filter_map(|turn| turn[name].as_f64()).collect()
    };
    out.push_str(&format!(
        "\n## Features: read or mapped\n\nRandom rows of {} values from a file of {} rows in the page cache, copied out: \
         read at their places {}, through a memory map {}.\n",
        all["width"], grouped(all["rows"].as_f64().unwrap_or(0.0)),
        spread(&of("read_ns"), "ns"), spread(&of("mapped_ns"), "ns"),
    ));
}

fn reverb(out: &mut String, all: &Value) {
    let (ours, theirs) = (&all["beside_reverb"]["ebb"], &all["reverb"]);
    if !theirs.is_object() {
        return;
    }
    out.push_str(&format!(
        "\n## Beside Reverb\n\nDeepMind's Reverb 0.14 holds its tables in memory and is spoken to over a local \
         socket, here from Python: it does other work, and its language counts. {} records, two tables \
         (uniform and prioritised), one turn, `benches/peers/reverb_store.py`.\n\n\
         | what | ebb | Reverb |\n|---|---|---|\n",
        grouped(theirs["records"].as_f64().unwrap_or(0.0)),
    ));
    for (name, what, unit, _) in ROWS {
        if let (Some(a), Some(b)) = (ours[name].as_f64(), theirs[name].as_f64()) {
            out.push_str(&format!(
                "| {what} | {} | {} |\n",
                spread(&[a], unit),
                spread(&[b], unit)
            ));
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

fn spread(values: &[f64], unit: &str) -> String {
    let unit = if unit.is_empty() || unit == "/s" {
        unit.to_owned()
    } else {
        format!(" {unit}")
    };
    format!("{}{unit}{}", short(median(values)), bracket(values, short))
}

fn bracket(values: &[f64], show: fn(f64) -> String) -> String {
    if values.len() < 2 {
        return String::new();
    }
    let (low, high) = values
        .iter()
        .fold((f64::INFINITY, 0.0), |(l, h), &v| (v.min(l), v.max(h)));
    format!(" ({} to {})", show(low), show(high))
}

/// Three significant digits, and thousands apart.
fn short(value: f64) -> String {
    match value {
        v if v >= 1000.0 => {
            let scale = 10f64.powf(v.log10().floor() - 2.0);
            grouped((v / scale).round() * scale)
        }
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 0.1 => format!("{v:.2}"),
        v => format!("{v:.4}"),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
