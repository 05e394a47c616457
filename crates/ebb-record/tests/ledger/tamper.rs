use ebb_record::Error;
use ebb_record::ledger::{Checked, Problem, for_each, verify};

use super::*;

fn problem(checked: ebb_record::Result<Checked>) -> Problem {
    match checked {
        Err(Error::Ledger { problem, .. }) => problem,
        other => panic!("not found out: {other:?}"),
    }
}

fn parts(ledger: &Path) -> (PathBuf, Vec<u8>, PathBuf, Vec<u8>) {
    let (a, b) = (ledger.join("entries.jsonl"), ledger.join("head"));
    (
        a.clone(),
        fs::read(a).unwrap(),
        b.clone(),
        fs::read(b).unwrap(),
    )
}

/// What somebody writes who knows the format: the file `head` that belongs to these entries.
fn head_for(entries: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = entries.split_inclusive(|c| *c == b'\n').collect();
    let last: serde_json::Value = serde_json::from_slice(lines[lines.len() - 1]).unwrap();
    let hash = last["hash"].as_str().unwrap();
    format!(
        "ebb-ledger-head 1 {} {} {hash}\n",
        lines.len(),
        entries.len()
    )
    .into_bytes()
}

#[test]
fn what_was_written_is_read_and_a_head_may_be_older() {
    let p = place();
    let mut read = Vec::new();
    let whole = for_each(&p.ledger, |n, at, entry| {
        assert_eq!(at, 1_700_000_000 + n);
        read.push(entry);
        Ok(())
    })
    .unwrap();
    assert_eq!(read[1..], entries(&p.key));
    assert!(
        matches!(read[0], Entry::Opened { format_version: 1, names } if names == p.key.check())
    );
    assert_eq!(
        (whole.head, whole.acknowledged, whole.torn_bytes),
        (p.head, p.head, 0)
    );
    assert_eq!(verify(&p.ledger, Some(&p.head)).unwrap().fixed, Some(11));

    let mut ledger = Ledger::open(&p.ledger).unwrap();
    let started = Entry::Started {
        request: RequestId([9; 16]),
    };
    assert_eq!(ledger.append(0, &started).unwrap(), 11);
    let later = ledger.commit().unwrap();
    assert_ne!(later, p.head);
    for head in [&p.head, &later] {
        verify(&p.ledger, Some(head)).unwrap();
    }
    assert_eq!(later.to_string().parse::<Head>().unwrap(), later);
}

#[test]
fn every_flipped_bit_is_found_with_and_without_a_head_from_outside() {
    let p = place();
    let (entries_path, entries, head_path, head) = parts(&p.ledger);
    for (path, bytes) in [(entries_path, entries), (head_path, head)] {
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, changed).unwrap();
            for outside in [None, Some(&p.head)] {
                let found = verify(&p.ledger, outside);
                assert!(
                    matches!(found, Err(Error::Ledger { .. } | Error::Newer { .. })),
                    "bit {bit} of {}: {found:?}",
                    path.display()
                );
                assert!(Ledger::open(&p.ledger).is_err());
            }
        }
        fs::write(&path, bytes).unwrap();
    }
    verify(&p.ledger, Some(&p.head)).unwrap();
}

#[test]
fn a_flipped_bit_is_found_though_head_was_remade() {
    let p = place();
    let (path, entries, head_path, _) = parts(&p.ledger);
    // Not in the last line's hash, which the remade head would follow.
    let last = entries.len() - 67;
    for bit in 0..last * 8 {
        let mut changed = entries.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &changed).unwrap();
        fs::write(&head_path, head_for(&entries)).unwrap();
        let found = verify(&p.ledger, None);
        assert!(
            matches!(found, Err(Error::Ledger { .. } | Error::Newer { .. })),
            "{bit}"
        );
    }
}

#[test]
fn a_cut_at_any_byte_is_found() {
    let p = place();
    let (path, entries, head_path, _) = parts(&p.ledger);
    let ends: Vec<usize> = (1..=entries.len())
        .filter(|n| entries[n - 1] == b'\n')
        .collect();
    for length in 0..entries.len() {
        let cut = &entries[..length];
        fs::write(&path, cut).unwrap();
        for outside in [None, Some(&p.head)] {
            let found = problem(verify(&p.ledger, outside));
            assert!(matches!(found, Problem::Cut { .. }), "{length}: {found:?}");
        }
    }
    // Whoever cuts at an entry and sets `head` back is found by a head from outside alone.
    for &end in &ends[..ends.len() - 1] {
        fs::write(&path, &entries[..end]).unwrap();
        fs::write(&head_path, head_for(&entries[..end])).unwrap();
        verify(&p.ledger, None).expect("this is what cannot be seen without a head");
        let found = problem(verify(&p.ledger, Some(&p.head)));
        assert!(matches!(found, Problem::Cut { known: 11, .. }), "{found:?}");
        // Cut within the next entry it looks like a crash after the entry before.
        fs::write(&path, &entries[..end + 5]).unwrap();
        assert_eq!(verify(&p.ledger, None).unwrap().torn_bytes, 5);
        problem(verify(&p.ledger, Some(&p.head)));
    }
}

