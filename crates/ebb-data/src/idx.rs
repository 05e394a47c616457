//! The idx file format of MNIST: a four-byte magic (0, 0, element type, number of dimensions),
//! the dimensions as big-endian 32-bit integers, then the elements. Only bytes (type 8) occur.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::{Error, Result};

/// An idx file in memory, with the digest of the whole file.
pub(crate) struct Idx {
    pub data: Arc<[u8]>,
    pub blake3: blake3::Hash,
}

/// Reads an idx file of bytes with `rank` dimensions. The elements are read straight into their
/// final place, so that the peak of memory is their own size.
pub(crate) fn read(path: &Path, rank: usize) -> Result<Idx> {
    let malformed = |why: String| Error::malformed(path.display().to_string(), why);
    let mut file = File::open(path).map_err(Error::io(path))?;
    let bytes = file.metadata().map_err(Error::io(path))?.len();
    let mut header = vec![0u8; 4 + 4 * rank];
    if bytes < header.len() as u64 {
        return Err(malformed(format!(
            "it has {bytes} bytes, too few for a header"
        )));
    }
    file.read_exact(&mut header).map_err(Error::io(path))?;
    if header[..4] != [0, 0, 8, rank as u8] {
        return Err(malformed(format!(
            "it starts with {:02x?}, an idx file of bytes with {rank} dimensions starts with [00, 00, 08, {rank:02x}]",
            &header[..4]
        )));
    }
    let dims: Vec<usize> = header[4..]
        .chunks_exact(4)
        .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize)
        .collect();
    let elements = dims
        .iter()
        .try_fold(1usize, |product, d| product.checked_mul(*d));
    let len = match elements {
        Some(len) if len as u64 == bytes - header.len() as u64 => len,
        _ => {
            return Err(malformed(format!(
                "its header announces {dims:?} elements and {} bytes follow: it is truncated or has trailing bytes",
                bytes - header.len() as u64
            )));
        }
    };
    let mut data: Arc<[u8]> = std::iter::repeat_n(0u8, len).collect();
    let body = Arc::get_mut(&mut data).expect("nobody else holds a new allocation");
    file.read_exact(body).map_err(Error::io(path))?;
    let blake3 = blake3::Hasher::new()
        .update(&header)
        .update(body)
        .finalize();
    Ok(Idx { data, blake3 })
}

/// The bytes of an idx file with these dimensions and elements.
pub(crate) fn encode(dims: &[usize], data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + 4 * dims.len() + data.len());
    out.extend([0, 0, 8, dims.len() as u8]);
    for d in dims {
        let d = u32::try_from(*d).expect("idx dimensions are 32-bit");
        out.extend(d.to_be_bytes());
    }
    out.extend_from_slice(data);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-idx3-ubyte");
        let good = encode(&[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        // The published header of the MNIST training images.
        assert_eq!(
            encode(&[60000, 28, 28], &[])[..16],
            *b"\0\0\x08\x03\0\0\xea\x60\0\0\0\x1c\0\0\0\x1c"
        );
        std::fs::write(&path, &good).unwrap();
        let idx = read(&path, 3).unwrap();
        assert_eq!(idx.data[..], [1, 2, 3, 4, 5, 6]);
        assert_eq!(idx.blake3, blake3::hash(&good));
        for (bytes, word) in [
            (&good[..21], "truncated"),
            (&good[..7], "too few"),
            (&[&good[..], &[0]].concat()[..], "trailing"),
            (
                &[0, 0, 8, 1, 0, 0, 0, 1, 7, 0, 0, 0, 0, 0, 0, 0, 0][..],
                "starts with",
            ),
            (
                &[
                    0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
                ][..],
                "truncated",
            ),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let message = read(&path, 3).err().unwrap().to_string();
            assert!(
                message.contains(word) && message.contains("x-idx3-ubyte"),
                "{message}"
            );
        }
    }
}
