//! Files seen as bytes without being read into memory.

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{At, Result};

/// A whole file, mapped. Pages come from the disk when they are touched.
#[derive(Debug)]
pub(crate) struct Mapped {
    path: PathBuf,
    map: Mmap,
}

impl Mapped {
    pub fn open(path: &Path) -> Result<Mapped> {
        let file = File::open(path).at("open", path)?;
        // SAFETY: the map is read-only and private to this value. What cannot be ruled out is
        // that another program shortens the file meanwhile; every program that maps its model
        // files rests on the same assumption.
        let map = unsafe { Mmap::map(&file) }.at("map", path)?;
        Ok(Mapped {
            path: path.into(),
            map,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets go of pages that were read: they come from the disk again if they are touched again.
    pub fn forget(&self, range: Range<usize>) {
        #[cfg(unix)]
        if range.end <= self.map.len() {
            // SAFETY: the map is read-only and its pages are those of the file, so that what is
            // read after this is the same. A refusal changes nothing.
            let _ = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    range.start,
                    range.len(),
                )
            };
        }
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
