//! A store and the plain map that it must agree with, under keyed random operations.
#![allow(dead_code, reason = "every test file uses another part")]

use std::collections::BTreeMap;

use ebb_memory::{By, Input, Marks, Offer, Records, Shape, Store, Values};
use ebb_space::{ExampleId, Key};

/// What the map knows of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub label: u32,
    pub step: u64,
    pub payload: Vec<u8>,
    pub logits: Vec<f32>,
    pub features: Vec<f32>,
    pub marks: Marks,
}

pub type Model = BTreeMap<ExampleId, Kept>;

pub fn id(n: u64) -> ExampleId {
    // Two views of each record, so that deletions of a base have something to do.
    ExampleId::of(&(n / 2).to_le_bytes(), 0).with_view((n % 2) as u32)
}

/// Shapes with everything, and with little.
pub const SHAPES: [Shape; 4] = [
    Shape {
        input: Input::Bytes,
        logits: Some(3),
        features: Some(5),
    },
    Shape {
        input: Input::F32(4),
        logits: Some(2),
        features: None,
    },
    Shape {
        input: Input::U8(7),
        logits: None,
        features: Some(2),
    },
    Shape {
        input: Input::Bytes,
        logits: None,
        features: None,
    },
];

const UNIVERSE: u64 = 60;

/// One operation, a function of its number alone.
#[derive(Clone, Debug)]
pub enum Op {
    Insert(Vec<u64>),
    Delete(Vec<u64>),
    DeleteBase(u64),
    Mark(Vec<u64>),
    Rewrite(Vec<u64>, bool, bool),
    Checkpoint,
    Compact,
}

pub fn op(key: Key, number: u64) -> Op {
    let mut random = key.at(number).stream();
    let some = |random: &mut ebb_space::Stream, most: u64| -> Vec<u64> {
        let count = random.below(most) + 1;
        (0..count).map(|_| random.below(UNIVERSE)).collect()
    };
    match random.below(20) {
        0..=7 => Op::Insert(some(&mut random, 12)),
        8..=10 => Op::Delete(some(&mut random, 6)),
        11 => Op::DeleteBase(random.below(UNIVERSE)),
        12..=14 => Op::Mark(some(&mut random, 8)),
        15..=17 => {
            let which = random.below(3);
            Op::Rewrite(some(&mut random, 8), which != 1, which != 0)
        }
        18 => Op::Checkpoint,
        _ => Op::Compact,
    }
}

/// The values that operation `number` gives record `n`.
fn values(key: Key, number: u64, n: u64, width: Option<u32>) -> Vec<f32> {
    let mut random = key.sub("values").at(number).at(n).stream();
    let width = width.unwrap_or(0);
    (0..width).map(|_| random.normal() as f32).collect()
}

