//! The store against a plain map, and what its files say of what was deleted.

mod model;

use std::fs;
use std::path::Path;

use ebb_memory::{By, Error, Input, Marks, Offer, Records, Safety, Shape, Store, Values};
use ebb_space::{ExampleId, Key};
use model::{Model, SHAPES, apply, apply_to, drawn, read, same};

fn open(dir: &Path, key: Key) -> Store {
    Store::open(dir, key, Safety::Process).unwrap()
}

#[test]
fn random_operations_agree_with_a_map_also_over_openings() {
    for (shape, seed) in SHAPES.into_iter().zip(0..) {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::new(seed, "store");
        let ops = key.sub("ops");
        let mut store = Store::create(dir.path(), shape, key, Safety::Process).unwrap();
        let mut model = Model::new();
        for number in 0..250 {
            apply_to(&mut store, ops, number).unwrap();
            apply(&mut model, shape, ops, number);
            if ops.sub("reopen").at(number).draw(0).is_multiple_of(10) {
                let before: Vec<_> = [By::Uniform, By::Scores { temperature: 0.7 }]
                    .map(|by| drawn(&mut store, "a", by, 5, number))
                    .into();
                drop(store);
                store = open(dir.path(), key);
                let after: Vec<_> = [By::Uniform, By::Scores { temperature: 0.7 }]
                    .map(|by| drawn(&mut store, "a", by, 5, number))
                    .into();
                assert_eq!(before, after, "an opened store draws as before");
            }
            let now = read(&store).unwrap();
            assert!(
                same(&now, &model),
                "operation {number}: {now:?} is not {model:?}"
            );
        }
        assert_eq!(store.damaged().count(), 0);
    }
}

/// A pattern that nothing else holds.
fn plant(n: u64) -> [u8; 24] {
    let mut out = [0; 24];
    for (i, piece) in out.chunks_exact_mut(8).enumerate() {
        piece.copy_from_slice(&Key::new(n, "plant").draw(i as u64).to_le_bytes());
    }
    out
}

/// How many bytes of all files of a folder begin `pattern`.
fn occurrences(dir: &Path, pattern: &[u8]) -> usize {
    let files = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let found = files.map(|path| {
        let bytes = fs::read(path).unwrap();
        bytes
            .windows(pattern.len())
            .filter(|w| *w == pattern)
            .count()
    });
    found.sum()
}

/// What a store holds of record `n`: pieces of its id, input, logits and features.
fn traces(dir: &Path, n: u64) -> [usize; 4] {
    let id = ExampleId::of(&plant(n), 0).base;
    let piece = |what: u64| plant(n * 10 + what);
    [
        occurrences(dir, &id),
        occurrences(dir, &piece(1)),
        occurrences(dir, &piece(2)),
        occurrences(dir, &piece(3)),
    ]
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.as_chunks().0.iter();
    words.map(|word| f32::from_le_bytes(*word)).collect()
}

fn insert_plants(store: &mut Store, ns: std::ops::Range<u64>) {
    for n in ns {
        // Long and short, so that a hole is rarely of the next one's length.
        let text = [&plant(n * 10 + 1)[..], &vec![b'.'; (n % 7) as usize]].concat();
        let offer = Offer {
            ids: &[ExampleId::of(&plant(n), 0)],
            labels: &[0],
            experience: 0,
            task: 0,
            step: n,
        };
        let logits = floats(&plant(n * 10 + 2));
        let features = floats(&plant(n * 10 + 3));
        store
            .insert_bytes(&offer, &[&text], Some(&logits), Some(&features))
            .unwrap();
    }
}

const PLANTED: Shape = Shape {
    input: Input::Bytes,
    logits: Some(6),
    features: Some(6),
};

