//! Files seen as bytes without being read into memory.

use std::fs::File;
use std::ops::Deref;
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
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
