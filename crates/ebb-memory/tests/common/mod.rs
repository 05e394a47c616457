//! A small stream of numbered records for the tests.
#![allow(dead_code, reason = "every test file uses another part")]

use std::collections::BTreeSet;

use ebb_memory::{Config, Fill, Form, Keep, Memory, Offer, Payload, Records, Values};
use ebb_space::{ExampleId, Key};

pub const FORM: Form = Form {
    input: 2,
    payload: Payload::F32,
    logits: None,
    features: None,
};

pub fn memory(capacity: usize, keep: Keep, key: Key) -> Memory {
    Memory::new(
        Config {
            capacity,
            keep,
            form: FORM,
        },
        key,
    )
    .unwrap()
}

/// Record number `n`; its label is `n % 5`.
pub fn id(n: u64) -> ExampleId {
    ExampleId::of(&n.to_le_bytes(), label(n))
}

pub fn label(n: u64) -> u32 {
    (n % 5) as u32
}

/// The priority that decides whether record `n` stays.
pub fn priority(key: Key, n: u64) -> u64 {
    key.sub("keep").draw(id(n).mix())
}

/// Offers records in the way the memory takes them: step by step, or the experience at once.
pub fn offer(memory: &mut Memory, ns: &[u64], experience: u32, batch: usize) {
    let batch = if memory.fill() == Fill::Step {
        batch
    } else {
        ns.len().max(1)
    };
    for ns in ns.chunks(batch) {
        let ids: Vec<ExampleId> = ns.iter().map(|&n| id(n)).collect();
        let labels: Vec<u32> = ns.iter().map(|&n| label(n)).collect();
        let offer = Offer {
            ids: &ids,
            labels: &labels,
            experience,
            task: 0,
            step: 0,
        };
        let plan = memory.plan(&offer).unwrap();
        let x: Vec<f32> = plan
            .admitted()
            .iter()
            .flat_map(|&i| [ns[i as usize] as f32, -1.0])
            .collect();
        let admitted = plan.admitted().len();
        assert_eq!(
            memory.commit(plan, &Records::of(Values::F32(&x))).unwrap(),
            admitted
        );
        assert!(memory.len() <= memory.config().capacity);
    }
}

/// Numbers of the records kept, read from their inputs; checks that ids and labels agree.
pub fn kept(memory: &Memory) -> BTreeSet<u64> {
    let slots = memory.slots_where(|_| true);
    let (mut x, mut labels) = (Vec::new(), Vec::new());
    memory.gather(&slots, None, &mut x).unwrap();
    memory.gather_labels(&slots, &mut labels);
    let numbers: Vec<u64> = x.chunks(2).map(|row| row[0] as u64).collect();
    for ((&slot, &n), &l) in slots.iter().zip(&numbers).zip(&labels) {
        assert_eq!((memory.metas()[slot as usize].id, l), (id(n), label(n)));
    }
    let set: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(set.len(), memory.len(), "a record is kept once");
    set
}

/// Fails if counts differ from equal (or the given) expectations at p < 1e-4; the critical value
/// is Wilson and Hilferty's.
pub fn chi_square(counts: &[u64], expected: impl Fn(usize) -> f64, what: &str) {
    let chi2: f64 = counts
        .iter()
        .enumerate()
        .map(|(i, &c)| (c as f64 - expected(i)).powi(2) / expected(i))
        .sum();
    let dof = (counts.len() - 1) as f64;
    let spread = 2.0 / (9.0 * dof);
    let critical = dof * (1.0 - spread + 3.72 * spread.sqrt()).powi(3);
    assert!(
        chi2 < critical,
        "{what}: chi-square {chi2:.1} over {critical:.1} with {dof} degrees of freedom"
    );
}