#[test]
fn no_byte_of_a_deleted_record_is_in_any_file() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, key) = (dir.path(), Key::new(1, "plants"));
    let mut store = Store::create(dir, PLANTED, key, Safety::Process).unwrap();
    insert_plants(&mut store, 0..40);
    for n in 0..40 {
        // The control: all of it is there, the id and the sidecars in the journal as well.
        let found = traces(dir, n);
        assert!(
            found.iter().all(|&count| count >= 1),
            "record {n}: {found:?}"
        );
        assert!(found[0] >= 2, "the journal names record {n}: {found:?}");
    }
    // A sidecar that was written again is in the journal a second time.
    let slot = store.find(&ExampleId::of(&plant(3), 0)).unwrap().unwrap();
    let logits = floats(&plant(3 * 10 + 2));
    store.rewrite(&[slot], Some(&logits), None, 99).unwrap();
    assert_eq!(traces(dir, 3)[2], 2);

    let gone: Vec<u64> = (0..40).filter(|n| n % 3 == 0).collect();
    let ids: Vec<ExampleId> = gone.iter().map(|&n| ExampleId::of(&plant(n), 0)).collect();
    assert_eq!(store.delete(&ids).unwrap(), gone.len());
    for &n in &gone {
        // Inputs never are in the journal, so they are gone at once.
        assert_eq!(traces(dir, n)[1], 0, "record {n}");
    }
    let check = |when: &str| {
        for n in 0..40 {
            let found = traces(dir, n);
            match gone.contains(&n) {
                true => assert_eq!(found, [0; 4], "{when}: record {n} has traces"),
                false => assert!(
                    found.iter().all(|&count| count >= 1),
                    "{when}: {n} {found:?}"
                ),
            }
        }
    };
    store.checkpoint().unwrap();
    check("after a checkpoint");
    insert_plants(&mut store, 100..110); // into the slots that were freed
    store.compact().unwrap();
    check("after a compaction");
    drop(store);
    check("after closing");
    let store = open(dir, key);
    check("after opening");
    assert_eq!(store.len(), 40 - gone.len() + 10);
}

#[test]
fn a_compaction_gives_the_room_back_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new(2, "compact");
    let mut store = Store::create(dir.path(), PLANTED, key, Safety::Process).unwrap();
    insert_plants(&mut store, 0..2000);
    let ids: Vec<ExampleId> = (0..1800).map(|n| ExampleId::of(&plant(n), 0)).collect();
    store.delete(&ids).unwrap();
    let draws: Vec<_> = (0..9)
        .map(|step| drawn(&mut store, "a", By::Uniform, 7, step))
        .collect();
    let done = store.compact().unwrap();
    assert_eq!((done.records, done.dropped), (200, 0));
    let (records_before, records_now) = (done.bytes_before - (1 << 20), done.bytes_now - (1 << 20));
    assert!(records_now * 9 < records_before, "{done:?}");
    let now: Vec<_> = (0..9)
        .map(|step| drawn(&mut store, "a", By::Uniform, 7, step))
        .collect();
    assert_eq!(draws, now, "slots are new, draws are not");
    let mut payload = Vec::new();
    for n in 1800..2000 {
        let slot = store.find(&ExampleId::of(&plant(n), 0)).unwrap().unwrap();
        payload.clear();
        store.payload(slot, &mut payload).unwrap();
        assert_eq!(payload[..24], plant(n * 10 + 1));
        assert_eq!(store.meta(slot).unwrap().arrival, n);
    }
}

#[test]
fn freed_room_of_one_width_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let shape = Shape {
        input: Input::U8(100),
        logits: None,
        features: None,
    };
    let key = Key::new(3, "room");
    let mut store = Store::create(dir.path(), shape, key, Safety::Process).unwrap();
    let insert = |store: &mut Store, ns: std::ops::Range<u64>| {
        let ids: Vec<ExampleId> = ns.map(|n| ExampleId::of(&n.to_le_bytes(), 0)).collect();
        let offer = Offer {
            ids: &ids,
            labels: &vec![0; ids.len()],
            experience: 0,
            task: 0,
            step: 0,
        };
        let codes = vec![7; 100 * ids.len()];
        store
            .insert(&offer, &Records::of(Values::U8(&codes)))
            .unwrap()
    };
    insert(&mut store, 0..500);
    store.checkpoint().unwrap();
    let full = store.file_bytes().unwrap();
    for round in 0..20u64 {
        let (old, new) = (round * 500, (round + 1) * 500);
        let ids: Vec<ExampleId> = (old..new)
            .map(|n| ExampleId::of(&n.to_le_bytes(), 0))
            .collect();
        assert_eq!(store.delete(&ids).unwrap(), 500);
        store.checkpoint().unwrap();
        if round % 3 == 0 {
            drop(store);
            store = open(dir.path(), key);
        }
        assert_eq!(insert(&mut store, new..new + 500), 500);
        assert_eq!(
            insert(&mut store, new..new + 500),
            0,
            "an offer can be repeated"
        );
    }
    assert_eq!(store.file_bytes().unwrap(), full);
}

