//! Reads altered files for a while: `fuzz SECONDS TARGET [SEED]`, where a target is gguf,
//! safetensors, tokenizer or config. What makes a reader panic, or take too much memory or time,
//! is written to the folder for temporary files, and its number is enough to make it again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use ebb_space::Key;

#[path = "../tests/hostile/mod.rs"]
mod hostile;
#[path = "../tests/hostile/memory.rs"]
mod memory;

use hostile::{Reader, Target, mutate};

/// A file of a few kilobytes that takes longer is written down too.
const SLOW: Duration = Duration::from_secs(2);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = arguments.first().and_then(|s| s.parse().ok());
    let named = arguments
        .get(1)
        .and_then(|name| Target::ALL.into_iter().find(|(known, _)| known == name));
    let (Some(seconds), Some((name, target))) = (seconds, named) else {
        eprintln!("usage: fuzz SECONDS gguf|safetensors|tokenizer|config [SEED]");
        std::process::exit(2);
    };
    let seed = arguments.get(2).and_then(|s| s.parse().ok()).unwrap_or(1);

    let reader = Reader::new();
    let seeds = target.seeds();
    let key = Key::new(seed, name);
    let start = Instant::now();
    let (mut rounds, mut read, mut found) = (0u64, 0u64, 0u64);
    let (mut most, mut slowest) = (0, Duration::ZERO);
    while start.elapsed() < Duration::from_secs(seconds) {
        let mut rng = key.at(rounds).stream();
        let mut pick = || &seeds[rng.below(seeds.len() as u64) as usize];
        let ((from, whole), (_, other)) = (pick(), pick());
        let bytes = mutate(whole, other, &mut rng);
        let began = Instant::now();
        let work = || memory::peak(|| reader.read(target, &bytes));
        let result = catch_unwind(AssertUnwindSafe(work));
        let took = began.elapsed();
        slowest = slowest.max(took);
        let wrong = match result {
            Err(_) => Some("panic".to_owned()),
            Ok((_, peak)) if peak > target.allowed(bytes.len()) => {
                Some(format!("{peak} bytes of memory"))
            }
            Ok(_) if took > SLOW => Some(format!("{took:?}")),
            Ok((whole, peak)) => {
                read += u64::from(whole);
                most = most.max(peak);
                None
            }
        };
        if let Some(wrong) = wrong {
            found += 1;
            let file = std::env::temp_dir().join(format!("fuzz-{name}-{seed}-{rounds}"));
            std::fs::write(&file, &bytes).expect("written");
            println!("{wrong}: round {rounds}, from {from}: {}", file.display());
        }
        rounds += 1;
    }
    println!(
        "{name}, seed {seed}: {rounds} files in {seconds} s, {read} read, {found} findings; at most \
         {most} bytes and {slowest:?} for one"
    );
    std::process::exit(i32::from(found > 0));
}
