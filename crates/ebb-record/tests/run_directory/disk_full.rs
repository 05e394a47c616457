//! A disk that fills up: the message says so, and what was written before is intact.

#![cfg(target_os = "linux")]

use std::process::Command;

use ebb_record::{Error, RunDir, RunView, WEIGHTS, save_weights};
use ebb_space::{Layout, Weights};

use super::states::{commit, draft};
use super::*;

/// A small file system of its own, unmounted at the end.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(kib: u32) -> Option<Tmpfs> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={kib}k");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "ebb-test"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Tmpfs(dir)),
            Ok(output) => {
                println!(
                    "skipped: cannot mount: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
                None
            }
            Err(e) => {
                println!("skipped: cannot mount: {e}");
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

fn large() -> Weights {
    Weights::zeros(&Layout::new([("w".to_string(), vec![1 << 20])]).unwrap())
}

#[test]
fn a_full_disk_is_named_and_the_run_is_as_it_was() {
    let Some(disk) = Tmpfs::mount(512) else {
        return;
    };
    let root = disk.0.path().join("run");
    let mut run = new_run(&root);
    let mut logs = run.logs().unwrap();
    logs.records.append(&start(1)).unwrap();
    let id = commit(&mut run, &mut logs, 1, true);

    // A state that does not fit.
    let error = run.begin_state(draft(2, true), &large()).unwrap_err();
    assert!(
        matches!(&error, Error::DiskFull { bytes, .. } if *bytes > 4 << 20),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("the disk is full") && text.contains(WEIGHTS),
        "{text}"
    );
    assert!(
        text.contains("Nothing that was already written is lost"),
        "{text}"
    );
    // It took itself away again, so that small things still fit.
    commit(&mut run, &mut logs, 3, true);

    // Records until nothing fits.
    let error = (0..1_000_000)
        .find_map(|n| logs.records.append(&step(n, 0)).err())
        .unwrap();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    // A part of a record may be in the file: nothing may follow it.
    let after = logs.records.append(&end(1)).unwrap_err().to_string();
    assert!(after.contains("open the run again"), "{after}");
    let state = run.begin_state(draft(4, true), &weights(4));
    assert!(state.is_err() || run.commit(state.unwrap(), &mut logs).is_err());
    drop((run, logs));

    let mut run = RunDir::open(&root).unwrap();
    let mut logs = run.logs().unwrap();
    assert_eq!(run.states().head().unwrap().step, 3);
    run.states().checkout(&id).unwrap();
    assert_eq!(RunView::load(&root).unwrap().records().unwrap().len(), 3);
    commit(&mut run, &mut logs, 5, true);
}

#[test]
fn replacing_a_file_on_a_full_disk_keeps_the_old_one() {
    let Some(disk) = Tmpfs::mount(64) else { return };
    let path = disk.0.path().join("w.safetensors");
    let small = weights(1);
    save_weights(&path, &small, &BTreeMap::new()).unwrap();
    let error = save_weights(&path, &large(), &BTreeMap::new()).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    let back = ebb_record::load_weights(&path, small.layout()).unwrap();
    assert_eq!(back.as_slice(), small.as_slice());
    assert_eq!(std::fs::read_dir(disk.0.path()).unwrap().count(), 1);
}

#[test]
fn a_device_without_space_is_a_full_disk() {
    // Needs no rights: this device refuses every write for lack of space.
    let error = ebb_record::RecordWriter::create(Path::new("/dev/full"), 0).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
}
