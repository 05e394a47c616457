//! Which of some record ids stand in a file, in whatever format: as the 16 bytes of their base,
//! or as its 32 hex digits.
//!
//! Compressed files must be decoded first. An equal record (another occurrence) has the same base
//! and is found as well: its content is that of the record.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;

use ebb_space::ExampleId;

const WIDTH: usize = 16;
const TEXT: usize = 2 * WIDTH;

/// The ids that are looked for.
#[derive(Debug)]
pub(crate) struct Needles {
    /// By the first three bytes of a needle, whether there is one: most places are passed here.
    begins: Vec<u64>,
    /// By the first 16 bytes of a needle, the rest of it and whose it is.
    by_begin: HashMap<[u8; WIDTH], Vec<(Vec<u8>, ExampleId)>>,
}

impl Needles {
    pub fn new(records: &[ExampleId]) -> Needles {
        let mut needles = Needles {
            begins: vec![0; 1 << 18],
            by_begin: HashMap::new(),
        };
        for record in records {
            let text = format!("{:032x}", u128::from_be_bytes(record.base));
            for needle in [&record.base[..], text.as_bytes()] {
                let Some((begin, rest)) = needle.split_first_chunk::<WIDTH>() else {
                    continue;
                };
                let of = needles.by_begin.entry(*begin).or_default();
                of.push((rest.to_vec(), *record));
                let bit = begin_of(begin);
                needles.begins[bit / 64] |= 1 << (bit % 64);
            }
        }
        needles
    }

    /// The records whose ids stand in what is read.
    pub fn find(&self, mut reader: impl Read) -> std::io::Result<BTreeSet<ExampleId>> {
        let mut found = BTreeSet::new();
        let mut buffer = vec![0; 1 << 18];
        let mut kept = 0;
        loop {
            let read = match reader.read(&mut buffer[kept..]) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let bytes = &buffer[..kept + read];
            for window in bytes.windows(WIDTH).enumerate() {
                let (at, begin) = window;
                let bit = begin_of(begin);
                if self.begins[bit / 64] >> (bit % 64) & 1 == 0 {
                    continue;
                }
                for (rest, record) in self.by_begin.get(begin).into_iter().flatten() {
                    if bytes[at + WIDTH..].starts_with(rest) {
                        found.insert(*record);
                    }
                }
            }
            if read == 0 {
                return Ok(found);
            }
            // A needle may go on in the next part.
            let keep = bytes.len().min(TEXT - 1);
            let from = bytes.len() - keep;
            buffer.copy_within(from..from + keep, 0);
            kept = keep;
        }
    }
}

fn begin_of(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out a few bytes at a time.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let n = self.1.min(self.0.len()).min(into.len());
            into[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn ids_are_found_wherever_they_stand_and_however_they_are_read() {
        let id = |n: u32| ExampleId::of(&n.to_le_bytes(), 0);
        let needles = Needles::new(&[id(1), id(2), id(3).with_occurrence(4)]);
        let noise: Vec<u8> = (0..400_000u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        assert!(needles.find(&noise[..]).unwrap().is_empty());
        let text = id(2).to_string();
        for at in [0, 1, 262_130, 262_140, 399_000] {
            let bytes = [
                &noise[..at],
                &id(1).base,
                b"x",
                text.as_bytes(),
                &noise[at..],
            ]
            .concat();
            for drip in [7, 1 << 20] {
                let found = needles.find(Drip(&bytes, drip)).unwrap();
                assert_eq!(found, BTreeSet::from([id(1), id(2)]), "{at} {drip}");
            }
            // All but the last digit is not the id.
            let cut = [
                &noise[..at],
                &id(1).base[..15],
                &text.as_bytes()[..31],
                b" ",
            ]
            .concat();
            assert!(needles.find(&cut[..]).unwrap().is_empty());
        }
        assert_eq!(needles.find(&id(3).base[..]).unwrap().len(), 1);
    }
}
