//! Records that a run must not touch: the table `without` of a recipe.
//!
//! An erased record may still lie in the data that a recipe names. A list of names in a file tells which
//! ones are passed over. The names are keyed (see [`NameKey`]), so that the list does not say to anybody
//! else who asked to be forgotten.

use crate::error::{Error, Result};
use ebb_record::ledger::{Digest, NameKey};
use ebb_space::ExampleId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const HEADER: &str = "# ebb names, format_version = 1";

/// Records to pass over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WithoutSpec {
    /// The file with their names, one a line.
    pub names: PathBuf,
    /// The key under which they are named; it lies outside of every run.
    pub key: PathBuf,
}

/// The text of a list of names.
pub fn list(names: &BTreeSet<Digest>) -> String {
    let mut text = format!("{HEADER}\n");
    for name in names {
        let _ = writeln!(text, "{name}");
    }
    text
}

/// Reads a list of names.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn read_list(path: &Path) -> Result<BTreeSet<Digest>> {
    let wrong = |reason: String| Error::Without {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(wrong(format!("it does not begin with `{HEADER}`")));
    }
    let mut names = BTreeSet::new();
    for (n, line) in (2..).zip(lines) {
        let name = line.parse();
        names.insert(name.map_err(|_| wrong(format!("line {n} is no name of 64 hex digits")))?);
    }
    Ok(names)
}

/// What a list names, with the key to tell.
pub(crate) struct Gone {
    names: BTreeSet<Digest>,
    key: NameKey,
}

impl Gone {
    /// Reads list and key.
    ///
    /// # Errors
    /// When either cannot be read.
    pub(crate) fn open(spec: &WithoutSpec) -> Result<Gone> {
        Ok(Gone {
            names: read_list(&spec.names)?,
            key: NameKey::load(&spec.key)?,
        })
    }

    /// Whether the list names this record, whatever view of it is given.
    pub(crate) fn has(&self, id: &ExampleId) -> bool {
        self.names.contains(&self.key.record(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("names");
        let names: BTreeSet<Digest> = (0..5).map(|i| Digest([i; 32])).collect();
        std::fs::write(&path, list(&names)).expect("written");
        assert_eq!(read_list(&path).expect("read"), names);
        for wrong in ["", "# another", &format!("{HEADER}\nabc\n")] {
            std::fs::write(&path, wrong).expect("written");
            assert!(read_list(&path).is_err(), "{wrong}");
        }
    }
}
