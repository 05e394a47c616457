//! Altered files are refused or read: never a panic, and no memory for what they only claim.
//!
//! `examples/fuzz.rs` does the same for as long as one likes.

#[path = "hostile/mod.rs"]
mod hostile;
#[path = "hostile/memory.rs"]
mod memory;

use ebb_space::Key;
use hostile::{Reader, Target, mutate};

const ROUNDS: u64 = 1500;

fn check(reader: &Reader, target: Target, bytes: &[u8], what: &str) -> bool {
    let (read, peak) = memory::peak(|| reader.read(target, bytes));
    let allowed = target.allowed(bytes.len());
    assert!(
        peak <= allowed,
        "{what}: {peak} bytes for a file of {}, {allowed} are allowed",
        bytes.len()
    );
    read
}

#[test]
fn whole_files_are_read_in_little_memory() {
    let reader = Reader::new();
    for (_, target) in Target::ALL {
        for (name, bytes) in target.seeds() {
            assert!(check(&reader, target, &bytes, &name), "{name}");
        }
    }
}

#[test]
fn files_cut_short_at_any_byte_are_refused() {
    let reader = Reader::new();
    for (_, target) in Target::ALL {
        for (name, bytes) in target.seeds() {
            // Every byte of the first part, where the structure is, and then every few.
            for len in (0..bytes.len()).filter(|len| *len < 2048 || len % 13 == 0) {
                let what = format!("{name}, the first {len} bytes");
                let read = check(&reader, target, &bytes[..len], &what);
                // JSON may lack the end of its last line, GGUF the padding behind its last tensor.
                let rest = &bytes[len..];
                let whole = rest.len() < 32 && rest.iter().all(|&b| b == 0 || b == b'\n');
                assert!(!read || whole || target == Target::Config, "{what}");
            }
        }
    }
}

#[test]
fn absurd_numbers_anywhere_are_refused_or_read() {
    let reader = Reader::new();
    for target in [Target::Gguf, Target::Safetensors] {
        for (name, whole) in target.seeds() {
            for at in 0..whole.len().min(768) {
                for number in [0, u64::MAX, (1 << 63) + 1, 1 << 32] {
                    let mut bytes = whole.clone();
                    let end = (at + 8).min(bytes.len());
                    bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
                    check(
                        &reader,
                        target,
                        &bytes,
                        &format!("{name}, {number} at {at}"),
                    );
                }
            }
        }
    }
}

#[test]
fn altered_files_are_refused_or_read() {
    let reader = Reader::new();
    for (name, target) in Target::ALL {
        let key = Key::new(11, name);
        let seeds = target.seeds();
        let mut read = 0;
        for round in 0..ROUNDS {
            let mut rng = key.at(round).stream();
            let mut pick = || &seeds[rng.below(seeds.len() as u64) as usize];
            let ((seed, whole), (_, other)) = (pick(), pick());
            let bytes = mutate(whole, other, &mut rng);
            let what = format!("{name} {round}, from {seed}");
            read += u32::from(check(&reader, target, &bytes, &what));
        }
        // A mutation that nothing survives would test the first lines of each reader only.
        assert!(
            read > ROUNDS as u32 / 50,
            "{name}: {read} of {ROUNDS} were read"
        );
    }
}
