//! Saving, loading, and files that are not what they should be.

mod common;

use std::fs;
use std::path::Path;

use common::{kept, offer};
use ebb_memory::{
    Config, Error, FILE_NAME, Form, Keep, Lookup, Memory, Offer, Payload, Records, Select, Values,
};
use ebb_space::{ExampleId, Key};

const POLICIES: [Keep; 4] = [
    Keep::Reservoir,
    Keep::ClassBalanced,
    Keep::ExperienceBalanced,
    Keep::Ring { per_task: 4 },
];

#[test]
fn a_loaded_memory_goes_on_as_the_saved_one() {
    let dir = tempfile::tempdir().unwrap();
    for keep in POLICIES {
        let key = Key::new(1, "files");
        let mut memory = common::memory(12, keep, key);
        offer(&mut memory, &(0..30).collect::<Vec<_>>(), 0, 4);
        let gone = memory.metas()[1].id;
        memory.delete(&gone); // the bar must survive as well
        let digest = memory.save(dir.path()).unwrap();
        let mut loaded = Memory::load(dir.path(), key).unwrap();
        assert_eq!((loaded.digest(), memory.digest()), (digest, digest));
        assert_eq!(loaded.metas(), memory.metas());
        assert_eq!(loaded.config(), memory.config());
        for (e, ns) in [(1, 20..60), (2, 60..75)] {
            for memory in [&mut memory, &mut loaded] {
                offer(memory, &ns.clone().collect::<Vec<_>>(), e, 4);
            }
            assert_eq!(kept(&loaded), kept(&memory));
            assert_eq!(loaded.metas(), memory.metas(), "{keep:?}: slot by slot");
            for select in [Select::Uniform, Select::Cycle { since: 3 }] {
                let draws =
                    [&memory, &loaded].map(|memory| memory.draw("a", select, 5, 9).unwrap());
                assert_eq!(draws[0], draws[1]);
            }
        }
        assert_eq!(loaded.digest(), memory.digest());
    }
}

#[test]
fn every_bit_of_the_values_survives() {
    let dir = tempfile::tempdir().unwrap();
    let odd = [
        f32::from_bits(0x7fc0_1234),
        -0.0,
        f32::from_bits(1),
        f32::NEG_INFINITY,
        1.0 / 3.0,
        0.0,
    ];
    let form = Form {
        input: 2,
        payload: Payload::F32,
        logits: Some(1),
        features: Some(3),
    };
    let key = Key::new(2, "files");
    let mut memory = Memory::new(
        Config {
            capacity: 5,
            keep: Keep::Reservoir,
            form,
        },
        key,
    )
    .unwrap();
    let ids = [
        ExampleId::of(b"a", 0),
        ExampleId::of(b"b", 1).with_view(7).with_occurrence(3),
    ];
    let offer = Offer {
        ids: &ids,
        labels: &[0, u32::MAX],
        experience: 4,
        task: u16::MAX,
        step: u64::MAX,
    };
    let rows = Records {
        inputs: Values::F32(&odd[..4]),
        logits: Some(&odd[..2]),
        features: Some(&odd),
    };
    memory.offer(&offer, &rows).unwrap();
    memory.rewrite(&[0], Some(&odd[3..4]), None, 77).unwrap();
    memory.save(dir.path()).unwrap();
    let loaded = Memory::load(dir.path(), key).unwrap();
    let bits = |memory: &Memory| {
        let (mut x, mut logits, mut features) = (Vec::new(), Vec::new(), Vec::new());
        let slots = [memory.find(&ids[0]).unwrap(), memory.find(&ids[1]).unwrap()];
        memory.gather(&slots, None, &mut x).unwrap();
        memory.gather_logits(&slots, &mut logits).unwrap();
        memory.gather_features(&slots, &mut features).unwrap();
        [x, logits, features]
            .concat()
            .iter()
            .map(|v| v.to_bits())
            .collect::<Vec<_>>()
    };
    assert_eq!(bits(&loaded), bits(&memory));
    let expected = [&odd[..4], &[odd[3], odd[1]], &odd[..]].concat();
    assert_eq!(
        bits(&memory),
        expected.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
    );
    assert_eq!(loaded.metas(), memory.metas());
    assert_eq!(
        (loaded.metas()[0].step, loaded.metas()[1].step),
        (77, u64::MAX)
    );
}

#[test]
fn codes_come_back_through_the_lookup_of_their_plane() {
    let dir = tempfile::tempdir().unwrap();
    let form = Form {
        input: 6,
        payload: Payload::U8,
        logits: None,
        features: None,
    };
    let key = Key::new(3, "files");
    let mut memory = Memory::new(
        Config {
            capacity: 5,
            keep: Keep::Reservoir,
            form,
        },
        key,
    )
    .unwrap();
    let offer = Offer {
        ids: &[ExampleId::of(b"a", 0)],
        labels: &[0],
        experience: 0,
        task: 0,
        step: 0,
    };
    memory
        .offer(&offer, &Records::of(Values::U8(&[0, 1, 255, 3, 4, 200])))
        .unwrap();
    memory.save(dir.path()).unwrap();
    let memory = Memory::load(dir.path(), key).unwrap();
    let mut x = vec![-1.0];
    let lookup = Lookup::new(2, |plane, code| f32::from(code) / 255.0 - plane as f32);
    memory.gather(&[0], Some(&lookup), &mut x).unwrap();
    assert_eq!(
        x,
        [
            -1.0,
            0.0,
            1.0 / 255.0,
            1.0,
            3.0 / 255.0 - 1.0,
            4.0 / 255.0 - 1.0,
            200.0 / 255.0 - 1.0
        ]
    );
    assert!(matches!(
        memory.gather(&[0], None, &mut x),
        Err(Error::Payload { .. })
    ));
    let four = Lookup::new(4, |_, _| 0.0);
    assert!(matches!(
        memory.gather(&[0], Some(&four), &mut x),
        Err(Error::Length { .. })
    ));
}

