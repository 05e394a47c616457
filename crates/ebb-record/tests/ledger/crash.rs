use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use ebb_record::ledger::verify;
use ebb_record::{Error, Fault, Operation};
use ebb_space::Key;

use super::*;

fn started(n: u64) -> Entry {
    Entry::Started {
        request: RequestId(u128::from(n).to_be_bytes()),
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    // The child is this test, told where to write; it says each head that it was given.
    if let Ok(path) = std::env::var("EBB_TEST_LEDGER") {
        let mut ledger = Ledger::open(Path::new(&path)).unwrap();
        for n in 0.. {
            for _ in 0..n % 7 {
                ledger.append(n, &started(n)).unwrap();
            }
            println!("head {}", ledger.commit().unwrap());
        }
    }
    let p = place();
    let mut random = Key::new(std::process::id().into(), "kills").stream();
    let mut last = p.head;
    for kill in 0..30 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crash::what_was_acknowledged_survives_a_kill_at_any_moment",
                "--nocapture",
            ])
            .env("EBB_TEST_LEDGER", &p.ledger)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(2_000 + random.below(30_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let told = BufReader::new(child.stdout.take().unwrap()).lines();
        let heads = told.map_while(Result::ok).filter_map(|line| {
            // The last line may be cut.
            line.split_once("head ")?.1.parse::<Head>().ok()
        });
        last = heads.last().unwrap_or(last);
        let checked = verify(&p.ledger, Some(&last)).unwrap();
        assert!(checked.head.count >= last.count, "kill {kill}");
        let head = Ledger::open(&p.ledger).unwrap().head();
        assert_eq!(head, checked.head, "whole entries are kept");
        assert_eq!(verify(&p.ledger, Some(&last)).unwrap().torn_bytes, 0);
    }
    assert!(
        last.count > p.head.count,
        "no child came to acknowledge anything"
    );
}

#[test]
fn a_tail_that_was_never_acknowledged_is_kept_where_it_is_whole_and_cut_where_it_is_torn() {
    let p = place();
    let acknowledged = fs::read(p.ledger.join("head")).unwrap();
    let old = fs::read(p.ledger.join("entries.jsonl")).unwrap();
    let mut ledger = Ledger::open(&p.ledger).unwrap();
    for n in 0..3 {
        ledger.append(n, &started(n)).unwrap();
    }
    ledger.commit().unwrap();
    drop(ledger);
    let new = fs::read(p.ledger.join("entries.jsonl")).unwrap();
    let ends: Vec<usize> = (1..=new.len()).filter(|n| new[n - 1] == b'\n').collect();
    for length in old.len()..=new.len() {
        for garbage in [&b""[..], &[0; 100]] {
            fs::write(p.ledger.join("head"), &acknowledged).unwrap();
            fs::write(
                p.ledger.join("entries.jsonl"),
                [&new[..length], garbage].concat(),
            )
            .unwrap();
            let whole = ends.iter().filter(|end| **end <= length).count() as u64;
            let checked = verify(&p.ledger, Some(&p.head)).unwrap();
            assert_eq!((checked.head.count, checked.acknowledged), (whole, p.head));
            let head = Ledger::open(&p.ledger).unwrap().head();
            assert_eq!(head.count, whole);
            assert_eq!(verify(&p.ledger, Some(&head)).unwrap().torn_bytes, 0);
        }
    }
}

#[test]
fn stopped_within_a_commit_the_entry_is_there_or_not() {
    for after in [
        Operation::Write,
        Operation::Sync,
        Operation::Rename,
        Operation::SyncDirectory,
    ] {
        let p = place();
        let mut ledger = Ledger::open(&p.ledger).unwrap();
        ledger.set_fault(Some(Fault {
            after,
            path_ends_with: String::new(),
            skip: 0,
            abort: false,
        }));
        ledger.append(0, &started(1)).unwrap();
        assert!(matches!(ledger.commit(), Err(Error::Fault { .. })));
        drop(ledger);
        verify(&p.ledger, Some(&p.head)).unwrap();
        let mut ledger = Ledger::open(&p.ledger).unwrap();
        assert_eq!(ledger.head().count, 12);
        ledger.append(0, &started(2)).unwrap();
        assert_eq!(ledger.commit().unwrap().count, 13);
    }
}

#[test]
fn one_writer_at_a_time_and_a_ledger_is_made_once() {
    let p = place();
    let ledger = Ledger::open(&p.ledger).unwrap();
    assert!(matches!(Ledger::open(&p.ledger), Err(Error::Locked { .. })));
    verify(&p.ledger, None).unwrap();
    drop(ledger);
    assert!(matches!(
        Ledger::create(&p.ledger, &p.key, 0),
        Err(Error::RunExists { .. })
    ));
    // A crash before the first acknowledgement leaves nothing that counts.
    fs::remove_file(p.ledger.join("head")).unwrap();
    assert_eq!(
        Ledger::create(&p.ledger, &p.key, 0).unwrap().head().count,
        1
    );
}