#[test]
fn entries_taken_out_moved_doubled_or_put_in_are_found() {
    let p = place();
    let (path, entries, head_path, _) = parts(&p.ledger);
    let lines: Vec<&[u8]> = entries.split_inclusive(|c| *c == b'\n').collect();
    let n = lines.len();
    let mut wrong: Vec<Vec<&[u8]>> = Vec::new();
    for i in 0..n {
        // The last taken out, with the head remade, is a cut tail.
        if i + 1 < n {
            wrong.push((0..n).filter(|k| *k != i).map(|k| lines[k]).collect());
        }
        for j in 0..=n {
            let mut put_in = lines.clone();
            put_in.insert(j, lines[i]);
            wrong.push(put_in);
        }
        for j in i + 1..n {
            let mut swapped = lines.clone();
            swapped.swap(i, j);
            wrong.push(swapped);
        }
    }
    for lines in wrong {
        let bytes = lines.concat();
        fs::write(&path, &bytes).unwrap();
        for head in [head_for(&bytes), head_for(&entries)] {
            fs::write(&head_path, head).unwrap();
            match verify(&p.ledger, None) {
                // A doubled last entry that `head` does not cover passes for a torn tail.
                Ok(checked) => assert_eq!(
                    (checked.head, checked.torn_bytes > 0),
                    (
                        p.head,
                        bytes.starts_with(&entries) && bytes.len() > entries.len()
                    )
                ),
                Err(error) => assert!(matches!(error, Error::Ledger { .. }), "{error}"),
            }
        }
    }
}

#[test]
fn a_rewrite_of_the_whole_is_found_by_a_head_from_outside_alone() {
    let p = place();
    let mut told = entries(&p.key);
    told[5] = Entry::Erased {
        request: RequestId([7; 16]),
        before: digest(1),
        after: digest(9),
    };
    let other = p.ledger.with_file_name("other");
    let mut ledger = Ledger::create(&other, &p.key, 1_700_000_000).unwrap();
    for (n, entry) in told.iter().enumerate() {
        ledger.append(1_700_000_001 + n as u64, entry).unwrap();
    }
    ledger.commit().unwrap();
    copy(&other, &p.ledger);
    verify(&p.ledger, None).expect("this is what cannot be seen without a head");
    let found = problem(verify(&p.ledger, Some(&p.head)));
    assert_eq!(found, Problem::Rewritten { entry: 10 });
    // A head from before the change holds for both, and says up to where.
    let mut early = None;
    let before = fs::read(other.join("entries.jsonl")).unwrap();
    for line in before.split(|c| *c == b'\n').take(4) {
        let value: serde_json::Value = serde_json::from_slice(line).unwrap();
        let count = value["n"].as_u64().unwrap() + 1;
        early = Some(format!("{count}-{}", value["hash"].as_str().unwrap()));
    }
    let early: Head = early.unwrap().parse().unwrap();
    assert_eq!(verify(&p.ledger, Some(&early)).unwrap().fixed, Some(4));
}

#[test]
fn what_cannot_stand_in_a_ledger_is_refused() {
    let p = place();
    let mut ledger = Ledger::open(&p.ledger).unwrap();
    let note = |name: &str, value| Entry::Note {
        name: word("x"),
        values: BTreeMap::from([(word(name), value)]),
    };
    for value in [f64::NAN, f64::INFINITY] {
        assert!(matches!(
            ledger.append(0, &note("a", value)),
            Err(Error::Unreadable { .. })
        ));
    }
    let opened = Entry::Opened {
        format_version: 1,
        names: digest(0),
    };
    assert!(ledger.append(0, &opened).is_err());
    let long = Entry::Note {
        name: word("x"),
        values: (0..1000)
            .map(|n| (word(&format!("value-number-{n}")), 1.0))
            .collect(),
    };
    assert!(
        ledger
            .append(0, &long)
            .unwrap_err()
            .to_string()
            .contains("16384 is the most")
    );
    for text in ["", "Jane", "jane doe", "é", &"a".repeat(65)] {
        assert!(Word::new(text).is_err(), "{text}");
    }
    assert_eq!(ledger.commit().unwrap(), p.head);
    for bad in [
        "",
        "11",
        "0-00",
        "+1-",
        &format!("01-{}", digest(1)),
        &format!("0-{}", digest(1)),
    ] {
        assert!(bad.parse::<Head>().is_err(), "{bad}");
    }
    assert!(
        digest(1)
            .to_string()
            .to_uppercase()
            .parse::<Digest>()
            .is_err()
    );
}

#[test]
fn a_newer_ledger_and_absurd_files_are_told_apart() {
    let p = place();
    let (path, entries, head_path, head) = parts(&p.ledger);
    let newer = String::from_utf8(entries.clone()).unwrap();
    let newer = newer.replacen("\"format_version\":1", "\"format_version\":2", 1);
    fs::write(&path, newer).unwrap();
    assert!(matches!(
        verify(&p.ledger, None),
        Err(Error::Newer { found: 2, .. })
    ));
    fs::write(&path, &entries).unwrap();
    fs::write(
        &head_path,
        String::from_utf8(head).unwrap().replacen(" 1 ", " 2 ", 1),
    )
    .unwrap();
    assert!(matches!(
        verify(&p.ledger, None),
        Err(Error::Newer { found: 2, .. })
    ));
    fs::remove_file(&head_path).unwrap();
    assert!(matches!(
        problem(verify(&p.ledger, None)),
        Problem::Head("is missing")
    ));
    // A line without an end is not read into memory.
    fs::write(&head_path, head_for(&entries)).unwrap();
    fs::write(&path, vec![b'a'; 50 << 20]).unwrap();
    let found = problem(verify(&p.ledger, None)).to_string();
    assert!(found.contains("longer than any"), "{found}");
}
