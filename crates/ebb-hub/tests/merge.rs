//! Merging files: ranges of tensors, sources of every kind, and what a piece does not change.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use ebb_hub::merge::Merge;
use ebb_hub::{Adapter, AdapterConfig, Error, Folder, FolderWriter, Gguf, Tensors};
use ebb_space::merge::Rule;
use ebb_space::{Key, Layout, Weights};
use serde_json::Map;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn ranges_of_tensors_are_parts_of_the_whole() {
    let ranges = |files: &dyn Tensors, what: &str| {
        for info in files.tensors() {
            let whole = files.read(&info.name).expect("a tensor");
            let row = whole.len() / info.shape[0];
            for (from, to) in [
                (0, whole.len()),
                (row, whole.len()),
                (whole.len() - row, whole.len()),
            ] {
                let mut part = vec![0.0; to - from];
                files
                    .read_range_into(&info.name, from, &mut part)
                    .expect("a range");
                assert_eq!(bits(&part), bits(&whole[from..to]), "{what} {}", info.name);
            }
            let beyond = files.read_range_into(&info.name, 1, &mut vec![0.0; whole.len()]);
            assert!(matches!(beyond, Err(Error::Tensor { .. })), "{what}");
            let far = files.read_range_into(&info.name, usize::MAX, &mut [0.0]);
            assert!(matches!(far, Err(Error::Tensor { .. })), "{what}");
        }
    };
    for model in [
        "llama", "qwen2", "qwen3", "gemma3", "gpt2", "gptneox", "blocks",
    ] {
        let gguf = Gguf::open(fixtures().join(format!("{model}.gguf"))).expect(model);
        ranges(&gguf, model);
    }
    ranges(
        &Folder::open(fixtures().join("sharded")).expect("a folder"),
        "sharded",
    );
}

/// A folder with these tensors, drawn.
fn folder(to: &Path, shapes: &[(&str, &[usize])], name: &str) -> Weights {
    let entries = shapes.iter().map(|(n, s)| ((*n).to_owned(), s.to_vec()));
    let layout = Layout::new(entries).expect("paths");
    let key = Key::new(0, name);
    let values = (0..layout.len() as u64).map(|i| key.normal(i) as f32);
    let weights = Weights::from_vec(&layout, values.collect()).expect("as long");
    FolderWriter::new(Map::new())
        .write(to, &weights)
        .expect("written");
    weights
}

/// Tensors of more than one piece, and adapters of maps with inputs first as GPT-2 has them.
#[test]
fn large_tensors_are_merged_in_pieces() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let shapes: [(&str, &[usize]); 3] = [
        ("h.0.c_fc.weight", &[300, 500]),
        ("h.1.c_fc.weight", &[200_003]),
        ("scale", &[]),
    ];
    let base = folder(&at("base"), &shapes, "base");
    let tuned = folder(&at("tuned"), &shapes, "tuned");
    let mut config = AdapterConfig::new(3, 6.0, ["c_fc"]);
    config.fan_in_fan_out = true;
    let key = Key::new(1, "factors");
    let draw = |n: u64, key: Key| (0..n).map(|i| key.normal(i) as f32).collect();
    let factors = (
        "h.0.c_fc".to_owned(),
        300,
        draw(3 * 300, key.sub("a")),
        draw(3 * 500, key.sub("b")),
    );
    let adapter = Adapter::new(config, [factors]).expect("an adapter");
    adapter.write(at("adapter")).expect("written");
    let sources = [(at("tuned"), 0.5), (at("adapter"), 2.0)];
    let merge = Merge::open(&at("base"), &sources, Rule::Sum).expect("they fit");
    let done = AtomicUsize::new(0);
    let each = |n: usize| {
        done.fetch_add(n, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    let summary = merge.write(&at("out"), &each).expect("merged");
    assert_eq!(done.into_inner(), base.layout().len());
    assert_eq!((summary.parameters, summary.blocks), (350_004, 2));
    let mut want = base.clone();
    want.add_difference(0.5, &tuned, &base);
    adapter.merge_into(&mut want).expect("merged");
    adapter.merge_into(&mut want).expect("merged");
    let found = Folder::open(at("out")).expect("a folder");
    let found = found.load(base.layout()).expect("all tensors");
    let apart = found.squared_distance(&want).sqrt();
    assert!(apart < 1e-6 * want.norm(), "{apart}");

    // TIES looks at a tensor as a whole, whatever the pieces.
    let rule = Rule::Ties { density: 0.1 };
    let merge = Merge::open(&at("base"), &sources[..1], rule).expect("they fit");
    merge.write(&at("ties"), &each_of()).expect("merged");
    let found = Folder::open(at("ties")).expect("a folder");
    let found = found.load(base.layout()).expect("all tensors");
    for entry in base.layout().entries() {
        let (now, before) = (found.get(&entry.path), base.get(&entry.path));
        let pairs = now.expect("there").iter().zip(before.expect("there"));
        let changed = pairs.filter(|(now, before)| now != before).count();
        assert_eq!(changed, entry.range.len().div_ceil(10), "{}", entry.path);
    }

    // Who stops it finds nothing written.
    let stopped = merge.write(&at("stopped"), &|_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    let left = fs::read_dir(dir.path()).expect("a folder");
    let left = left.filter(|e| {
        let name = e.as_ref().expect("an entry").file_name();
        name.to_string_lossy().contains("stopped")
    });
    assert_eq!(left.count(), 0);
}

fn each_of() -> impl Fn(usize) -> ControlFlow<()> + Sync {
    |_| ControlFlow::Continue(())
}
