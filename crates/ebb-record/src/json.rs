//! JSON files and lines that carry a `format_version`.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result, supported};

/// Pretty JSON with a line end.
pub(crate) fn to_json(path: &Path, value: &impl Serialize) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(value)
        .map_err(std::io::Error::from)
        .at("encode", path)?;
    json.push(b'\n');
    Ok(json)
}

/// JSON on one line.
pub(crate) fn to_line(path: &Path, value: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)
        .map_err(std::io::Error::from)
        .at("encode", path)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads a JSON file of at most this version.
pub(crate) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path, version: u32) -> Result<T> {
    parse_json(path, &fs::read(path).at("read", path)?, version)
}

/// Parses what was read from `path`.
pub(crate) fn parse_json<T: for<'de> Deserialize<'de>>(
    path: &Path,
    json: &[u8],
    version: u32,
) -> Result<T> {
    let damaged =
        |e: serde_json::Error| Error::damaged(path, format!("it is not as it was written ({e})"));
    // The version first: a newer format may not parse at all.
    supported(path, version_of(json).map_err(damaged)?, version)?;
    serde_json::from_slice(json).map_err(damaged)
}

/// The `format_version` of a JSON object.
pub(crate) fn version_of(json: &[u8]) -> serde_json::Result<u32> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    Ok(serde_json::from_slice::<Version>(json)?.format_version)
}
