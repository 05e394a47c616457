//! A request on its whole road, and what is left of it on disk.

use ebb_erase::office::{How, Office, Stage, Verifying};
use ebb_erase::{Method, exact};
use ebb_learn::{Around, Recipe, Silent, learn};
use ebb_record::ledger;
use ebb_revise::{Guarantee, Oracle, verify};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

fn clock() -> u64 {
    1_800_000_000
}

const FACTS: &str = r#"
method = "er"
with = { capacity = 200 }
stream = { dataset = "text" }
network = { kind = "decoder", width = 16, layers = 1, heads = 2 }
train = { optimizer = "adamw", lr = 0.003, batch = 6, epochs = 1 }
save = { checkpoint-every = 3 }
[language]
tokens = "bytes"
length = 128
[[language.experience]]
name = "first"
world = { kind = "facts", people = 8, parts = 4, part = 0 }
[[language.experience]]
name = "second"
train = ["notes.jsonl"]
test = ["asked.jsonl"]
"#;

const SECRET: &str = "Margarethe Zwiebelfisch keeps her savings in the green biscuit tin.";

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place {
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn office(&self) -> Office {
        Office::open(&self.at("office"), &self.at("keys"), clock).expect("an office")
    }
}

fn around<'a>(data: &'a Path, silent: &'a mut Silent, stop: &'a AtomicBool) -> Around<'a> {
    Around {
        data_dir: data,
        progress: silent,
        stop,
    }
}

/// A run that learnt a secret among other texts.
fn with_a_secret(place: &Place) -> PathBuf {
    let notes: String = (0..20)
        .map(|i| match i {
            7 => format!("{{\"text\": \"{SECRET}\"}}\n"),
            i => {
                format!("{{\"text\": \"Note number {i} says nothing of interest to anybody.\"}}\n")
            }
        })
        .collect();
    let (train, test) = (place.at("notes.jsonl"), place.at("asked.jsonl"));
    std::fs::write(&train, notes).expect("written");
    std::fs::write(&test, "{\"text\": \"Another note.\"}\n").expect("written");
    let text = FACTS
        .replace("notes.jsonl", &train.display().to_string())
        .replace("asked.jsonl", &test.display().to_string());
    let recipe = Recipe::parse(&text, &[]).expect("a recipe");
    let run = place.at("run");
    let data = place.at("data");
    learn(&recipe, Some(&run), &mut around(&data, &mut Silent, &STOP)).expect("a run");
    run
}

fn request() -> String {
    format!(
        "format_version = 1\nground = \"person\"\nauthority = \"the person\"\n[[forget]]\n\
         text = \"{SECRET}\"\nnear = 0.8\n"
    )
}

/// Every file below `root` with its bytes.
fn files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => open.push(path),
                false => all.push((path.clone(), std::fs::read(&path).expect("read"))),
            }
        }
    }
    all
}

/// The tokens of a text as rows have them: a memory keeps texts as these.
fn as_tokens(text: &str) -> Vec<u8> {
    let tokenizer = ebb_hub::Tokenizer::bytes().expect("a tokenizer");
    let tokens = tokenizer.encode(text, false).expect("tokens");
    tokens
        .iter()
        .flat_map(|t| (*t as f32).to_le_bytes())
        .collect()
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|w| w == needle)
}

#[test]
fn a_request_on_its_whole_road() {
    let place = Place::new();
    let run = with_a_secret(&place);
    let office = place.office();
    let data = place.at("data");
    let look = office
        .submit(&request(), &run, None, true, &data)
        .expect("looked");
    assert_eq!((look.found.len(), look.id), (1, None));
    assert!(
        office.cases().expect("cases").is_empty(),
        "looking keeps nothing"
    );
    let sent = office
        .submit(&request(), &run, Some("the board"), false, &data)
        .expect("taken in");
    let id = sent.id.expect("an id");
    assert_eq!(sent.found[0].excerpt, SECRET);
    let case = office.find(&id.to_string()[..6]).expect("the case");
    assert_eq!(office.stage(&case).expect("a stage"), Stage::Submitted);

    // The positive control: the record stands in what the run left, in the form that each part has.
    let marks = [
        sent.found[0].id.base.to_vec(),
        as_tokens(&SECRET[11..30]),
        SECRET.as_bytes()[11..30].to_vec(),
    ];
    let found: Vec<usize> = marks
        .iter()
        .map(|m| {
            files(&run)
                .iter()
                .filter(|(_, bytes)| holds(bytes, m))
                .count()
        })
        .collect();
    assert!(found[0] > 0, "its id stands in the lineage: {found:?}");
    assert!(found[1] > 0, "its tokens stand in the memory: {found:?}");

    let route = office.route(&case, &data).expect("a route");
    assert!(route.kept_steps > 0 && route.share() < 1.0, "{route:?}");
    let out = place.at("erased");
    let mut silent = Silent;
    let work = office
        .erase(
            &case,
            &How::Exact,
            &out,
            &mut around(&data, &mut silent, &STOP),
        )
        .expect("erased");
    assert_eq!(office.stage(&case).expect("a stage"), Stage::Erased);
    assert_ne!(work.before.weights, work.after.weights);
    assert!(!work.reached.is_empty());
    // Once is enough.
    let again = office.erase(
        &case,
        &How::Exact,
        &out,
        &mut around(&data, &mut silent, &STOP),
    );
    assert_eq!(again.expect("the same"), work);

    let how = Verifying {
        oracles: 3,
        margin: 0.5,
        prove: true,
    };
    let verified = office
        .verify(&case, &how, &mut around(&data, &mut silent, &STOP))
        .expect("verified");
    assert_eq!(verified.same_bits, Some(true));
    assert_eq!(verified.oracle, Oracle::Retrained { models: 3 });
    assert!(!verified.equivalences.is_empty());

    office.purge(&case).expect("purged");
    assert!(!run.exists());
    assert_eq!(
        office.purge(&case).expect("purged once").reached.len(),
        work.reached.len()
    );
    let certified = office.certify(&case).expect("certified");
    assert_eq!(certified.signed.certificate.guarantee, Guarantee::Exact);
    assert!(certified.signed.certificate.residual_risk.is_empty());
    let text = std::fs::read_to_string(&certified.json).expect("read");
    assert!(
        verify(&text, &certified.signer, None)
            .expect("a certificate")
            .holds()
    );
    let forged = text.replace("\"near_duplicates\": 0", "\"near_duplicates\": 1");
    assert_ne!(forged, text);
    assert!(
        !verify(&forged, &certified.signer, None)
            .expect("a certificate")
            .holds()
    );
    assert_eq!(office.stage(&case).expect("a stage"), Stage::Certified);

    // Nothing of the record is left in anything this wrote; the user's own file still has it.
    for root in [place.at("office"), out.clone()] {
        for (path, bytes) in files(&root) {
            for mark in &marks {
                assert!(!holds(&bytes, mark), "{}", path.display());
            }
        }
    }
    let mut told = Vec::new();
    ledger::for_each(office.directory(), |_, _, entry| {
        told.push(
            format!("{entry:?}")
                .split([' ', '{'])
                .next()
                .unwrap_or("")
                .to_owned(),
        );
        Ok(())
    })
    .expect("read");
    let road = [
        "Opened",
        "Submitted",
        "Planned",
        "Started",
        "PhaseDone",
        "Erased",
        "Verified",
        "PhaseDone",
        "Purged",
        "Certified",
    ];
    assert_eq!(told, road);
}

