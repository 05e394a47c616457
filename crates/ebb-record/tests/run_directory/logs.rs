use std::collections::BTreeMap;
use std::fs;
use std::io::Write;

use ebb_record::{
    Consolidate, Disk, Error, Note, OutcomeWriter, Outcomes, Record, RecordWriter, StateRecord,
    Verb, read_outcomes, read_outcomes_parquet, read_records, read_records_parquet,
    write_outcomes_parquet, write_records_parquet,
};
use ebb_space::{ExampleId, Key};

use super::*;

fn every_kind() -> Vec<Record> {
    vec![
        start(2),
        column(-1, 0, 10),
        step(1, 0),
        eval(1, 0, 0, 50),
        Record::Eval(Eval {
            step: 1,
            experience: 0,
            set: 1,
            correct: 3,
            n: 7,
            half: None,
        }),
        Record::Consolidate(Consolidate {
            what: "fisher exact".into(),
            ..Default::default()
        }),
        Record::State(StateRecord {
            id: "ab".into(),
            parent: None,
            verb: Verb::Learn,
            step: 1,
            experience: Some(0),
            milestone: true,
        }),
        Record::Note(Note {
            step: 2,
            name: "gradient norms".into(),
            values: BTreeMap::from([("stability".into(), f64::NEG_INFINITY)]),
        }),
        column(0, 1, 90),
        end(2),
    ]
}

#[test]
fn records_come_back_from_lines_and_from_columns() {
    let dir = tempfile::tempdir().unwrap();
    let (lines, columns) = (dir.path().join("r.jsonl"), dir.path().join("r.parquet"));
    let mut writer = RecordWriter::create(&lines, 3).unwrap();
    every_kind()
        .iter()
        .for_each(|record| writer.append(record).unwrap());
    writer.flush().unwrap();
    let read = read_records(&lines).unwrap();
    assert_eq!(
        (read.records, read.segment, read.torn_bytes),
        (every_kind(), 3, 0)
    );

    write_records_parquet(&Disk::default(), &columns, &every_kind(), 4).unwrap();
    assert_eq!(read_records_parquet(&columns).unwrap(), (every_kind(), 4));
    write_records_parquet(&Disk::default(), &columns, &[], 1).unwrap();
    assert_eq!(read_records_parquet(&columns).unwrap(), (vec![], 1));
}

#[test]
fn the_lines_are_those_of_the_format() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.jsonl");
    let mut writer = RecordWriter::create(&path, 0).unwrap();
    writer.append(&eval(7, 1, 0, 50)).unwrap();
    writer.append(&column(-1, 2, 10)).unwrap();
    writer.flush().unwrap();
    let expected = r#"{"kind":"format","format_version":1,"segment":0}
{"kind":"eval","step":7,"experience":1,"set":0,"correct":50,"n":100,"half":[25,50]}
{"kind":"column","after":-1,"set":2,"correct":10,"n":100,"loss":0.125}
"#;
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
}

#[test]
fn a_loss_that_is_no_number_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (lines, columns) = (dir.path().join("r.jsonl"), dir.path().join("r.parquet"));
    for value in [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.1 + 0.2,
        5e-324,
    ] {
        let Record::Step(mut bad) = step(1, 0) else {
            unreachable!()
        };
        bad.loss = value;
        bad.terms.insert("penalty".into(), value);
        let mut writer = RecordWriter::create(&lines, 0).unwrap();
        writer.append(&Record::Step(bad.clone())).unwrap();
        writer.flush().unwrap();
        write_records_parquet(&Disk::default(), &columns, &[Record::Step(bad)], 1).unwrap();
        for records in [
            read_records(&lines).unwrap().records,
            read_records_parquet(&columns).unwrap().0,
        ] {
            let Record::Step(back) = &records[0] else {
                unreachable!()
            };
            assert_eq!(back.loss.to_bits(), value.to_bits());
            assert_eq!(back.terms["penalty"].to_bits(), value.to_bits());
        }
    }
}

#[test]
fn a_file_cut_anywhere_keeps_its_whole_lines_and_can_be_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.jsonl");
    let mut writer = RecordWriter::create(&path, 0).unwrap();
    let header = writer.bytes() as usize;
    every_kind()
        .iter()
        .for_each(|record| writer.append(record).unwrap());
    drop(writer);
    let whole = fs::read(&path).unwrap();
    for length in header..=whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let lines = whole[..length]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count()
            - 1;
        let read = read_records(&path).unwrap();
        assert_eq!(read.records, every_kind()[..lines], "cut at {length}");
        assert_eq!(read.whole_bytes + read.torn_bytes, length as u64);

        let (mut writer, torn) = RecordWriter::repair(&path).unwrap();
        assert_eq!(torn, read.torn_bytes);
        writer.append(&end(9)).unwrap();
        drop(writer);
        let repaired = read_records(&path).unwrap();
        assert_eq!(
            (repaired.records.len(), repaired.torn_bytes),
            (lines + 1, 0)
        );
    }
    // A loss of power can leave zeros where the tail was.
    fs::write(&path, [&whole[..], &[0; 100], b"\n"].concat()).unwrap();
    let read = read_records(&path).unwrap();
    assert_eq!(
        (read.records.len(), read.torn_bytes),
        (every_kind().len(), 101)
    );
}

