//! Methods at the limits where another run says what must come out: a strength of 0, a plugin
//! that moves some tensors and no others.

use ebb_learn::{Around, Recipe, Session, Silent, learn_keeping};
use ebb_space::Weights;
use std::sync::atomic::AtomicBool;

/// The weights at the end and the gradients that were taken, on digits in two halves; `text`
/// stands for the method.
fn run(text: &str) -> (Weights, u64) {
    let text = format!(
        "{text}\n[stream]\ndataset = \"digits\"\ngroups = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]\n\
         scenario = \"class\"\n[network]\nkind = \"mlp\"\nhidden = [20, 20, 20]\n\
         [train]\nbatch = 32\nlr = 0.1\nmomentum = 0.5\n[evaluate]\nevery = 0\n"
    );
    let recipe = Recipe::parse(&text, &[]).expect("a valid recipe");
    let dir = std::env::temp_dir();
    let mut around = Around {
        data_dir: &dir,
        progress: &mut Silent,
        stop: &AtomicBool::new(false),
    };
    let session = Session::new(&recipe, &dir).expect("a session");
    let (summary, session) = learn_keeping(session, None, &mut around).expect("a run");
    let calls = summary.cost.gradient_calls.expect("they are counted");
    (session.oracle.model.weights(), calls)
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[test]
fn refreshing_at_rate_0_changes_no_bit_and_costs_a_gradient_a_step() {
    let plugin = |rate: &str| {
        run(&format!(
            "method = \"er\"\n[[plugin]]\nkind = \"refresh\"\nsteps = 2\nrate = {rate}\nsamples = 40\n"
        ))
    };
    let (er, calls) = run("method = \"er\"\n");
    let (still, more) = plugin("0.0");
    assert_eq!(er.digest(), still.digest());
    // Forty examples of the first experience are one pass of the Fisher.
    assert_eq!(more, 3 * calls + 1);
    assert_ne!(er.digest(), plugin("0.01").0.digest());
}

#[test]
fn fpf_moves_what_it_names_and_nothing_else() {
    let (plain, calls) = run("method = \"fine-tune\"\n");
    let with = |with: &str| run(&format!("method = \"fpf\"\nwith = {{ {with} }}\n"));
    assert_eq!(with("steps = 0").0.digest(), plain.digest());
    let (tuned, more) = with("steps = 30, on = [\"head*\"]");
    assert_eq!(more, calls + 30);
    for (entry, values) in tuned.iter() {
        let before = plain.get(&entry.path).expect("one layout");
        assert_eq!(
            same(values, before),
            entry.path.starts_with("layers"),
            "{}",
            entry.path
        );
    }
    // The control moves as many single parameters as the head has, in every tensor alike.
    let (random, _) = with("steps = 30, on = [\"head*\"], random = true");
    let head = plain.get("head.weight").map_or(0, <[f32]>::len) + 10;
    let moved = random.as_slice().iter().zip(plain.as_slice());
    let moved = moved.filter(|(a, b)| a != b).count();
    assert!(moved > head / 3 && moved <= head, "{moved} of {head}");
}

#[test]
fn a_reset_half_is_the_start_and_the_other_the_end() {
    let (end, _) = run("method = \"fine-tune\"\n");
    let with = |with: &str| run(&format!("method = \"hft\"\nwith = {{ {with} }}\n")).0;
    assert_eq!(with("by = \"shrink\", share = 0.0").digest(), end.digest());
    // From the second experience on: the whole change is taken back, which leaves the first.
    let start = with("by = \"shrink\", share = 1.0");
    let reset = with("by = \"reset\"");
    let (mut put_back, mut kept) = (0, 0);
    for (entry, values) in reset.iter() {
        let of = |w: &Weights| same(values, w.get(&entry.path).expect("one layout"));
        match (of(&start), of(&end)) {
            (true, false) => put_back += 1,
            (false, true) => kept += 1,
            other => panic!("{}: {other:?}", entry.path),
        }
    }
    // Three matrices and three vectors (half, rounded: two of each), and the head's two.
    assert_eq!((put_back, kept), (4, 4));
    let shrunk = with("by = \"shrink\", share = 0.25");
    for ((found, a), b) in (shrunk.as_slice().iter())
        .zip(start.as_slice())
        .zip(end.as_slice())
    {
        assert!((found - (0.25 * a + 0.75 * b)).abs() < 1e-6);
    }
}

#[test]
fn equal_views_are_one_view() {
    let with = |with: &str| run(&format!("method = \"view-batch\"\nwith = {{ {with} }}\n")).0;
    let (plain, _) = run("method = \"fine-tune\"\n");
    let one = with("views = 1, weak-shift = 0");
    assert_eq!(one.digest(), plain.digest());
    // Three views that do not move: the mean over rows is that over examples, and no view is
    // pulled anywhere.
    let three = with("views = 3, weak-shift = 0, shift = 0, degrees = 0.0, alpha = 50.0");
    let far = three.squared_distance(&plain).sqrt() / plain.norm();
    assert!(far < 1e-4, "{far}");
    let moved = with("views = 3, weak-shift = 0, alpha = 50.0");
    assert!(moved.squared_distance(&plain).sqrt() / plain.norm() > 1e-2);
}

#[test]
fn views_of_permuted_pixels_are_refused() {
    let text =
        "method = \"view-batch\"\n[stream]\ndataset = \"digits\"\nkind = \"permuted\"\nn = 2\n";
    let recipe = Recipe::parse(text, &[]).expect("it is the stream that does not fit");
    let dir = std::env::temp_dir();
    let mut around = Around {
        data_dir: &dir,
        progress: &mut Silent,
        stop: &AtomicBool::new(false),
    };
    let session = Session::new(&recipe, &dir).expect("a session");
    let error = learn_keeping(session, None, &mut around).err();
    let error = error.expect("refused").to_string();
    assert!(error.contains("permuted or recoloured"), "{error}");
}

/// A plugin that is spelt out is held to the same as one that its method's name stands for.
#[test]
fn plugins_that_could_not_train_are_refused() {
    let memory = "memory = { capacity = 20, keep = \"chosen\" }\n";
    let wrong = [
        (
            "mlp",
            "{ kind = \"remind\", mixup = 20.0 }",
            "mixup",
            memory,
        ),
        (
            "mlp",
            "{ kind = \"remind\", centres = 257 }",
            "centres",
            memory,
        ),
        (
            "mlp",
            "{ kind = \"sharp\", phases = 1000000000 }",
            "phases",
            memory,
        ),
        ("mlp", "{ kind = \"gss\", rows = 0 }", "rows", memory),
        ("mlp", "{ kind = \"mir\" }", "no memory", ""),
        ("mlp", "{ kind = \"fast-slow\", shots = 0 }", "shots", ""),
        ("mlp", "{ kind = \"psmt\", decay = 2.0 }", "decay", ""),
        (
            "mlp",
            "{ kind = \"protocl\", variance = 0.0 }",
            "variance",
            "",
        ),
        ("mlp", "{ kind = \"mvp\", gamma = -1.0 }", "gamma", ""),
        (
            "mlp\", standardise = true, head = \"linear",
            "{ kind = \"clnp\" }",
            "standardise",
            "",
        ),
        (
            "mlp\", head = \"prototypes",
            "{ kind = \"mvp\" }",
            "linear head",
            "",
        ),
    ];
    for (network, plugin, word, memory) in wrong {
        let text = format!(
            "{memory}plugin = [{plugin}]\nnetwork = {{ kind = \"{network}\", hidden = [8] }}\n\
             stream = {{ dataset = \"digits\", split = 5, scenario = \"task\" }}\n"
        );
        let error = Recipe::parse(&text, &[]).err();
        let error = error
            .unwrap_or_else(|| panic!("{plugin} was taken"))
            .to_string();
        assert!(error.contains(word), "{plugin}: {error}");
    }
}

/// What a projection keeps, weight decay would move.
#[test]
fn projections_beside_weight_decay_have_to_be_accepted() {
    let with = |accept: &str| {
        let text = format!(
            "method = \"gpm\"\n{accept}stream = {{ dataset = \"digits\", split = 5, scenario = \
             \"task\" }}\ntrain = {{ weight-decay = 0.01 }}\n"
        );
        Recipe::parse(&text, &[])
    };
    let error = with("").expect_err("refused").to_string();
    assert!(error.contains("projection-with-penalty"), "{error}");
    assert!(with("accept = [\"projection-with-penalty\"]\n").is_ok());
}