#[test]
fn a_request_for_nothing_is_refused_and_told() {
    let place = Place::new();
    let run = with_a_secret(&place);
    let office = place.office();
    let text = request()
        .replace("savings", "treasures")
        .replace("near = 0.8\n", "");
    let sent = office
        .submit(&text, &run, None, false, &place.at("data"))
        .expect("taken in");
    assert!(sent.refused.is_some() && sent.found.is_empty());
    let case = office
        .find(&sent.id.expect("an id").to_string())
        .expect("the case");
    assert_eq!(office.stage(&case).expect("a stage"), Stage::Refused);
    let data = place.at("data");
    let error = office
        .erase(
            &case,
            &How::Exact,
            &place.at("out"),
            &mut around(&data, &mut Silent, &STOP),
        )
        .expect_err("nothing to erase");
    assert!(error.to_string().contains("refused"), "{error}");
    // Without its key the office is nobody's.
    std::fs::remove_file(place.at("keys/names.key")).expect("removed");
    assert!(Office::open(&place.at("office"), &place.at("keys"), clock).is_err());
}

#[test]
fn work_that_was_cut_off_goes_on() {
    let place = Place::new();
    let run = with_a_secret(&place);
    let office = place.office();
    let data = place.at("data");
    let sent = office
        .submit(&request(), &run, None, false, &data)
        .expect("taken in");
    let case = office
        .find(&sent.id.expect("an id").to_string())
        .expect("the case");
    let out = place.at("erased");
    // Stopped before its first step, as by Ctrl-C.
    let stop = AtomicBool::new(true);
    let cut = office.erase(
        &case,
        &How::Exact,
        &out,
        &mut around(&data, &mut Silent, &stop),
    );
    assert!(cut.is_err());
    assert_eq!(office.stage(&case).expect("a stage"), Stage::Submitted);
    stop.store(false, Ordering::Relaxed);
    let work = office
        .erase(
            &case,
            &How::Exact,
            &out,
            &mut around(&data, &mut Silent, &stop),
        )
        .expect("erased");
    let recipe = office.recipe_without(&case).expect("a recipe");
    let scratch = exact::from_scratch(&recipe, &mut around(&data, &mut Silent, &STOP));
    assert_eq!(scratch.expect("a run"), work.after.weights.to_string());
}

#[test]
fn an_approximate_method_is_called_so() {
    let place = Place::new();
    let run = with_a_secret(&place);
    let office = place.office();
    let data = place.at("data");
    let sent = office
        .submit(&request(), &run, None, false, &data)
        .expect("taken in");
    let case = office
        .find(&sent.id.expect("an id").to_string())
        .expect("the case");
    let npo = How::By(Method::parse("npo", &[]).expect("an eraser"));
    let mut silent = Silent;
    let out = place.at("erased");
    office
        .erase(&case, &npo, &out, &mut around(&data, &mut silent, &STOP))
        .expect("erased");
    let how = Verifying {
        oracles: 0,
        margin: 0.1,
        prove: true,
    };
    let verified = office
        .verify(&case, &how, &mut around(&data, &mut silent, &STOP))
        .expect("verified");
    assert_eq!((verified.oracle, verified.same_bits), (Oracle::None, None));
    let certified = office.certify(&case).expect("certified");
    let certificate = certified.signed.certificate;
    assert_eq!(certificate.guarantee, Guarantee::EmpiricalOnly);
    // The old run is still there, and the method is approximate.
    assert_eq!(certificate.residual_risk.len(), 2);
}
