//! Secret keys in files that only their owner can read.
//!
//! A file is one line, `ebb-secret 1 KIND HEX`. It is made with mode 0600 and refused if group or
//! others have any right to it, or if it lies within a run or a ledger, which are copied and
//! handed on. (Where files have no such modes, only the place is checked.)

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::disk::{Disk, parent};
use crate::error::{At, Error, Result};
use crate::ledger::{Digest, is_ledger};
use crate::run::read_recipe;

/// 32 secret bytes; overwritten in memory when dropped.
pub struct Secret(Zeroizing<[u8; 32]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Draws a secret from the system and writes it to `path`. `kind` says what it is for: one
    /// kind is not read as another.
    ///
    /// # Errors
    /// [`Error::Secret`] if something is there already, or if the path lies within a run or a
    /// ledger; [`Error::DiskFull`], [`Error::Io`].
    pub fn create(path: &Path, kind: &str) -> Result<Secret> {
        outside_of_runs(path)?;
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice())
            .map_err(|e| Error::secret(path, format!("the system gave no random bytes: {e}")))?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = match options.open(path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::secret(
                    path,
                    "a file is there already; a key is never replaced: choose another path",
                ));
            }
            other => other.writing(path, 0)?,
        };
        let text = text(kind, &bytes);
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all());
        written.writing(path, text.len() as u64)?;
        Disk::default().sync_directory(parent(path))?;
        Ok(Secret(bytes))
    }

    /// Reads the secret of this kind at `path`.
    ///
    /// # Errors
    /// [`Error::Secret`] if others may read the file, if it lies within a run or a ledger, or if
    /// it is not a secret of this kind; [`Error::Io`].
    pub fn load(path: &Path, kind: &str) -> Result<Secret> {
        let file = File::open(path).at("open", path)?;
        Secret::read(&file, path, kind)
    }

    /// Overwrites the secret of this kind at `path` and removes the file.
    ///
    /// # Errors
    /// Those of [`load`](Secret::load): nothing is touched then.
    pub fn destroy(path: &Path, kind: &str) -> Result<()> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .at("open", path)?;
        drop(Secret::read(&file, path, kind)?);
        let length = text(kind, &Zeroizing::new([0; 32])).len();
        let wiped = file
            .rewind()
            .and_then(|()| file.write_all(&vec![b'0'; length]))
            .and_then(|()| file.sync_all());
        wiped.writing(path, length as u64)?;
        drop(file);
        fs::remove_file(path).at("remove", path)?;
        Disk::default().sync_directory(parent(path))
    }

    fn read(file: &File, path: &Path, kind: &str) -> Result<Secret> {
        outside_of_runs(path)?;
        let meta = file.metadata().at("inspect", path)?;
        if !meta.is_file() {
            return Err(Error::secret(path, "it is not a plain file"));
        }
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777;
            if mode & 0o077 != 0 {
                return Err(Error::secret(
                    path,
                    format!(
                        "its mode is {mode:o}, so that others may have read it: make a new key, \
                         or, if you know that nobody did, `chmod 600` it"
                    ),
                ));
            }
        }
        let mut found = Zeroizing::new(String::with_capacity(256));
        let read = file.take(256).read_to_string(&mut found);
        let words: Vec<&str> = found.split_ascii_whitespace().collect();
        let (Ok(_), ["ebb-secret", "1", of, hex]) = (read, &words[..]) else {
            return Err(Error::secret(
                path,
                "it does not hold a key of this program",
            ));
        };
        if *of != kind {
            return Err(Error::secret(
                path,
                format!("it holds a key for {of}, not for {kind}"),
            ));
        }
        let digest = Digest::from_hex(hex.as_bytes())
            .ok_or_else(|| Error::secret(path, "its key is cut short or changed"))?;
        Ok(Secret(Zeroizing::new(digest.0)))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

fn text(kind: &str, bytes: &Zeroizing<[u8; 32]>) -> Zeroizing<String> {
    Zeroizing::new(format!("ebb-secret 1 {kind} {}\n", Digest(**bytes)))
}

/// Refuses a path whose directory, or any above it, is a run or a ledger.
fn outside_of_runs(path: &Path) -> Result<()> {
    // A link may lead into a run: what counts is where the file lies.
    let place: PathBuf = match path.canonicalize() {
        Ok(file) => file,
        Err(_) => parent(path)
            .canonicalize()
            .at("find the directory of", path)?
            .join("new"),
    };
    for directory in place.ancestors().skip(1) {
        let chain = directory.join(crate::run::STATES).join("chain.jsonl");
        let run =
            chain.is_file() || matches!(read_recipe(directory), Ok(_) | Err(Error::Newer { .. }));
        if run || is_ledger(directory) {
            return Err(Error::secret(
                path,
                format!(
                    "it lies within `{}`, which is copied and handed on: keep keys elsewhere",
                    directory.display()
                ),
            ));
        }
    }
    Ok(())
}
