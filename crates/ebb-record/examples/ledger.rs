//! Measures the ledger: entries appended and verified a second, by how many share one sync.
//!
//! `cargo run --release -p ebb-record --example ledger -- [ENTRIES] [ROUNDS] [DIRECTORY]`
//! writes `ledger.json` and `ledger.md` into DIRECTORY, `docs/evidence` if none is given.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use ebb_record::ledger::{
    Claim, Entry, Ground, Head, Inclusion, Ledger, Merkle, NameKey, Records, RequestId, Word,
    verify,
};
use ebb_record::{Environment, peak_rss_bytes};
use ebb_space::ExampleId;
use serde::Serialize;

/// How many entries share a sync (all of them, where none is said), and the share of the entries
/// that this is measured on: syncs are slow.
const LINES: [(Option<u64>, u64); 4] = [
    (Some(1), 500),
    (Some(100), 50),
    (Some(10_000), 1),
    (None, 1),
];

#[derive(Serialize)]
struct Evidence {
    format_version: u32,
    command: String,
    cpu: String,
    entries: u64,
    rounds: usize,
    lines: Vec<Line>,
    verify: Timed,
    verify_peak_rss_bytes: Option<u64>,
    file_bytes: u64,
    merkle: Tree,
}

#[derive(Serialize)]
struct Line {
    entries_a_sync: u64,
    entries: u64,
    seconds: Timed,
}

/// Seconds over the rounds: least, median, most.
#[derive(Clone, Copy, Serialize)]
struct Timed {
    low: f64,
    median: f64,
    high: f64,
}

#[derive(Serialize)]
struct Tree {
    records: u64,
    root_seconds: Timed,
    proof_hashes: usize,
}

/// The life of a request, over and over.
fn entry(n: u64, records: Records) -> Result<Entry, Box<dyn Error>> {
    let request = RequestId(u128::from(n / 8).to_be_bytes());
    let root = records.root;
    Ok(match n % 8 {
        0 => Entry::Submitted {
            request,
            ground: Ground::Person,
            deadline: Some(1_800_000_000 + n),
            authority: root,
        },
        1 => Entry::Planned {
            request,
            records,
            method: Word::new("sisa")?,
            claim: Claim::Exact,
        },
        2 => Entry::Started { request },
        3 => Entry::PhaseDone {
            request,
            phase: Word::new("retrain")?,
        },
        4 => Entry::Erased {
            request,
            before: root,
            after: root,
        },
        5 => Entry::Verified {
            request,
            report: root,
            passed: true,
            oracle: false,
        },
        6 => Entry::Purged {
            request,
            what: Word::new("state")?,
            artifacts: 3,
            bytes: 123_456,
            root,
        },
        _ => Entry::Note {
            name: Word::new("cost")?,
            values: BTreeMap::from([(Word::new("seconds")?, n as f64 * 0.37)]),
        },
    })
}

fn append(
    directory: &Path,
    key: &NameKey,
    records: Records,
    entries: u64,
    batch: u64,
) -> Result<(f64, Head), Box<dyn Error>> {
    let begun = Instant::now();
    let mut ledger = Ledger::create(directory, key, 1_700_000_000)?;
    for n in 0..entries {
        ledger.append(1_700_000_000 + n, &entry(n, records)?)?;
        if (n + 1) % batch == 0 {
            ledger.commit()?;
        }
    }
    let head = ledger.commit()?;
    Ok((begun.elapsed().as_secs_f64(), head))
}