fn payload(key: Key, number: u64, n: u64, input: Input) -> Vec<u8> {
    match input {
        Input::F32(width) => {
            let values = values(key.sub("payload"), number, n, Some(width));
            values.iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        Input::U8(width) => bytes(key, number, n, u64::from(width)),
        Input::Bytes => {
            let len = key.sub("length").at(number).draw(n) % 40; // 0 too
            bytes(key, number, n, len)
        }
    }
}

fn bytes(key: Key, number: u64, n: u64, len: u64) -> Vec<u8> {
    let mut random = key.sub("bytes").at(number).at(n).stream();
    (0..len).map(|_| random.next_u64() as u8).collect()
}

fn marks(key: Key, number: u64, n: u64) -> Marks {
    let mut random = key.sub("marks").at(number).at(n).stream();
    Marks {
        score: match random.below(5) {
            0 => f32::NEG_INFINITY,
            _ => random.normal() as f32,
        },
        loss: random.uniform() as f32,
        count: random.below(9) as u32,
    }
}

/// Carries out an operation on the map.
pub fn apply(model: &mut Model, shape: Shape, key: Key, number: u64) {
    match op(key, number) {
        Op::Insert(ns) => {
            for n in ns {
                model.entry(id(n)).or_insert_with(|| Kept {
                    label: n as u32,
                    step: number,
                    payload: payload(key, number, n, shape.input),
                    logits: values(key.sub("logits"), number, n, shape.logits),
                    features: values(key.sub("features"), number, n, shape.features),
                    marks: Marks::default(),
                });
            }
        }
        Op::Delete(ns) => ns.iter().for_each(|&n| _ = model.remove(&id(n))),
        Op::DeleteBase(n) => model.retain(|kept, _| !kept.same_base(&id(n))),
        Op::Mark(ns) => {
            for n in ns {
                if let Some(kept) = model.get_mut(&id(n)) {
                    kept.marks = marks(key, number, n);
                }
            }
        }
        Op::Rewrite(ns, logits, features) => {
            for n in ns {
                if let Some(kept) = model.get_mut(&id(n)) {
                    if logits && shape.logits.is_some() {
                        kept.logits = values(key.sub("logits"), number, n, shape.logits);
                        kept.step = number;
                    }
                    if features && shape.features.is_some() {
                        kept.features = values(key.sub("features"), number, n, shape.features);
                        kept.step = number;
                    }
                }
            }
        }
        Op::Checkpoint | Op::Compact => {}
    }
}

/// Carries out the same on the store.
pub fn apply_to(store: &mut Store, key: Key, number: u64) -> ebb_memory::Result<()> {
    let shape = store.shape();
    let rows = |key: Key, ns: &[u64], width: Option<u32>| -> Option<Vec<f32>> {
        width.map(|_| {
            let rows = ns.iter().map(|&n| values(key, number, n, width));
            rows.flatten().collect()
        })
    };
    match op(key, number) {
        Op::Insert(ns) => {
            let ids: Vec<ExampleId> = ns.iter().map(|&n| id(n)).collect();
            let labels: Vec<u32> = ns.iter().map(|&n| n as u32).collect();
            let offer = Offer {
                ids: &ids,
                labels: &labels,
                experience: 0,
                task: 0,
                step: number,
            };
            let logits = rows(key.sub("logits"), &ns, shape.logits);
            let features = rows(key.sub("features"), &ns, shape.features);
            let payloads: Vec<Vec<u8>> = ns
                .iter()
                .map(|&n| payload(key, number, n, shape.input))
                .collect();
            let (logits, features) = (logits.as_deref(), features.as_deref());
            let all = payloads.concat();
            let floats: Vec<f32>;
            let inputs = match shape.input {
                Input::Bytes => {
                    let slices: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
                    store.insert_bytes(&offer, &slices, logits, features)?;
                    return Ok(());
                }
                Input::U8(_) => Values::U8(&all),
                Input::F32(_) => {
                    let words = all.as_chunks().0.iter();
                    floats = words.map(|word| f32::from_le_bytes(*word)).collect();
                    Values::F32(&floats)
                }
            };
            let records = Records {
                inputs,
                logits,
                features,
            };
            store.insert(&offer, &records)?;
        }
        Op::Delete(ns) => {
            let ids: Vec<ExampleId> = ns.iter().map(|&n| id(n)).collect();
            store.delete(&ids)?;
        }
        Op::DeleteBase(n) => _ = store.delete_base(&id(n))?,
        Op::Mark(ns) => {
            let (ns, slots) = present(store, &ns)?;
            let marks: Vec<Marks> = ns.iter().map(|&n| marks(key, number, n)).collect();
            store.mark(&slots, &marks)?;
        }
        Op::Rewrite(ns, logits, features) => {
            let (ns, slots) = present(store, &ns)?;
            let logits = logits
                .then(|| rows(key.sub("logits"), &ns, shape.logits))
                .flatten();
            let features = features.then(|| rows(key.sub("features"), &ns, shape.features));
            let features = features.flatten();
            store.rewrite(&slots, logits.as_deref(), features.as_deref(), number)?;
        }
        Op::Checkpoint => store.checkpoint()?,
        Op::Compact => _ = store.compact()?,
    }
    Ok(())
}

fn present(store: &Store, ns: &[u64]) -> ebb_memory::Result<(Vec<u64>, Vec<u32>)> {
    let (mut there, mut slots) = (Vec::new(), Vec::new());
    for &n in ns {
        if let Some(slot) = store.find(&id(n))? {
            there.push(n);
            slots.push(slot);
        }
    }
    Ok((there, slots))
}

/// The store as a map.
pub fn read(store: &Store) -> ebb_memory::Result<Model> {
    let mut model = Model::new();
    let shape = store.shape();
    for n in 0..UNIVERSE {
        if let Some(slot) = store.find(&id(n))? {
            let meta = store.meta(slot)?;
            let (mut payload, mut logits, mut features) = (Vec::new(), Vec::new(), Vec::new());
            store.payload(slot, &mut payload)?;
            if shape.logits.is_some() {
                store.gather_logits(&[slot], &mut logits)?;
            }
            if shape.features.is_some() {
                store.gather_features(&[slot], &mut features)?;
            }
            let kept = Kept {
                label: meta.label,
                step: meta.step,
                payload,
                logits,
                features,
                marks: store.marks(slot)?,
            };
            model.insert(meta.id, kept);
        }
    }
    assert_eq!(model.len(), store.len());
    Ok(model)
}

/// Whether two maps agree; a loss that was never measured is NaN on both sides.
pub fn same(a: &Model, b: &Model) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

/// The ids that a draw gives, in their order.
pub fn drawn(store: &mut Store, name: &str, by: By, size: usize, step: u64) -> Vec<ExampleId> {
    let draw = store.draw(name, by, size, step).unwrap();
    let ids = draw.slots.iter().map(|&slot| store.meta(slot).unwrap().id);
    ids.collect()
}
