//! What a run was computed with: `environment.json`.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

/// The newest version of `environment.json` that this program reads.
pub const ENVIRONMENT_VERSION: u32 = 1;

/// The machine and the program. What the system does not tell is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Version of the format.
    pub format_version: u32,
    /// Versions of the program and of what it is built on, by name.
    pub versions: BTreeMap<String, String>,
    /// `linux`, `macos`, ...
    pub os: String,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// `x86_64`, `aarch64`, ...
    pub architecture: String,
    /// Name of the processor.
    pub cpu: Option<String>,
    /// Instruction sets beyond the architecture's base that the processor has.
    pub instruction_sets: Vec<String>,
    /// Caches of the first core, such as (`L2`, 1048576).
    pub caches: Vec<(String, u64)>,
    /// Threads the system offers.
    pub threads_available: usize,
    /// Threads the run uses.
    pub threads_used: usize,
    /// Memory of the machine in bytes.
    pub memory_bytes: Option<u64>,
    /// Seconds since 1970 at which the run was created.
    pub created_unix_seconds: u64,
}

impl Environment {
    /// Asks the system. `versions` names the program and what it is built on.
    pub fn collect(versions: BTreeMap<String, String>, threads_used: usize) -> Environment {
        Environment {
            format_version: ENVIRONMENT_VERSION,
            versions,
            os: std::env::consts::OS.into(),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            architecture: std::env::consts::ARCH.into(),
            cpu: field("/proc/cpuinfo", "model name"),
            instruction_sets: instruction_sets().into_iter().map(String::from).collect(),
            caches: caches(),
            threads_available: std::thread::available_parallelism().map_or(1, usize::from),
            threads_used,
            memory_bytes: field("/proc/meminfo", "MemTotal").and_then(kilobytes),
            created_unix_seconds: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        }
    }
}

/// The largest resident set this process has had, in bytes.
pub fn peak_rss_bytes() -> Option<u64> {
    field("/proc/self/status", "VmHWM").and_then(kilobytes)
}

fn first_line(path: &str) -> Option<String> {
    Some(
        fs::read_to_string(path)
            .ok()?
            .lines()
            .next()?
            .trim()
            .to_string(),
    )
}

/// The value of `name : value` in a file of such lines.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    Some(
        pairs
            .find(|(key, _)| key.trim() == name)?
            .1
            .trim()
            .to_string(),
    )
}

fn kilobytes(text: String) -> Option<u64> {
    Some(text.strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn caches() -> Vec<(String, u64)> {
    let mut caches = Vec::new();
    for index in 0..8 {
        let of = |what: &str| {
            first_line(&format!(
                "/sys/devices/system/cpu/cpu0/cache/index{index}/{what}"
            ))
        };
        let (Some(level), Some(kind), Some(size)) = (of("level"), of("type"), of("size")) else {
            break;
        };
        let suffix = match kind.as_str() {
            "Data" => "d",
            "Instruction" => "i",
            _ => "",
        };
        let bytes = size
            .strip_suffix('K')
            .and_then(|k| k.parse::<u64>().ok())
            .map(|k| k * 1024);
        caches.extend(bytes.map(|bytes| (format!("L{level}{suffix}"), bytes)));
    }
    caches
}

#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> Vec<&'static str> {
    macro_rules! detected {
        ($($name:tt),*) => {
            [$(($name, std::arch::is_x86_feature_detected!($name))),*]
        };
    }
    let all = detected!(
        "sse4.2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512vl",
        "avx512vnni",
        "avx512bf16",
        "avx512fp16",
        "avxvnni"
    );
    all.into_iter()
        .filter(|(_, has)| *has)
        .map(|(name, _)| name)
        .collect()
}

#[cfg(target_arch = "aarch64")]
fn instruction_sets() -> Vec<&'static str> {
    macro_rules! detected {
        ($($name:tt),*) => {
            [$(($name, std::arch::is_aarch64_feature_detected!($name))),*]
        };
    }
    let all = detected!("neon", "fp16", "dotprod", "bf16", "i8mm", "sve", "sve2");
    all.into_iter()
        .filter(|(_, has)| *has)
        .map(|(name, _)| name)
        .collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instruction_sets() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_environment_agrees_with_the_system() {
        let versions = BTreeMap::from([("ebb".to_string(), "0.1.0".to_string())]);
        let environment = Environment::collect(versions, 1);
        assert_eq!(environment.os, "linux");
        let memory = environment.memory_bytes.unwrap();
        let peak = peak_rss_bytes().unwrap();
        assert!(peak > 100_000 && peak < memory, "{peak} of {memory}");
        assert!(
            environment.threads_available >= 1 && environment.created_unix_seconds > 1_600_000_000
        );
        let json = serde_json::to_string(&environment).unwrap();
        assert_eq!(
            serde_json::from_str::<Environment>(&json).unwrap(),
            environment
        );
    }
}