fn timed(mut seconds: Vec<f64>) -> Timed {
    seconds.sort_by(f64::total_cmp);
    Timed {
        low: seconds[0],
        median: seconds[seconds.len() / 2],
        high: seconds[seconds.len() - 1],
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: u64| arguments.get(i).map_or(Ok(default), |text| text.parse());
    let (entries, rounds) = (
        number(0, 1_000_000)?.max(1000),
        number(1, 3)?.max(1) as usize,
    );
    let out = arguments.get(2).map_or("docs/evidence", String::as_str);

    // Beside the evidence, so that syncs are those of a real disk.
    let place = tempfile::tempdir_in(out)?;
    let key = NameKey::create(&place.path().join("names.key"))?;
    let ids = (0..100_000u32).map(|n| ExampleId::of(&n.to_le_bytes(), 0));
    let names: Vec<_> = ids.map(|id| key.record(&id)).collect();
    let records = Merkle::new(names[..100].iter().copied()).records();

    let mut seconds = vec![Vec::new(); LINES.len()];
    let (mut verified, mut roots) = (Vec::new(), Vec::new());
    let (mut file_bytes, mut proof_hashes) = (0, 0);
    for round in 0..rounds {
        for (seconds, (batch, share)) in seconds.iter_mut().zip(LINES) {
            let directory = place.path().join("ledger");
            let count = entries / share;
            let (took, head) = append(&directory, &key, records, count, batch.unwrap_or(count))?;
            seconds.push(took);
            if batch.is_none() {
                let begun = Instant::now();
                let checked = verify(&directory, Some(&head))?;
                verified.push(begun.elapsed().as_secs_f64());
                assert_eq!((checked.head, checked.fixed), (head, Some(count + 1)));
                file_bytes = std::fs::metadata(directory.join("entries.jsonl"))?.len();
            }
            std::fs::remove_dir_all(&directory)?;
        }
        let begun = Instant::now();
        let tree = Merkle::new(names.iter().copied());
        let records = tree.records();
        roots.push(begun.elapsed().as_secs_f64());
        let proof: Inclusion = tree.prove(&names[0]).ok_or("the name is in it")?;
        assert!(proof.proves(&names[0], &records));
        proof_hashes = proof.beside.len();
        eprintln!("round {} of {rounds}", round + 1);
    }
    let lines = LINES.into_iter().zip(&seconds);
    let lines = lines.map(|((batch, share), seconds)| Line {
        entries_a_sync: batch.unwrap_or(entries / share),
        entries: entries / share,
        seconds: timed(seconds.clone()),
    });
    let evidence = Evidence {
        format_version: 1,
        command: format!(
            "cargo run --release -p ebb-record --example ledger -- {entries} {rounds}"
        ),
        cpu: Environment::collect(BTreeMap::new(), 1)
            .cpu
            .unwrap_or_else(|| "an unnamed processor".into()),
        entries,
        rounds,
        lines: lines.collect(),
        verify: timed(verified),
        verify_peak_rss_bytes: peak_rss_bytes(),
        file_bytes,
        merkle: Tree {
            records: names.len() as u64,
            root_seconds: timed(roots),
            proof_hashes,
        },
    };
    let page = page(&evidence)?;
    std::fs::write(
        Path::new(out).join("ledger.json"),
        serde_json::to_string_pretty(&evidence)? + "\n",
    )?;
    std::fs::write(Path::new(out).join("ledger.md"), &page)?;
    print!("{page}");
    Ok(())
}

fn page(e: &Evidence) -> Result<String, std::fmt::Error> {
    let mut s = String::new();
    writeln!(
        s,
        "# What the ledger costs\n\nOne thread of {}; the life of a request over and over, {} bytes \
         an entry. Medians of {} rounds, with the least and the most in brackets. Made by `{}`.\n",
        e.cpu,
        e.file_bytes / (e.entries + 1),
        e.rounds,
        e.command
    )?;
    writeln!(
        s,
        "| entries that share a sync | entries | seconds | entries a second |"
    )?;
    writeln!(s, "|---|---|---|---|")?;
    for line in &e.lines {
        writeln!(
            s,
            "| {} | {} | {} | {} |",
            line.entries_a_sync,
            line.entries,
            spread(&line.seconds),
            rate(line.entries, &line.seconds)
        )?;
    }
    writeln!(
        s,
        "| verified, every byte, against a head | {} | {} | {} |\n",
        e.entries,
        spread(&e.verify),
        rate(e.entries, &e.verify)
    )?;
    writeln!(
        s,
        "An entry counts when its sync and the replacement of `head` have returned: three syncs (the \
         entries, the new `head`, its directory), which is all that the first line measures. Reading \
         is by the line and keeps none; the peak memory of the whole measurement was {:.0} MiB, most \
         of it the {} names of the tree.\n",
        e.verify_peak_rss_bytes.unwrap_or(0) as f64 / (1 << 20) as f64,
        e.merkle.records
    )?;
    writeln!(
        s,
        "The Merkle root over {} record names takes {} s; a proof has {} hashes.",
        e.merkle.records,
        spread(&e.merkle.root_seconds),
        e.merkle.proof_hashes
    )?;
    Ok(s)
}

fn spread(t: &Timed) -> String {
    format!("{:.3} ({:.3} to {:.3})", t.median, t.low, t.high)
}

fn rate(entries: u64, t: &Timed) -> String {
    format!("{:.0}", entries as f64 / t.median)
}
