//! The loop over rows allocates nothing: counted at the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ebb_space::presets::{
    balanced_distillation, bernoulli, cpr, cross_entropy, distillation, fdr, logits_l2,
    plackett_luce, prototype_relation, proxy_contrast, proxy_distillation, sinkhorn, sup_con,
};
use ebb_space::{
    CarrierGrads, Choices, Inputs, Key, Normalisation, Objective, Reduction, Reference, References,
    RowId, Rows, View,
};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn after_the_first_call_only_the_result_is_allocated() {
    let (n, k) = (300, 10);
    let key = Key::new(0, "allocation");
    let z: Vec<f32> = (0..n * k).map(|i| key.normal(i as u64) as f32).collect();
    let rows = Rows {
        ids: vec![
            RowId {
                example: 0,
                position: 0
            };
            n
        ],
        labels: vec![1; n],
        support: vec![0; n],
        supports: vec!["new".into()],
        class_set: Some((0..n).map(|i| (i % 2) as u16).collect()),
        class_sets: vec![vec![true; k], (0..k).map(|c| c < 4).collect()],
        ..Rows::default()
    };
    let logits = View::new(&z, n, k).unwrap();
    let references = References {
        stored_logits: Some(logits),
        teacher_logits: Some(logits),
        ..References::default()
    };
    let inputs = Inputs {
        rows: &rows,
        logits,
        features: Some(logits),
        references,
    };
    let objective = Objective {
        terms: vec![
            cross_entropy("all"),
            logits_l2("new", Normalisation::ElementMean),
            distillation("new", Reference::StoredLogits, 2.0),
            fdr("new"),
            cpr("new"),
            bernoulli("new", Reference::Label),
            plackett_luce("new", Choices::TeacherMass { t: 1.0 }),
            proxy_contrast("new", 1.0),
            proxy_distillation("new"),
            balanced_distillation("new", 2.0, 0.5)[0].clone(),
            sinkhorn("new", 2.0),
            sup_con("new", 0.1),
            prototype_relation("new", 1.0),
        ],
        reduction: Reduction::SumOfMeans,
    };
    let mut grads = CarrierGrads::default();
    objective.evaluate(&inputs, &mut grads).unwrap();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let value = objective.evaluate(&inputs, &mut grads).unwrap();
    let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert!(value.total > 0.0);
    // The terms' values and the row losses that are handed out; the test harness may add a few of
    // its own, far below one a row.
    assert!(allocated < 24, "{allocated} allocations");
}