fn small(dir: &Path, key: Key) {
    let mut store = Store::create(dir, SHAPES[0], key, Safety::Power).unwrap();
    for number in 0..40 {
        apply_to(&mut store, key.sub("ops"), number).unwrap();
    }
}

/// Copies a closed store.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "lock").collect();
    names.sort();
    names
}

/// Flips bits of every file in turn: either opening says what is
/// wrong, or reading the damaged record does, and all others are whole.
#[test]
fn a_flipped_bit_is_found_and_costs_no_other_record() {
    let root = tempfile::tempdir().unwrap();
    let (sound, hurt) = (root.path().join("sound"), root.path().join("hurt"));
    let key = Key::new(4, "bits");
    small(&sound, key);
    let truth = read(&open(&sound, key)).unwrap();
    assert!(truth.len() > 5);
    for name in files(&sound) {
        if name == "journal" {
            continue; // all zeros now; a test of its own
        }
        let whole = fs::read(sound.join(&name)).unwrap();
        // 101 has no factor in common with any width.
        for bit in (0..whole.len() * 8).step_by(101) {
            if hurt.exists() {
                fs::remove_dir_all(&hurt).unwrap();
            }
            copy(&sound, &hurt);
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(hurt.join(&name), bytes).unwrap();
            let store = match Store::open(&hurt, key, Safety::Process) {
                Err(e) => {
                    assert_eq!(name, "head", "{e}");
                    let text = e.to_string();
                    assert!(
                        text.contains("damaged") || text.contains("holds no"),
                        "{text}"
                    );
                    continue;
                }
                Ok(store) => store,
            };
            let mut lost = 0;
            for (id, kept) in &truth {
                let one = || -> ebb_memory::Result<bool> {
                    let Some(slot) = store.find(id)? else {
                        return Ok(false);
                    };
                    let (mut payload, mut logits, mut features) = Default::default();
                    store.meta(slot)?;
                    store.payload(slot, &mut payload)?;
                    store.gather_logits(&[slot], &mut logits)?;
                    store.gather_features(&[slot], &mut features)?;
                    let marks = store.marks(slot)?;
                    assert_eq!(
                        (&payload, &logits, &features),
                        (&kept.payload, &kept.logits, &kept.features)
                    );
                    assert_eq!(format!("{marks:?}"), format!("{:?}", kept.marks));
                    Ok(true)
                };
                match one() {
                    Ok(true) => {}
                    Ok(false) => {
                        assert!(store.damaged().any(|(_, what)| what == "rows"));
                        lost += 1;
                    }
                    Err(e) => {
                        assert!(matches!(e, Error::Corrupt { .. }), "{e}");
                        lost += 1;
                    }
                }
            }
            // A flip in room that is free harms nobody.
            assert!(lost <= 1, "{name}, bit {bit}: {lost} records lost");
        }
    }
}

/// The journal of a store whose process dies: cut within its last entry it is the store before that
/// change, whole it is the store after; and no flipped bit in it makes another store.
#[test]
fn a_torn_journal_is_the_moment_before_and_a_flipped_bit_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let [live, hurt, before] = ["live", "hurt", "before"].map(|name| root.path().join(name));
    let (key, ops) = (Key::new(11, "journal"), Key::new(11, "journal ops"));
    let mut store = Store::create(&live, SHAPES[2], key, Safety::Process).unwrap();
    let numbers: Vec<u64> = (0..200)
        .filter(|&n| matches!(model::op(ops, n), model::Op::Insert(_) | model::Op::Mark(_)))
        .take(7)
        .collect();
    let (mut truth, mut earlier) = (Model::new(), Model::new());
    for &number in &numbers {
        earlier = truth.clone();
        if before.exists() {
            fs::remove_dir_all(&before).unwrap();
        }
        copy(&live, &before);
        apply_to(&mut store, ops, number).unwrap();
        apply(&mut truth, SHAPES[2], ops, number);
    }
    assert!(!same(&truth, &earlier));
    copy(&live, &hurt); // as a kill would leave it: the journal is full
    let journal = fs::read(hurt.join("journal")).unwrap();
    let used = journal.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    assert!(used > 1000);
    let mut refused = 0;
    for bit in (0..used * 8 + 800).step_by(83) {
        fs::remove_dir_all(&hurt).unwrap();
        copy(&live, &hurt);
        let mut bytes = journal.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(hurt.join("journal"), bytes).unwrap();
        match Store::open(&hurt, key, Safety::Process) {
            Ok(store) => {
                assert!(bit / 8 >= used, "bit {bit} was not noticed");
                assert!(same(&read(&store).unwrap(), &truth));
            }
            Err(e) => {
                assert!(matches!(e, Error::Corrupt { .. }), "{e}");
                drop(Store::salvage(&hurt, key, Safety::Process).unwrap());
                refused += 1;
            }
        }
    }
    assert!(refused > 100);
    // Inputs and sidecars are laid first, then the entry, then rows and marks.
    let old = fs::read(before.join("journal")).unwrap();
    let start = old.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    for cut in start..=used {
        fs::remove_dir_all(&hurt).unwrap();
        copy(&live, &hurt);
        for name in ["rows.0", "marks.0"] {
            fs::copy(before.join(name), hurt.join(name)).unwrap();
        }
        let mut bytes = journal.clone();
        bytes[cut..].fill(0);
        fs::write(hurt.join("journal"), bytes).unwrap();
        let store = Store::open(&hurt, key, Safety::Process).unwrap();
        let moment = if cut < used { &earlier } else { &truth };
        assert!(
            same(&read(&store).unwrap(), moment),
            "{cut} of {start}..{used}"
        );
    }
}

