//! A process that works on a store is killed at a moment of its own; what it had acknowledged is
//! there when the store is opened again, and what it had not is there whole or not at all.

mod model;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ebb_memory::{Input, Offer, Records, Safety, Shape, Store, Values};
use ebb_space::{ExampleId, Key};
use model::{Model, SHAPES, apply, apply_to, read, same};

const KILLS: u64 = 24;

fn key() -> Key {
    Key::new(1, "kill")
}

/// The child: works from operation `EBB_STORE_FROM` on, and says each number when it is done.
#[test]
fn child() {
    let (Ok(dir), Ok(from)) = (
        std::env::var("EBB_STORE_DIR"),
        std::env::var("EBB_STORE_FROM"),
    ) else {
        return; // in an ordinary run of the tests
    };
    let mut store = Store::open(Path::new(&dir), key(), Safety::Process).unwrap();
    let mut out = std::io::stdout();
    for number in from.parse::<u64>().unwrap().. {
        apply_to(&mut store, key().sub("ops"), number).unwrap();
        writeln!(out, "\ndone {number}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_kills_at_random_moments() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let shape = SHAPES[0];
    drop(Store::create(&dir, shape, key(), Safety::Process).unwrap());
    let mut model = Model::new();
    let mut next = 0;
    let mut ahead = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env("EBB_STORE_DIR", &dir)
            .env("EBB_STORE_FROM", next.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let done =
            |line: std::io::Result<String>| line.ok()?.strip_prefix("done ")?.parse::<u64>().ok();
        // After some acknowledgements and a moment more.
        let mut random = key().sub("when").at(kill).stream();
        let (some, moment) = (1 + random.below(40), random.below(3000));
        let mut acknowledged = 0;
        let mut killed = false;
        for number in lines.filter_map(done) {
            assert_eq!(number, next, "acknowledgements come in order");
            apply(&mut model, shape, key().sub("ops"), next);
            next += 1;
            acknowledged += 1;
            if acknowledged == some && !killed {
                std::thread::sleep(Duration::from_micros(moment));
                child.kill().unwrap(); // SIGKILL; what it said before is still read
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(
            killed,
            "the child stopped by itself after {acknowledged} operations"
        );
        let store = Store::open(&dir, key(), Safety::Process).unwrap();
        let found = read(&store).unwrap();
        if !same(&found, &model) {
            // Done, and killed before it could say so.
            apply(&mut model, shape, key().sub("ops"), next);
            assert!(
                same(&found, &model),
                "kill {kill}, operation {next}: {found:?}"
            );
            next += 1;
            ahead += 1;
        }
        assert_eq!(store.damaged().count(), 0);
    }
    println!("{KILLS} kills, {next} operations, {ahead} done and not yet acknowledged");
}

const WIDE: Shape = Shape {
    input: Input::U8(1000),
    logits: None,
    features: None,
};

fn id(n: u64) -> ExampleId {
    ExampleId::of(&n.to_le_bytes(), 0)
}

/// The child: inserts until a file may grow no more.
#[test]
fn filler() {
    let Ok(dir) = std::env::var("EBB_STORE_FULL") else {
        return;
    };
    let mut store = Store::open(Path::new(&dir), key(), Safety::Process).unwrap();
    for batch in 0..1000u64 {
        let ids: Vec<ExampleId> = (batch * 100..(batch + 1) * 100).map(id).collect();
        let codes = vec![batch as u8; 100 * 1000];
        let offer = Offer {
            ids: &ids,
            labels: &[0; 100],
            experience: 0,
            task: 0,
            step: 0,
        };
        if let Err(e) = store.insert(&offer, &Records::of(Values::U8(&codes))) {
            println!("\nfull {e}");
            // What is there is still read, and room is made by deleting.
            let first: Vec<ExampleId> = (0..100).map(id).collect();
            assert_eq!(store.len() as u64, batch * 100);
            assert_eq!(store.delete(&first).unwrap(), 100);
            store.checkpoint().unwrap();
            let records = Records::of(Values::U8(&codes));
            assert_eq!(store.insert(&offer, &records).unwrap(), 100);
            println!("\ndone {batch}");
            return;
        }
        println!("\ndone {batch}");
    }
}

#[cfg(unix)]
#[test]
fn a_disk_that_fills_up_is_an_error_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    drop(Store::create(&dir, WIDE, key(), Safety::Process).unwrap());
    // Some megabytes a file, whatever the shell counts in; writing more fails instead of killing.
    let script = r#"trap "" XFSZ; ulimit -f 8192; exec "$0" --exact filler --nocapture"#;
    let made = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("EBB_STORE_FULL", &dir)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    let full = said.lines().find(|line| line.starts_with("full ")).unwrap();
    assert!(
        full.contains("could not write") && full.contains("payload"),
        "{full}"
    );
    let batches = said
        .lines()
        .filter(|line| line.starts_with("done "))
        .count() as u64;
    assert!(batches > 10);
    let store = Store::open(&dir, key(), Safety::Process).unwrap();
    assert_eq!(store.len() as u64, (batches - 1) * 100);
    for n in 100..batches * 100 {
        let slot = store.find(&id(n)).unwrap().unwrap();
        let mut codes = Vec::new();
        store.payload(slot, &mut codes).unwrap();
        assert_eq!(codes, vec![(n / 100) as u8; 1000]);
    }
}
