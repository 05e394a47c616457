//! One member of a zip archive in memory (a wheel is a zip): stored or deflated, no zip64.

use std::io::Read;

use crate::{Error, Result};

/// The bytes of the member `name` of `archive`, at most `limit` of them.
///
/// # Errors
/// [`Error::Malformed`] if the archive is damaged, lacks the member or needs an unknown method.
pub(crate) fn member(archive: &[u8], name: &str, limit: u64) -> Result<Vec<u8>> {
    let bad = |why: &str| Error::malformed(format!("the zip member {name}"), why);
    // The record that ends the archive lies within a comment's length of its end.
    let end = archive
        .len()
        .checked_sub(22)
        .and_then(|last| {
            (last.saturating_sub(65_535)..=last)
                .rev()
                .find(|at| word(archive, *at) == Some(0x0605_4b50))
        })
        .ok_or_else(|| bad("the archive has no end record: it is truncated or no zip"))?;
    let entries = half(archive, end + 10).unwrap_or(0);
    let mut at = word(archive, end + 16).unwrap_or(0) as usize;
    for _ in 0..entries {
        let header = archive
            .get(at..at + 46)
            .ok_or_else(|| bad("the directory is cut short"))?;
        if word(header, 0) != Some(0x0201_4b50) {
            return Err(bad("the directory is damaged"));
        }
        let field = |at: usize| half(header, at).unwrap_or(0) as usize;
        let size = |at: usize| word(header, at).unwrap_or(0);
        let (name_len, extra, comment) = (field(28), field(30), field(32));
        if archive.get(at + 46..at + 46 + name_len) == Some(name.as_bytes()) {
            let plain = u64::from(size(24));
            if plain > limit {
                return Err(bad(&format!(
                    "it has {plain} bytes, at most {limit} were expected"
                )));
            }
            let local = size(42) as usize;
            let skip = 30
                + half(archive, local + 26).ok_or_else(|| bad("it lies outside"))? as usize
                + half(archive, local + 28).ok_or_else(|| bad("it lies outside"))? as usize;
            let packed = archive
                .get(local + skip..local + skip + size(20) as usize)
                .ok_or_else(|| bad("it lies outside the archive"))?;
            let mut out = Vec::with_capacity(plain as usize);
            match field(10) {
                0 => out.extend_from_slice(packed),
                8 => {
                    flate2::read::DeflateDecoder::new(packed)
                        .take(plain + 1)
                        .read_to_end(&mut out)
                        .map_err(|e| bad(&e.to_string()))?;
                }
                method => return Err(bad(&format!("its compression method {method} is unknown"))),
            }
            let mut crc = flate2::Crc::new();
            crc.update(&out);
            if out.len() as u64 != plain || crc.sum() != size(16) {
                return Err(bad("its checksum does not match"));
            }
            return Ok(out);
        }
        at += 46 + name_len + extra + comment;
    }
    Err(bad("the archive does not contain it"))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..at.checked_add(2)?)?
        .try_into()
        .ok()
        .map(u16::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at.checked_add(4)?)?
        .try_into()
        .ok()
        .map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by Python's `zipfile`: `a.txt` stored ("hello"), `b/c.txt` deflated (40 x "ab").
    const ARCHIVE: &str = "\
        504b03041400000000000000215a86a61036050000000500000005000000612e74787468656c6c6f504b030414\
        00000008000000215a600c0150070000005000000007000000622f632e7478744b4c4aa42a0400504b01021403\
        1400000000000000215a86a610360500000005000000050000000000000000000000800100000000612e747874\
        504b010214031400000008000000215a600c015007000000500000000700000000000000000000008001280000\
        00622f632e747874504b0506000000000200020068000000540000000000";

    fn archive() -> Vec<u8> {
        (0..ARCHIVE.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&ARCHIVE[i..i + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn reads_what_python_wrote() {
        assert_eq!(member(&archive(), "a.txt", 100).unwrap(), b"hello");
        assert_eq!(
            member(&archive(), "b/c.txt", 100).unwrap(),
            "ab".repeat(40).as_bytes()
        );
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_an_error_or_the_same_bytes() {
        let good = archive();
        for cut in 0..good.len() {
            assert!(member(&good[..cut], "b/c.txt", 100).is_err());
        }
        for i in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[i] ^= 1 << bit;
                if let Ok(bytes) = member(&bad, "b/c.txt", 100) {
                    assert_eq!(bytes, "ab".repeat(40).as_bytes());
                }
            }
        }
        assert!(
            member(&good, "b/c.txt", 79)
                .unwrap_err()
                .to_string()
                .contains("80 bytes")
        );
        assert!(
            member(&good, "none", 79)
                .unwrap_err()
                .to_string()
                .contains("does not contain")
        );
    }
}
