use ebb_record::ledger::verify;
use ebb_record::{Environment, Error, RunDir, Secret};

use super::*;

fn why(error: Error) -> String {
    match error {
        Error::Secret { why, .. } => why,
        other => panic!("{other}"),
    }
}

#[test]
fn names_need_the_key_and_cover_all_views() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("names.key");
    let key = NameKey::create(&path).unwrap();
    let again = NameKey::load(&path).unwrap();
    let other = NameKey::create(&dir.path().join("other.key")).unwrap();
    assert_eq!(key.record(&id(1)), again.record(&id(1).with_view(3)));
    assert_ne!(key.record(&id(1)), key.record(&id(1).with_occurrence(1)));
    assert_ne!(key.record(&id(1)), other.record(&id(1)));
    let ledger = Ledger::create(&dir.path().join("ledger"), &key, 0).unwrap();
    assert!(ledger.is_named_by(&again) && !ledger.is_named_by(&other));
    drop(ledger);
    let ledger = Ledger::open(&dir.path().join("ledger")).unwrap();
    assert!(ledger.is_named_by(&again) && !ledger.is_named_by(&other));
    assert_ne!(key.text("a"), key.text("b"));
    assert_ne!(key.request(b"a", 1), key.request(b"a", 2));
    assert!(!format!("{key:?}").contains(&fs::read_to_string(&path).unwrap()[28..40]));
}

#[cfg(unix)]
#[test]
fn a_key_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("names.key");
    NameKey::create(&path).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    for mode in [0o640, 0o604, 0o620, 0o666, 0o610] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(why(NameKey::load(&path).unwrap_err()).contains(&format!("{mode:o}")));
        assert!(NameKey::destroy(&path).is_err());
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    NameKey::load(&path).unwrap();
}

#[test]
fn a_key_within_a_run_or_a_ledger_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let environment = Environment::collect(BTreeMap::new(), 1);
    drop(RunDir::create(&root, "seed = 1\n", &environment).unwrap());
    let outside = dir.path().join("names.key");
    let key = NameKey::create(&outside).unwrap();
    fs::create_dir_all(root.join("deep/er")).unwrap();
    let ledger = dir.path().join("ledger");
    drop(Ledger::create(&ledger, &key, 0).unwrap());
    for inside in [
        root.join("a.key"),
        root.join("deep/er/a.key"),
        ledger.join("a.key"),
    ] {
        assert!(why(NameKey::create(&inside).unwrap_err()).contains("lies within"));
        assert!(!inside.exists());
        fs::copy(&outside, &inside).unwrap();
        assert!(why(NameKey::load(&inside).unwrap_err()).contains("lies within"));
        // A link from outside does not help.
        #[cfg(unix)]
        {
            let link = dir.path().join("link.key");
            std::os::unix::fs::symlink(&inside, &link).unwrap();
            assert!(why(NameKey::load(&link).unwrap_err()).contains("lies within"));
            fs::remove_file(link).unwrap();
        }
    }
}

#[test]
fn a_key_is_never_replaced_and_only_a_key_is_read_or_destroyed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("names.key");
    NameKey::create(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(why(NameKey::create(&path).unwrap_err()).contains("never replaced"));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert!(why(Secret::load(&path, "signing").unwrap_err()).contains("record-names"));
    for bad in [
        "",
        "secret",
        &text[..text.len() - 3],
        &text.to_uppercase(),
        &"a".repeat(1 << 20),
    ] {
        fs::write(&path, bad).unwrap();
        assert!(NameKey::load(&path).is_err());
        assert!(NameKey::destroy(&path).is_err());
        assert!(path.exists());
    }
    fs::write(&path, text).unwrap();
    NameKey::destroy(&path).unwrap();
    assert!(!path.exists());
}

/// The ledger has neither a record's id nor anything that follows from content without the key.
#[test]
fn what_is_written_cannot_be_looked_up_without_the_key() {
    let p = place();
    let files = [
        p.ledger.join("entries.jsonl"),
        p.ledger.join("head"),
        p.ledger.join("run.lock"),
    ];
    let bytes: Vec<u8> = files.iter().flat_map(|f| fs::read(f).unwrap()).collect();
    let text = String::from_utf8(bytes).unwrap();
    for n in 0..5 {
        let content = n.to_string();
        let id = id(n).to_string();
        for sought in [
            id.split('-').next().unwrap().to_owned(),
            blake3::hash(&n.to_le_bytes()).to_string(),
            blake3::hash(content.as_bytes()).to_string(),
            p.key.record(&super::id(n)).to_string(),
        ] {
            assert!(!text.contains(&sought));
        }
    }
    assert!(!text.contains("publisher"));
    assert!(!text.contains(&blake3::hash(b"a publisher").to_string()));
    let records = Merkle::new((0..5).map(|n| p.key.record(&id(n)))).records();
    assert!(text.contains(&records.root.to_string()), "positive control");
    verify(&p.ledger, Some(&p.head)).unwrap();
}
