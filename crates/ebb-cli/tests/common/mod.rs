//! A directory of its own, and the program in it.

use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A directory that goes when it is dropped.
pub struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    /// An empty one.
    pub fn new() -> Desk {
        Desk {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ebb"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("EBB_DATA", self.path("data"))
            .env("COLUMNS", "100")
            .env_remove("NO_COLOR")
            .env_remove("RAYON_NUM_THREADS")
            .stdin(Stdio::null());
        command
    }

    /// What it answers.
    pub fn ebb(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Standard output of a command that succeeds.
    pub fn done(&self, args: &[&str]) -> String {
        let out = self.ebb(args);
        let error = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{args:?}: {error}");
        String::from_utf8(out.stdout).unwrap()
    }

    /// The JSON that it prints.
    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.done(args)).expect("valid JSON and nothing else")
    }

    /// Standard error of a command that fails with 2 and prints nothing else.
    pub fn fails(&self, args: &[&str]) -> String {
        let out = self.ebb(args);
        let error = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?}: {error}");
        assert!(out.stdout.is_empty(), "{args:?}");
        assert!(!error.contains("panicked"), "{args:?}: {error}");
        error
    }
}