#[test]
fn damage_within_is_an_error_that_names_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.jsonl");
    let text = |body: &str| {
        fs::write(
            &path,
            format!("{{\"kind\":\"format\",\"format_version\":1,\"segment\":0}}\n{body}"),
        )
        .unwrap();
        read_records(&path).unwrap_err().to_string()
    };
    let good = r#"{"kind":"end","steps":1}"#;
    assert!(text(&format!("{good}\n{{\"kind\":\n{good}\n")).contains("line 3"));
    assert!(text("{\"kind\":\"unheard\"}\n").contains("unknown variant `unheard`"));
    fs::write(&path, format!("{good}\n")).unwrap();
    assert!(
        read_records(&path)
            .unwrap_err()
            .to_string()
            .contains("does not begin with a `format`")
    );
    fs::write(
        &path,
        "{\"kind\":\"format\",\"format_version\":7,\"new\":[]}\n",
    )
    .unwrap();
    let newer = read_records(&path).unwrap_err();
    assert!(matches!(
        newer,
        Error::Newer {
            found: 7,
            supported: 1,
            ..
        }
    ));
    assert!(
        newer
            .to_string()
            .contains("use a newer `ebb`, nothing was changed")
    );
    assert!(matches!(
        RecordWriter::resume(&path, 10),
        Err(Error::Newer { .. })
    ));
}

#[test]
fn resuming_cuts_to_the_mark_and_refuses_what_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.jsonl");
    let mut writer = RecordWriter::create(&path, 0).unwrap();
    writer.append(&step(1, 0)).unwrap();
    let mark = writer.sync().unwrap();
    writer.append(&step(2, 0)).unwrap();
    drop(writer);
    let mut writer = RecordWriter::resume(&path, mark).unwrap();
    writer.append(&step(3, 0)).unwrap();
    drop(writer);
    assert_eq!(
        read_records(&path).unwrap().records,
        [step(1, 0), step(3, 0)]
    );
    let text = RecordWriter::resume(&path, mark - 1)
        .unwrap_err()
        .to_string();
    assert!(text.contains("is not the end of a line"), "{text}");
    let text = RecordWriter::resume(&path, 1 << 20)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("but the last state was saved when it had 1048576"),
        "{text}"
    );
    assert_eq!(read_records(&path).unwrap().records.len(), 2);
}

fn same(a: &[Outcomes], b: &[Outcomes]) -> bool {
    let bits = |o: &Outcomes| o.loss.iter().map(|l| l.to_bits()).collect::<Vec<_>>();
    let plain = |o: &Outcomes| {
        (
            o.step,
            o.after,
            o.set,
            o.ids.clone(),
            bits(o),
            o.correct.clone(),
        )
    };
    a.iter().map(plain).eq(b.iter().map(plain))
}

/// Evaluations of sets of several sizes, some of them of the same examples.
fn evaluations() -> Vec<Outcomes> {
    let mut random = Key::new(4, "outcomes").stream();
    let sizes = [1usize, 7, 8, 9, 8, 1000, 7];
    let one = |(k, n): (usize, usize)| Outcomes {
        step: 1 << (k * 8),
        after: k as i32 - 1,
        set: u32::MAX - k as u32,
        ids: (0..n as u32)
            .map(|i| id(i).with_occurrence(i % 3).with_view(u32::MAX - i))
            .collect(),
        loss: (0..n)
            .map(|_| f32::from_bits(random.next_u64() as u32))
            .collect(),
        correct: (0..n).map(|_| random.below(2) == 1).collect(),
    };
    sizes.into_iter().enumerate().map(one).collect()
}

fn append(writer: &mut OutcomeWriter, all: &[Outcomes]) {
    for o in all {
        writer
            .append(o.step, o.after, o.set, &o.ids, &o.loss, &o.correct)
            .unwrap();
    }
}

