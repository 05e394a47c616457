//! Where runs lie: finding them, and a free place for a new one.

use crate::error::{Error, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where runs go unless `-o` says otherwise.
pub const RUNS: &str = "runs";

/// How deep runs are looked for below a directory.
const DEPTH: usize = 3;

/// Whether `path` looks like a run.
pub fn is_run(path: &Path) -> bool {
    path.join("recipe.toml").is_file() && path.join("environment.json").is_file()
}

/// The runs in `root` and below, in the order of their paths; `root` itself if it is one.
///
/// # Errors
/// When `root` cannot be read.
pub fn find(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    search(root, DEPTH, &mut found)?;
    found.sort_by_key(|path| natural(path));
    Ok(found)
}

fn search(root: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if is_run(root) {
        found.push(root.to_owned());
        return Ok(());
    }
    let entries = std::fs::read_dir(root).map_err(|source| Error::Io {
        action: "read",
        path: root.to_owned(),
        source,
    })?;
    for entry in entries.flatten() {
        // A link to a directory above would lead in circles.
        let is_directory = entry.file_type().is_ok_and(|t| t.is_dir());
        if is_directory && depth > 0 {
            // What may not be read below is not a reason to hide the rest.
            let _ = search(&entry.path(), depth - 1, found);
        }
    }
    Ok(())
}

/// `er-10` comes after `er-9`: numbers are compared as numbers.
fn natural(path: &Path) -> Vec<(String, u64)> {
    let text = path.to_string_lossy();
    let mut parts = Vec::new();
    let mut rest = text.as_ref();
    while !rest.is_empty() {
        let digit = |c: char| c.is_ascii_digit();
        let word = rest.find(digit).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(word);
        let end = tail.find(|c| !digit(c)).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(end);
        parts.push((word.to_owned(), number.parse().unwrap_or(0)));
        rest = tail;
    }
    parts
}

/// The runs that a verb was given: each path is a run, or a directory that holds runs.
///
/// # Errors
/// When one is neither.
pub fn given(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in paths {
        let runs = match is_run(path) {
            true => vec![path.clone()],
            false => find(path)?,
        };
        if runs.is_empty() {
            return Err(Error::request(
                format!("`{}` is no run and holds none", path.display()),
                "give directories that `ebb learn` wrote; `ebb runs` lists them",
            ));
        }
        all.extend(
            runs.into_iter()
                .filter(|run| !all.contains(run))
                .collect::<Vec<_>>(),
        );
    }
    Ok(all)
}

/// A directory that was made for a run. Dropped without [`Reserved::keep`], it goes again if
/// nothing was put into it.
pub struct Reserved {
    path: PathBuf,
    kept: bool,
}

impl Reserved {
    /// The first free of `runs/LABEL-1`, `runs/LABEL-2`, …, made here, so that two programs
    /// started together get one each.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(label: &str) -> Result<Reserved> {
        let safe = |c: char| match c {
            c if c.is_alphanumeric() || "+._-".contains(c) => c,
            _ => '-',
        };
        let label: String = label.chars().map(safe).collect();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io {
                action: "make",
                path,
                source,
            }
        };
        let root = Path::new(RUNS);
        std::fs::create_dir_all(root).map_err(failed(root))?;
        let mut n = 1;
        loop {
            let path = root.join(format!("{label}-{n}"));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Reserved { path, kept: false }),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => n += 1,
                Err(e) => return Err(failed(&path)(e)),
            }
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It is in use now.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.kept {
            // Succeeds only on an empty directory, which is what is wanted.
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_as_numbers() {
        let mut paths =
            ["runs/er-10", "runs/der-2", "runs/er-9", "runs/er-9/seed-11"].map(Path::new);
        paths.sort_by_key(|path| natural(path));
        let expected = ["runs/der-2", "runs/er-9", "runs/er-9/seed-11", "runs/er-10"];
        assert_eq!(paths, expected.map(Path::new));
    }

    #[test]
    fn runs_are_found_below_and_not_within_runs() {
        let dir = tempfile::tempdir().unwrap();
        for run in ["b", "a/seed-2", "a/seed-10", "a/seed-2/states/x"] {
            let path = dir.path().join(run);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("recipe.toml"), "").unwrap();
            std::fs::write(path.join("environment.json"), "").unwrap();
        }
        let found = find(dir.path()).unwrap();
        let expected = ["a/seed-2", "a/seed-10", "b"].map(|r| dir.path().join(r));
        assert_eq!(found, expected);
        assert!(given(&[dir.path().join("a/seed-2/states")]).unwrap().len() == 1);
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        assert!(given(&[dir.path().join("empty")]).is_err());
    }
}