#[test]
fn damage_is_dropped_by_a_compaction_and_marks_can_be_set_again() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new(5, "drop");
    small(dir.path(), key);
    let store = open(dir.path(), key);
    let truth = read(&store).unwrap();
    let (first, second) = {
        let mut slots = truth.keys().map(|id| store.find(id).unwrap().unwrap());
        (slots.next().unwrap(), slots.next().unwrap())
    };
    drop(store);
    for (part, at) in [
        ("rows", first as usize * 72 + 3),
        ("marks", second as usize * 16 + 2),
    ] {
        let name = files(dir.path())
            .into_iter()
            .find(|name| name.starts_with(part))
            .unwrap();
        let mut bytes = fs::read(dir.path().join(&name)).unwrap();
        bytes[at] ^= 8;
        fs::write(dir.path().join(&name), bytes).unwrap();
    }
    let mut store = open(dir.path(), key);
    let mut damaged: Vec<_> = store.damaged().collect();
    damaged.sort_by_key(|found| found.1);
    assert_eq!(damaged, [(second, "marks"), (first, "rows")]);
    assert!(matches!(store.marks(second), Err(Error::Corrupt { .. })));
    store.mark(&[second], &[Marks::default()]).unwrap();
    store.marks(second).unwrap();
    let done = store.compact().unwrap();
    assert_eq!((done.records, done.dropped), (truth.len() - 1, 1));
    assert_eq!(store.damaged().count(), 0);
    assert_eq!(read(&store).unwrap().len(), truth.len() - 1);
}

#[test]
fn a_cut_file_is_refused_and_what_is_left_can_be_saved() {
    let root = tempfile::tempdir().unwrap();
    let (sound, hurt) = (root.path().join("sound"), root.path().join("hurt"));
    let key = Key::new(6, "cut");
    small(&sound, key);
    let truth = read(&open(&sound, key)).unwrap();
    for name in files(&sound) {
        let len = fs::metadata(sound.join(&name)).unwrap().len();
        for cut in [1, 5, len / 2, len] {
            if hurt.exists() {
                fs::remove_dir_all(&hurt).unwrap();
            }
            copy(&sound, &hurt);
            let file = fs::OpenOptions::new()
                .write(true)
                .open(hurt.join(&name))
                .unwrap();
            file.set_len(len - cut).unwrap();
            let refused = Store::open(&hurt, key, Safety::Process).err().unwrap();
            let text = refused.to_string();
            if name == "head" {
                assert!(
                    text.contains("damaged") || text.contains("holds no"),
                    "{text}"
                );
                continue;
            }
            assert!(matches!(refused, Error::Truncated { .. }), "{text}");
            let mut store = Store::salvage(&hurt, key, Safety::Process).unwrap();
            store.compact().unwrap();
            let left = read(&store).unwrap();
            for (id, kept) in &left {
                let mut expected = truth[id].clone();
                if name.starts_with("marks") {
                    expected.marks = kept.marks;
                }
                assert_eq!(format!("{kept:?}"), format!("{expected:?}"));
            }
            if name == "journal" || name.starts_with("marks") {
                assert_eq!(left.len(), truth.len());
            } else if cut <= 5 {
                assert!(
                    left.len() + 2 >= truth.len(),
                    "{name}: {} of {}",
                    left.len(),
                    truth.len()
                );
            }
            drop(store);
            open(&hurt, key);
        }
    }
}

