use std::collections::BTreeSet;
use std::fs;

use ebb_record::{Artifact, Error, Exposure, Lineage, LineageWriter};

use super::*;

fn state(name: &str) -> Artifact {
    Artifact::State(name.into())
}

#[test]
fn what_reached_a_parent_has_reached_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let (path, segments) = (dir.path().join("lineage.jsonl"), dir.path().join("lineage"));
    let mut writer = LineageWriter::create(&path, &segments, Default::default()).unwrap();
    let ids = |range: std::ops::Range<u32>| range.map(id).collect::<Vec<_>>();
    // Unsorted and with a repetition: the same set is the same segment.
    let first = writer
        .segment(&[ids(0..100), ids(50..60)].concat())
        .unwrap();
    let mut reversed = ids(0..100);
    reversed.reverse();
    assert_eq!(writer.segment(&reversed).unwrap(), first);
    let second = writer
        .segment(&[ids(100..200), vec![id(7).with_view(4)]].concat())
        .unwrap();
    let empty = writer.segment(&[]).unwrap();

    let exposure = Exposure {
        experience: Some(0),
        epochs: Some((0, 3)),
        part: true,
    };
    let memory = Artifact::Memory("replay".into());
    let fisher = Artifact::Statistic("fisher 0".into());
    writer.reach(state("a"), &first, exposure.clone()).unwrap();
    writer
        .reach(fisher.clone(), &first, Exposure::default())
        .unwrap();
    writer
        .reach(state("b"), &second, Exposure::default())
        .unwrap();
    writer
        .reach(memory.clone(), &second, Exposure::default())
        .unwrap();
    writer
        .reach(state("c"), &empty, Exposure::default())
        .unwrap();
    writer
        .made(state("b"), &[state("a"), fisher.clone()])
        .unwrap();
    writer
        .made(state("c"), &[state("b"), memory.clone()])
        .unwrap();
    writer.made(state("aside"), &[state("a")]).unwrap();
    assert!(
        writer
            .reach(state("a"), "unstored", Exposure::default())
            .is_err()
    );
    writer.sync().unwrap();

    for lineage in [
        writer.lineage().clone(),
        Lineage::read(&path, &segments).unwrap(),
    ] {
        let reached = |id: &ExampleId| lineage.reached(id).unwrap();
        let of_first = [
            state("a"),
            state("aside"),
            state("b"),
            state("c"),
            fisher.clone(),
        ];
        assert_eq!(reached(&id(7)), of_first);
        assert_eq!(reached(&id(150)), [state("b"), state("c"), memory.clone()]);
        assert_eq!(
            reached(&id(7).with_view(4)),
            [state("b"), state("c"), memory.clone()]
        );
        assert_eq!(reached(&id(999)), []);
        let mut any: Vec<Artifact> = [&of_first[..], std::slice::from_ref(&memory)].concat();
        any.sort();
        assert_eq!(
            lineage.reached_by_any_view(&id(7).with_view(9)).unwrap(),
            any
        );
        // Many records at once give what each gives alone.
        let asked = [id(7).with_view(9), id(150), id(99), id(1000)];
        let mut expected = BTreeMap::<Artifact, BTreeSet<ExampleId>>::new();
        for record in asked {
            for artifact in lineage.reached_by_any_view(&record).unwrap() {
                expected.entry(artifact).or_default().insert(record);
            }
        }
        assert!(expected.values().any(|of| of.len() == 3));
        assert_eq!(lineage.reached_by_records(&asked).unwrap(), expected);
        let with = lineage.segments_with(&asked).unwrap();
        assert_eq!(with[&*first], BTreeSet::from([asked[0], asked[2]]));
        assert_eq!(with[&*second], BTreeSet::from([asked[0], asked[1]]));
        assert_eq!(with.len(), 2);
        assert_eq!(lineage.direct(&state("a")), [(first.as_str(), &exposure)]);
        assert_eq!(lineage.segment(&second).unwrap().len(), 101);
        assert_eq!(lineage.examples(&state("c")).unwrap().len(), 201);
        assert_eq!(lineage.examples(&state("a")).unwrap().len(), 100);
        assert_eq!(lineage.examples(&state("nowhere")).unwrap(), []);
    }
}

#[test]
fn every_id_of_a_segment_is_found_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (path, segments) = (dir.path().join("lineage.jsonl"), dir.path().join("lineage"));
    let mut writer = LineageWriter::create(&path, &segments, Default::default()).unwrap();
    for n in [0u32, 1, 2, 3, 17] {
        let all: Vec<ExampleId> = (0..n).map(id).collect();
        let segment = writer.segment(&all).unwrap();
        writer
            .reach(state(&n.to_string()), &segment, Exposure::default())
            .unwrap();
    }
    for k in 0..20 {
        let holders = [0u32, 1, 2, 3, 17].iter().filter(|&&n| k < n).count();
        assert_eq!(
            writer.lineage().reached(&id(k)).unwrap().len(),
            holders,
            "{k}"
        );
    }
}

#[test]
fn resuming_forgets_what_was_not_committed_and_removes_its_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (path, segments) = (dir.path().join("lineage.jsonl"), dir.path().join("lineage"));
    let mut writer = LineageWriter::create(&path, &segments, Default::default()).unwrap();
    let kept = writer.segment(&[id(1)]).unwrap();
    writer
        .reach(state("a"), &kept, Exposure::default())
        .unwrap();
    let mark = writer.sync().unwrap();
    let cut = writer.segment(&[id(2)]).unwrap();
    writer.reach(state("b"), &cut, Exposure::default()).unwrap();
    drop(writer);
    let writer = LineageWriter::resume(&path, &segments, mark, Default::default()).unwrap();
    assert_eq!(writer.lineage().reached(&id(1)).unwrap(), [state("a")]);
    assert_eq!(writer.lineage().reached(&id(2)).unwrap(), []);
    assert_eq!(fs::read_dir(&segments).unwrap().count(), 1);
    drop(writer);

    let text = LineageWriter::resume(&path, &segments, mark - 1, Default::default()).unwrap_err();
    assert!(matches!(text, Error::Damaged { .. }));
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], b"{\"kind\":\"rea"].concat()).unwrap();
    assert_eq!(
        Lineage::read(&path, &segments)
            .unwrap()
            .reached(&id(1))
            .unwrap()
            .len(),
        1
    );
    fs::write(&path, [&whole[..], b"{\"kind\":\"rea\n{}\n"].concat()).unwrap();
    assert!(
        Lineage::read(&path, &segments)
            .unwrap_err()
            .to_string()
            .contains("line 3")
    );
    fs::write(&path, "{\"kind\":\"format\",\"format_version\":2}\n").unwrap();
    assert!(matches!(
        Lineage::read(&path, &segments),
        Err(Error::Newer { .. })
    ));

    fs::write(&path, &whole).unwrap();
    let segment = segments.join(kept).with_extension("ids");
    let bytes = fs::read(&segment).unwrap();
    fs::write(&segment, &bytes[..bytes.len() - 1]).unwrap();
    let text = Lineage::read(&path, &segments)
        .unwrap()
        .reached(&id(1))
        .unwrap_err()
        .to_string();
    assert!(text.contains("should hold 1 ids"), "{text}");
}