#[test]
fn outcomes_come_back_bit_for_bit_and_repeated_ids_are_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let (path, columns) = (dir.path().join("o.bin"), dir.path().join("o.parquet"));
    let mut writer = OutcomeWriter::create(&path, 2).unwrap();
    append(&mut writer, &evaluations());
    let before = writer.bytes();
    append(&mut writer, &evaluations()[5..6]);
    // 16 + 24 bytes of headers, 4 bytes a loss, one bit an answer.
    assert_eq!(writer.sync().unwrap() - before, 40 + 4 * 1000 + 125);
    let all = [evaluations(), evaluations()[5..6].to_vec()].concat();
    assert!(same(&read_outcomes(&path).unwrap(), &all));
    write_outcomes_parquet(&Disk::default(), &columns, 3, |take| {
        all.iter().cloned().try_for_each(take)
    })
    .unwrap();
    let (back, segments) = read_outcomes_parquet(&columns).unwrap();
    assert!(same(&back, &all) && segments == 3);

    let unequal = writer.append(0, 0, 0, &[id(0)], &[], &[true]).unwrap_err();
    assert!(
        unequal
            .to_string()
            .contains("1 ids, 0 losses and 1 outcomes")
    );
}

#[test]
fn outcomes_cut_anywhere_keep_their_whole_blocks_and_resume_without_doubling() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.bin");
    let few = &evaluations()[..5];
    let mut writer = OutcomeWriter::create(&path, 0).unwrap();
    let mut marks = vec![writer.bytes()];
    for one in few {
        append(&mut writer, std::slice::from_ref(one));
        marks.push(writer.bytes());
    }
    drop(writer);
    let whole = fs::read(&path).unwrap();
    for length in marks[0]..=whole.len() as u64 {
        fs::write(&path, &whole[..length as usize]).unwrap();
        let complete = marks.iter().filter(|&&mark| mark <= length).count() - 1;
        assert!(
            same(&read_outcomes(&path).unwrap(), &few[..complete]),
            "cut at {length}"
        );
        let mut writer = OutcomeWriter::resume(&path, marks[complete]).unwrap();
        append(&mut writer, &few[complete..]);
        drop(writer);
        assert_eq!(fs::read(&path).unwrap(), whole, "cut at {length}");
    }
    let text = OutcomeWriter::resume(&path, marks[1] + 1)
        .unwrap_err()
        .to_string();
    assert!(text.contains("is not the end of a block"), "{text}");
    assert!(OutcomeWriter::resume(&path, whole.len() as u64 + 1).is_err());
}

#[test]
fn changed_outcomes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.bin");
    let few = &evaluations()[..3];
    append(&mut OutcomeWriter::create(&path, 0).unwrap(), few);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        let Ok(read) = read_outcomes(&path) else {
            continue;
        };
        // The segment number is free, and a wrong length may look like a torn tail.
        assert!(same(&read, &few[..read.len()]), "byte {at}");
        assert!(
            read.len() < few.len() || (12..16).contains(&at),
            "byte {at}"
        );
    }
    let mut newer = whole.clone();
    newer[8] = 9;
    fs::write(&path, newer).unwrap();
    assert!(matches!(
        read_outcomes(&path),
        Err(Error::Newer { found: 9, .. })
    ));
}

#[test]
fn damaged_parquet_is_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let (records, outcomes) = (dir.path().join("r.parquet"), dir.path().join("o.parquet"));
    write_records_parquet(&Disk::default(), &records, &every_kind(), 1).unwrap();
    write_outcomes_parquet(&Disk::default(), &outcomes, 1, |take| {
        evaluations()[..4].iter().cloned().try_for_each(take)
    })
    .unwrap();
    // The one file is not taken for the other.
    assert!(
        read_records_parquet(&outcomes)
            .unwrap_err()
            .to_string()
            .contains("not the expected ones")
    );
    for path in [&records, &outcomes] {
        let whole = fs::read(path).unwrap();
        let mut random = Key::new(5, "damage").stream();
        for _ in 0..400 {
            let mut bytes = whole.clone();
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(3) {
                0 => bytes.truncate(at),
                _ => bytes[at] ^= 1 << random.below(8),
            }
            fs::write(path, bytes).unwrap();
            // Whatever comes back, nothing panics.
            if path == &records {
                let _ = read_records_parquet(path);
            } else {
                let _ = read_outcomes_parquet(path);
            }
        }
        fs::File::create(path).unwrap().write_all(b"PAR1").unwrap();
        assert!(read_records_parquet(path).is_err() && read_outcomes_parquet(path).is_err());
    }
}

#[test]
fn ids_of_all_views_survive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.bin");
    let ids = [id(1), id(1).with_view(3), id(1).with_occurrence(2)];
    let mut writer = OutcomeWriter::create(&path, 0).unwrap();
    writer.append(1, 0, 0, &ids, &[0.0; 3], &[true; 3]).unwrap();
    drop(writer);
    let text: Vec<String> = ids.iter().map(ExampleId::to_string).collect();
    let back: Vec<String> = read_outcomes(&path).unwrap()[0]
        .ids
        .iter()
        .map(|id| id.to_string())
        .collect();
    assert_eq!(back, text);
}