#[test]
fn other_versions_keys_folders_and_processes_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let key = Key::new(7, "refuse");
    let refused = |dir: &Path, key| Store::open(dir, key, Safety::Process).err().unwrap();
    assert!(matches!(refused(&dir, key), Error::NotAStore(_)));
    small(&dir, key);
    assert!(matches!(
        refused(&dir, Key::new(8, "refuse")),
        Error::OtherKey(_)
    ));
    let again = Store::create(&dir, SHAPES[0], key, Safety::Process)
        .err()
        .unwrap();
    assert!(matches!(again, Error::NotEmpty(_)));

    let held = open(&dir, key);
    assert!(matches!(refused(&dir, key), Error::Locked(_)));
    drop(held);
    drop(open(&dir, key));

    let head = dir.join("head");
    let mut bytes = fs::read(&head).unwrap();
    bytes[8] = 9;
    let body = bytes.len() - 4;
    let check = crc32fast::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(&check.to_le_bytes());
    fs::write(&head, &bytes).unwrap();
    assert!(matches!(
        refused(&dir, key),
        Error::Version {
            found: 9,
            known: 1,
            ..
        }
    ));
    fs::write(&head, b"something else that is long enough").unwrap();
    assert!(matches!(refused(&dir, key), Error::NotAStore(_)));
    assert!(matches!(
        refused(Path::new("/dev/null"), key),
        Error::Io { .. }
    ));
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let key = Key::new(9, "read-only");
    small(&dir, key);
    let mode = |mode| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
    for name in files(&dir).into_iter().chain(["lock".into()]) {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o444)).unwrap();
    }
    mode(0o555);
    let probe = fs::write(dir.join("probe"), b"");
    let opened = Store::open(&dir, key, Safety::Process);
    mode(0o755);
    if probe.is_ok() {
        return; // Nothing is read-only to this user.
    }
    let text = opened.err().unwrap().to_string();
    assert!(text.contains("could not open"), "{text}");
    for name in files(&dir).into_iter().chain(["lock".into()]) {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    assert!(!read(&open(&dir, key)).unwrap().is_empty());
}

#[test]
fn what_does_not_fit_the_shape_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let key = Key::new(10, "fit");
    let mut store = Store::create(&root.path().join("a"), SHAPES[1], key, Safety::Process).unwrap();
    let offer = Offer {
        ids: &[ExampleId::of(b"x", 0)],
        labels: &[0],
        experience: 0,
        task: 0,
        step: 0,
    };
    let x = [0.0; 4];
    let codes = Records::of(Values::U8(&[0; 4]));
    assert!(matches!(
        store.insert(&offer, &codes),
        Err(Error::Payload { .. })
    ));
    let bare = Records::of(Values::F32(&x));
    assert!(matches!(
        store.insert(&offer, &bare),
        Err(Error::Sidecar { .. })
    ));
    let short = Records {
        inputs: Values::F32(&x),
        logits: Some(&x[..1]),
        features: None,
    };
    assert!(matches!(
        store.insert(&offer, &short),
        Err(Error::Length { .. })
    ));
    assert!(matches!(
        store.insert_bytes(&offer, &[b"text"], Some(&x[..2]), None),
        Err(Error::Payload { .. })
    ));
    let good = Records {
        inputs: Values::F32(&x),
        logits: Some(&x[..2]),
        features: None,
    };
    assert_eq!(store.insert(&offer, &good).unwrap(), 1);
    assert!(matches!(store.meta(1), Err(Error::Vacant(1))));
    let marks = |score| Marks {
        score,
        ..Marks::default()
    };
    for score in [f32::NAN, f32::INFINITY] {
        assert!(matches!(
            store.mark(&[0], &[marks(score)]),
            Err(Error::Weight { .. })
        ));
    }
    assert!(matches!(
        store.rewrite(&[0], None, Some(&x), 1),
        Err(Error::Sidecar { .. })
    ));
    for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let by = By::Scores { temperature };
        assert!(matches!(store.draw("a", by, 1, 0), Err(Error::Config(_))));
    }
    let empty = Shape {
        input: Input::U8(0),
        ..SHAPES[1]
    };
    let made = Store::create(&root.path().join("b"), empty, key, Safety::Process);
    assert!(matches!(made.err().unwrap(), Error::Config(_)));
}
