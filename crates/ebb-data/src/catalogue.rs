//! The datasets known by name, and where data lies on this machine.

use std::path::{Path, PathBuf};

use crate::dataset::{Normalise, Split};
use crate::{Error, Result, digits, mnist, user};

/// How a dataset comes to this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is part of the program.
    Embedded,
    /// [`fetch`](crate::fetch) gets it.
    Fetched,
}

/// A dataset of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Listing {
    /// The name in a recipe.
    pub name: &'static str,
    /// What it holds, in one line.
    pub about: &'static str,
    /// How it comes to this machine.
    pub origin: Origin,
    /// Channels, height, width.
    pub shape: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// Training and test records.
    pub records: [usize; 2],
    /// The default normalisation.
    pub scale: Normalise,
}

/// Every dataset known by name.
pub fn catalogue() -> &'static [Listing] {
    const CATALOGUE: [Listing; 2] = [
        Listing {
            name: "digits",
            about: "handwritten digits of Alpaydin and Kaynak (1998), 8x8 grey values 0 to 16",
            origin: Origin::Embedded,
            shape: [1, 8, 8],
            classes: 10,
            records: [digits::RECORDS - digits::TEST_RECORDS, digits::TEST_RECORDS],
            scale: digits::SCALE,
        },
        Listing {
            name: "mnist",
            about: "handwritten digits of LeCun, Cortes and Burges (1998), 28x28 grey values",
            origin: Origin::Fetched,
            shape: [1, 28, 28],
            classes: 10,
            records: [60_000, 10_000],
            scale: mnist::SCALE,
        },
    ];
    &CATALOGUE
}

pub(crate) fn unknown(name: &str) -> Error {
    let known: Vec<&str> = catalogue().iter().map(|listing| listing.name).collect();
    Error::UnknownDataset {
        name: name.into(),
        known: known.join(", "),
    }
}

/// Loads a dataset: a name of the [`catalogue`], or the path of a `.safetensors` file (see
/// [`from_safetensors`](crate::from_safetensors)).
///
/// # Errors
/// [`Error::NotFetched`], [`Error::UnknownDataset`], and everything that is wrong with a file.
pub fn load(name: &str, data_dir: &Path) -> Result<Split> {
    match name {
        "digits" => digits::load(),
        "mnist" => mnist::load(&data_dir.join("mnist")),
        path if path.ends_with(".safetensors") => user::from_safetensors(Path::new(path)),
        _ => Err(unknown(name)),
    }
}

/// The folder for fetched data: `$EBB_DATA`, or `ebbinghaus` in the user's cache folder
/// (`~/.cache` unless `XDG_CACHE_HOME` says otherwise; `%LOCALAPPDATA%` on Windows).
///
/// # Errors
/// [`Error::NoDataDir`] if there is neither.
pub fn data_dir() -> Result<PathBuf> {
    let env = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(dir) = env("EBB_DATA") {
        return Ok(dir);
    }
    let cache = if cfg!(windows) {
        env("LOCALAPPDATA")
    } else {
        env("XDG_CACHE_HOME")
    };
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    cache
        .map(|cache| cache.join("ebbinghaus"))
        .ok_or(Error::NoDataDir)
}