fn saved(dir: &Path) -> (Vec<u8>, Key) {
    let key = Key::new(4, "files");
    let mut memory = common::memory(4, Keep::Reservoir, key);
    offer(&mut memory, &(0..9).collect::<Vec<_>>(), 0, 3);
    memory.save(dir).unwrap();
    (fs::read(dir.join(FILE_NAME)).unwrap(), key)
}

fn load_bytes(dir: &Path, bytes: &[u8], key: Key) -> Result<Memory, Error> {
    fs::write(dir.join(FILE_NAME), bytes).unwrap();
    Memory::load(dir, key)
}

fn error(loaded: Result<Memory, Error>) -> Error {
    loaded.err().expect("damaged bytes must not load")
}

#[test]
fn every_truncation_and_every_flipped_bit_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, key) = saved(dir.path());
    for len in 0..bytes.len() {
        let error = error(load_bytes(dir.path(), &bytes[..len], key));
        assert!(
            matches!(error, Error::Truncated { got, .. } if got == len as u64),
            "{len}: {error}"
        );
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let error = error(load_bytes(dir.path(), &damaged, key));
        let named = match at {
            0..8 => matches!(error, Error::NotAMemory(_)),
            8..12 => matches!(error, Error::Version { .. }),
            16..24 => matches!(error, Error::Truncated { .. } | Error::Corrupt { .. }),
            _ => matches!(error, Error::Corrupt { .. }),
        };
        assert!(named, "byte {at}: {error}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(
        error(load_bytes(dir.path(), &longer, key)),
        Error::Corrupt { .. }
    ));
    assert!(load_bytes(dir.path(), &bytes, key).is_ok());
}

/// A file with a right checksum is still not taken on trust.
#[test]
fn a_well_signed_lie_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, key) = saved(dir.path());
    let header_len = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let header = String::from_utf8(bytes[24..24 + header_len].to_vec()).unwrap();
    let columns = &bytes[24 + header_len..bytes.len() - 32];
    let signed = |header: &str, columns: &[u8]| {
        let mut file = b"EBBMEMRY\x01\0\0\0".to_vec();
        file.extend((header.len() as u32).to_le_bytes());
        file.extend(((24 + header.len() + columns.len() + 32) as u64).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(columns);
        let hash = blake3::hash(&file);
        file.extend(hash.as_bytes());
        file
    };
    assert_eq!(
        signed(&header, columns),
        bytes,
        "the format is the documented one"
    );
    let twice = [&columns[..24], &columns[..24], &columns[48..]].concat();
    for (header, columns) in [
        (header.replace("\"records\":4", "\"records\":5"), columns),
        (
            header.replace("\"records\":4", "\"records\":18446744073709551615"),
            columns,
        ),
        (header.replace("\"capacity\":4", "\"capacity\":3"), columns),
        (
            header.replace("\"input\":2", "\"input\":9223372036854775807"),
            columns,
        ),
        (header.replace("\"reservoir\"", "\"all\""), columns),
        (header.replace("\"seen\"", "\"sen\""), columns),
        (header.clone(), &columns[1..]),
        (header.clone(), &twice[..]),
    ] {
        let error = error(load_bytes(dir.path(), &signed(&header, columns), key));
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    let huge = header.replace("\"capacity\":4", "\"capacity\":4294967295");
    let loaded = load_bytes(dir.path(), &signed(&huge, columns), key);
    assert!(loaded.is_ok() || matches!(loaded, Err(Error::TooLarge { .. })));
}

#[test]
fn another_key_a_missing_file_and_a_failed_save_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, key) = saved(dir.path());
    assert!(matches!(
        Memory::load(dir.path(), Key::new(5, "files")),
        Err(Error::OtherKey(_))
    ));
    let missing = error(Memory::load(&dir.path().join("no"), key));
    assert!(
        matches!(&missing, Error::Io { action: "read", .. }),
        "{missing}"
    );

    // A save that fails half-way leaves what was there.
    let mut memory = Memory::load(dir.path(), key).unwrap();
    offer(&mut memory, &(100..200).collect::<Vec<_>>(), 1, 10);
    let partial = dir.path().join(format!("{FILE_NAME}.partial"));
    fs::create_dir(&partial).unwrap();
    assert!(matches!(
        memory.save(dir.path()),
        Err(Error::Io {
            action: "write",
            ..
        })
    ));
    assert_eq!(fs::read(dir.path().join(FILE_NAME)).unwrap(), bytes);
    fs::remove_dir(&partial).unwrap();
    // And what an earlier crash left behind does not stand in the way.
    fs::write(&partial, b"half a memory").unwrap();
    memory.save(dir.path()).unwrap();
    assert!(!partial.exists());
    assert_eq!(
        Memory::load(dir.path(), key).unwrap().digest(),
        memory.digest()
    );
}
