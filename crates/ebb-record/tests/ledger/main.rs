//! The ledger under tampering, crashes and keys in the wrong place.

mod crash;
mod keys;
mod tamper;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ebb_record::ledger::{
    Claim, Digest, Entry, Ground, Head, Ledger, Merkle, NameKey, Refusal, RequestId, Word,
};
use ebb_space::ExampleId;

fn word(text: &str) -> Word {
    Word::new(text).unwrap()
}

fn digest(n: u8) -> Digest {
    Digest(*blake3::hash(&[n]).as_bytes())
}

fn id(n: u32) -> ExampleId {
    ExampleId::of(&n.to_le_bytes(), 0)
}

/// One entry of every kind that a caller can write.
fn entries(key: &NameKey) -> Vec<Entry> {
    let request = RequestId([7; 16]);
    vec![
        Entry::Submitted {
            request,
            ground: Ground::Licence,
            deadline: Some(1_800_000_000),
            authority: key.text("a publisher"),
        },
        Entry::Refused {
            request: RequestId([8; 16]),
            because: Refusal::NothingMatched,
            records: 0,
        },
        Entry::Planned {
            request,
            records: Merkle::new((0..5).map(|n| key.record(&id(n)))).records(),
            method: word("sisa"),
            claim: Claim::Exact,
        },
        Entry::Started { request },
        Entry::PhaseDone {
            request,
            phase: word("retrain-shard-3"),
        },
        Entry::Erased {
            request,
            before: digest(1),
            after: digest(2),
        },
        Entry::Verified {
            request,
            report: digest(3),
            passed: true,
            oracle: false,
        },
        Entry::Purged {
            request,
            what: word("state"),
            artifacts: 2,
            bytes: 12_345,
            root: digest(4),
        },
        Entry::Certified {
            request,
            certificate: digest(5),
        },
        Entry::Note {
            name: word("cost"),
            values: BTreeMap::from([(word("seconds"), 0.1 + 0.2), (word("steps"), 7.0)]),
        },
    ]
}

/// A directory with a key and a ledger that holds [`entries`].
struct Place {
    _dir: tempfile::TempDir,
    ledger: PathBuf,
    key: NameKey,
    head: Head,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let key = NameKey::create(&dir.path().join("names.key")).unwrap();
    let path = dir.path().join("run/ledger");
    let mut ledger = Ledger::create(&path, &key, 1_700_000_000).unwrap();
    for (n, entry) in entries(&key).iter().enumerate() {
        ledger.append(1_700_000_001 + n as u64, entry).unwrap();
    }
    let head = ledger.commit().unwrap();
    assert_eq!(head.count, 11);
    Place {
        _dir: dir,
        ledger: path,
        key,
        head,
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in ["entries.jsonl", "head"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}
