//! Language models in the loop: texts become a stream of experiences, and a row of the data
//! becomes a row of the loss for each of its tokens.
//!
//! A row of the data holds the tokens of one example (or of a piece of a document) as signed ids:
//! a token that is learnt, that is, predicted from those before it, is stored as its id, and one
//! that is not as `−1 − id`. Replay, draws, ids and states work on such rows as on pictures.

mod answers;
mod check;
mod rows;
mod spec;

pub use answers::Speech;
pub(crate) use check::check;
pub(crate) use rows::{evaluate, expand, inputs_of};
pub use rows::{mass, outcomes, signed};
pub use spec::{Asked, LanguageSpec, TEXT, TextExperience, Tokens, WorldSpec};

use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::session::{Progress, begin_part, plan, take_in};
use crate::spec::{RecipeFile, StartSpec};
use crate::without::Gone;
use burn::tensor::Device;
use ebb_data::{
    Dataset, EvalSet, Experience, Item, Normalise, Pixels, Scenario, Stream, Transform,
};
use ebb_hub::Tokenizer;
use ebb_lm::LanguageModel;
use ebb_net::NetworkSpec;
use ebb_space::{ExampleId, Key};
use ebb_text::worlds::{FactWorld, instructions};
use ebb_text::{
    Body, Encoder, Encoding, Example, Fields, Occurrences, Question, Reader, Reading, Sequence,
    put_into,
};
use std::path::Path;
use std::sync::Arc;

/// The texts of one experience.
struct Texts {
    name: String,
    train: Vec<Example>,
    test: Vec<Example>,
}

/// The model a recipe begins with, and the stream of texts it learns.
///
/// # Errors
/// When files are missing or wrong, or a text does not fit.
pub fn open(recipe: &Recipe, data_dir: &Path) -> Result<(LanguageModel, Stream)> {
    let file = recipe.file();
    let Some(spec) = &file.language else {
        return Err(missing());
    };
    let texts = read(file, spec)?;
    let model = begin(file, spec, &texts, data_dir)?;
    let stream = stream(file, spec, &texts, &model)?;
    Ok((model, stream))
}

/// The model of a recipe with the weights that a run came to: those of `state`, or else the last.
///
/// # Errors
/// When the run does not train a language model, or cannot be read.
pub fn of_run(run: &Path, state: Option<&str>, data_dir: &Path) -> Result<LanguageModel> {
    let dir = ebb_record::RunDir::open(run)?;
    let recipe = Recipe::parse(&dir.recipe()?, &[])?;
    let Some(spec) = &recipe.file().language else {
        return Err(Error::Recipe {
            reason: format!(
                "the run `{}` does not train a language model",
                run.display()
            ),
        });
    };
    let file = recipe.file();
    let pretrained = matches!(file.network, NetworkSpec::Pretrained { .. });
    let texts = match pretrained {
        true => Vec::new(),
        false => read(file, spec)?,
    };
    let mut model = begin(file, spec, &texts, data_dir)?;
    let head = dir.states().head().map(|s| s.id.clone());
    let id = match state {
        Some(id) => id.to_owned(),
        None => head.ok_or_else(|| Error::Recipe {
            reason: format!("the run `{}` has no state yet", run.display()),
        })?,
    };
    let state = dir.states().checkout(&id)?;
    let saved: Progress = serde_json::from_slice(&state.bytes("progress.json")?)
        .map_err(|e| changed(run, format!("`progress.json` is not readable ({e})")))?;
    if !pretrained {
        // The tokenizer was made of the texts: with others its numbers mean other words.
        let stream = plan(stream(file, spec, &texts, &model)?, file.data);
        if saved.texts.is_some_and(|texts| texts != digest(&stream)) {
            let what = "the texts that its words come from have changed".to_owned();
            return Err(changed(run, what));
        }
    }
    if let Some(StartSpec {
        run: Some(base),
        state: from,
        ..
    }) = &file.start
    {
        let base = of_run(Path::new(base), from.as_deref(), data_dir)?;
        model.model.set_whole(&base.model.merged_weights()?)?;
    }
    begin_part(&mut model.model, file)?;
    take_in(&mut model.model, &state, saved.adapters)?;
    let layout = model.model.layout().clone();
    model.model.set_weights(&state.weights(&layout)?)?;
    Ok(model)
}

fn changed(run: &Path, what: String) -> Error {
    Error::Checkpoint {
        path: run.to_owned(),
        reason: format!("{what}: put them back as they were"),
    }
}

/// The model of a recipe that begins with one, as it is there.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn pretrained(recipe: &Recipe, data_dir: &Path) -> Result<Option<LanguageModel>> {
    match (&recipe.file().network, &recipe.file().language) {
        (NetworkSpec::Pretrained { .. }, Some(spec)) => {
            begin(recipe.file(), spec, &[], data_dir).map(Some)
        }
        _ => Ok(None),
    }
}

/// A digest of the texts that a stream learns, in their order.
pub(crate) fn digest(stream: &Stream) -> String {
    let mut hasher = blake3::Hasher::new();
    let items = stream.train_items().chain(stream.generic.iter());
    items.for_each(|item| {
        hasher.update(item.id.to_string().as_bytes());
    });
    hasher.finalize().to_hex().to_string()
}

fn missing() -> Error {
    Error::Recipe {
        reason: "a stream of text needs a table `language` with experiences: `ebb learn facts \
                 --print-recipe` shows one"
            .into(),
    }
}

/// The model before the first step.
fn begin(
    file: &RecipeFile,
    spec: &LanguageSpec,
    texts: &[Texts],
    data_dir: &Path,
) -> Result<LanguageModel> {
    if let NetworkSpec::Pretrained { model } = &file.network {
        let model = LanguageModel::open(LanguageModel::find(model, data_dir)?)?;
        return Ok(model.with_positions(spec.length)?);
    }
    let all = || texts.iter().flat_map(|t| t.train.iter().chain(&t.test));
    let tokenizer = match spec.tokens {
        Tokens::Bytes => Tokenizer::bytes()?,
        Tokens::Words => {
            let parts: Vec<&str> = all().flat_map(|e| parts(&e.body)).collect();
            Tokenizer::words(parts)?
        }
    };
    let config = file.network.decoder_config(tokenizer.len(), spec.length);
    let Some(mut config) = config else {
        return Err(missing());
    };
    let eos = tokenizer.special().eos.as_deref();
    if let Some(end) = eos.and_then(|eos| tokenizer.id(eos)) {
        config.insert("eos_token_id".into(), end.into());
        config.insert("pad_token_id".into(), end.into());
    }
    let key = Key::new(file.seed, "learn").sub("initialise");
    let device = Device::flex();
    Ok(LanguageModel::fresh(
        config,
        tokenizer,
        spec.length,
        key,
        &device,
    )?)
}

/// The texts of an example, as they are tokenised.
fn parts(body: &Body) -> Vec<&str> {
    match body {
        Body::Document(text) => vec![text],
        Body::Completion { prompt, completion } => vec![prompt, completion],
        Body::Chat(_) => Vec::new(),
    }
}

/// Every text that a recipe names, in the order of its experiences: to learn from, then to measure on.
/// Each is the record that its rows come from.
///
/// # Errors
/// When files are missing or wrong.
pub fn examples(recipe: &Recipe) -> Result<Vec<Example>> {
    let Some(spec) = &recipe.file().language else {
        return Err(missing());
    };
    let texts = read(recipe.file(), spec)?;
    Ok(texts
        .into_iter()
        .flat_map(|t| t.train.into_iter().chain(t.test))
        .collect())
}

/// The texts of every experience, and behind them the generic ones, all of which are learnt.
fn read(file: &RecipeFile, spec: &LanguageSpec) -> Result<Vec<Texts>> {
    // The split belongs to the data and not to a run.
    let key = Key::new(0, "held out");
    let gone = file.without.as_ref().map(Gone::open).transpose()?;
    let experiences = spec.experience.iter().map(|e| (e, false));
    experiences
        .chain(spec.generic.iter().map(|e| (e, true)))
        .map(|(experience, generic)| {
            let mut texts = match &experience.world {
                Some(world) => generated(world)?,
                None => Texts {
                    name: String::new(),
                    train: read_files(&experience.train, &spec.fields)?,
                    test: match experience.test.is_empty() {
                        true => Vec::new(),
                        false => read_files(&experience.test, &spec.fields)?,
                    },
                },
            };
            texts.name.clone_from(&experience.name);
            if generic {
                texts.test.clear();
            } else if texts.test.is_empty() {
                let held = |e: &Example| key.uniform(e.id.mix()) < spec.test_share;
                (texts.test, texts.train) = texts.train.into_iter().partition(held);
            }
            let forms = Key::new(0, "forms");
            let share = if generic { 0.0 } else { spec.diversify };
            put_into(&mut texts.train, experience.form, share, forms.sub("train"))?;
            put_into(&mut texts.test, experience.form, 0.0, forms.sub("test"))?;
            for example in texts.train.iter_mut().chain(&mut texts.test) {
                if experience.documents {
                    *example = joined(std::mem::replace(example, Example::document("")));
                }
                if let Some(seed) = experience.cipher {
                    *example = ciphered(example, &alphabet(seed));
                }
            }
            for examples in [&mut texts.train, &mut texts.test] {
                let mut seen = Occurrences::default();
                examples.iter_mut().for_each(|e| e.id = seen.number(e.id));
                if let Some(gone) = &gone {
                    // Before the words of a vocabulary are taken from them.
                    examples.retain(|e| !gone.has(&e.id));
                }
            }
            let needed = [
                (&texts.train, "learn from", true),
                (&texts.test, "measure on", !generic),
            ];
            for (examples, which, needed) in needed {
                if examples.is_empty() && needed {
                    return Err(Error::Recipe {
                        reason: format!(
                            "the experience `{}` has no texts to {which}: name more files under \
                             `train` or `test`, or change `test-share`",
                            experience.name
                        ),
                    });
                }
            }
            Ok(texts)
        })
        .collect()
}

/// The rows of texts in files, as the recipe reads and cuts its own: signed ids, one row behind the
/// other.
///
/// # Errors
/// When a file cannot be read, or a text does not fit.
pub(crate) fn rows_of_files(
    paths: &[std::path::PathBuf],
    spec: &LanguageSpec,
    tokenizer: &Tokenizer,
) -> Result<Vec<f32>> {
    let encoder = Encoder::new(tokenizer, encoding(spec))?;
    let mut rows = Vec::new();
    for example in read_files(paths, &spec.fields)? {
        for sequence in encoder.encode(&example)? {
            rows.extend(signed(&sequence.tokens, &sequence.learn, spec.length));
        }
    }
    Ok(rows)
}

fn encoding(spec: &LanguageSpec) -> Encoding {
    Encoding {
        learn: spec.learn,
        too_long: spec.too_long,
        end: spec.end,
        ..Encoding::new(spec.length)
    }
}

fn read_files(paths: &[std::path::PathBuf], fields: &Fields) -> Result<Vec<Example>> {
    let reading = Reading {
        fields: fields.clone(),
        ..Reading::default()
    };
    let reader = Reader::open_all(paths, &reading)?;
    Ok(reader.collect::<ebb_text::Result<Vec<_>>>()?)
}

fn generated(world: &WorldSpec) -> Result<Texts> {
    let (train, test) = match world {
        WorldSpec::Facts {
            people,
            seed,
            parts,
            part,
            changed,
            ask,
        } => {
            let of = FactWorld::new(*people, *seed)?;
            let mut facts = match changed {
                true => of.changes(),
                false => of.facts(),
            };
            let deal = Key::new(*seed, "parts");
            let dealt = |subject: &str| {
                let id = Example::document(subject).id.mix();
                (deal.draw(id) % (*parts).max(1) as u64) as usize
            };
            facts.retain(|fact| dealt(&fact.subject) == *part);
            let train = of.examples(&facts);
            let test = match ask {
                Asked::Statements => train.clone(),
                Asked::Questions => asked(&of.questions(&facts)),
                Asked::HeldOut => Vec::new(),
            };
            (train, test)
        }
        WorldSpec::Instructions {
            format,
            train,
            test,
            seed,
        } => {
            let task = instructions(*format, *train, *test, *seed)?;
            (task.train, asked(&task.questions))
        }
        WorldSpec::Modular { .. } => match world.modular() {
            Some(modular) => {
                let task = modular.task()?;
                (task.train, asked(&task.questions))
            }
            None => (Vec::new(), Vec::new()),
        },
    };
    Ok(Texts {
        name: String::new(),
        train,
        test,
    })
}

/// Questions as prompts and their true completions.
fn asked(questions: &[Question]) -> Vec<Example> {
    let example = |q: &Question| Example::completion(&q.prompt, &q.choices[q.answer]);
    questions.iter().map(example).collect()
}

/// A prompt and its completion as one text.
fn joined(example: Example) -> Example {
    match example.body {
        Body::Completion { prompt, completion } => Example {
            body: Body::Document(prompt + &completion),
            ..example
        },
        _ => example,
    }
}

/// A permutation of the small letters.
fn alphabet(seed: u64) -> [u8; 26] {
    let mut letters: Vec<u64> = (0..26).collect();
    Key::new(seed, "cipher").order(&mut letters, |l| *l);
    std::array::from_fn(|i| letters[i] as u8)
}

/// The same text with other letters; capitals stay capitals. The id is that of what it says now.
fn ciphered(example: &Example, alphabet: &[u8; 26]) -> Example {
    let letter = |c: char| match c {
        'a'..='z' => char::from(b'a' + alphabet[usize::from(c as u8 - b'a')]),
        'A'..='Z' => char::from(b'A' + alphabet[usize::from(c as u8 - b'A')]),
        c => c,
    };
    let text = |t: &str| t.chars().map(letter).collect::<String>();
    match &example.body {
        Body::Document(t) => Example::document(text(t)),
        Body::Completion { prompt, completion } => {
            Example::completion(text(prompt), text(completion))
        }
        Body::Chat(_) => example.clone(),
    }
}

/// Rows of tokens as the loop reads them.
#[derive(Default)]
struct RowsOf {
    values: Vec<f32>,
    items: Vec<Item>,
    ids: Vec<ExampleId>,
    pieces: u32,
}

impl RowsOf {
    /// Adds the rows of examples; returns them.
    fn add(
        &mut self,
        encoder: &Encoder,
        examples: &[Example],
        length: usize,
        task: usize,
    ) -> Result<Arc<[Item]>> {
        let first = self.items.len();
        for example in examples {
            for sequence in encoder.encode(example)? {
                self.push(&sequence, length, task);
            }
        }
        Ok(self.items[first..].into())
    }

    fn push(&mut self, sequence: &Sequence, length: usize, task: usize) {
        self.values
            .extend(signed(&sequence.tokens, &sequence.learn, length));
        let id = sequence.id.with_view(sequence.piece);
        self.pieces = self.pieces.max(sequence.piece + 1);
        self.items.push(Item {
            row: self.items.len() as u32,
            label: 0,
            task: task as u16,
            id,
        });
        self.ids.push(sequence.id);
    }

    fn dataset(self, length: usize, vocabulary: usize) -> Dataset {
        Dataset {
            name: TEXT.into(),
            shape: [1, 1, length],
            classes: vocabulary,
            labels: vec![0; self.items.len()],
            pixels: Pixels::F32(self.values.into()),
            ids: self.ids,
            scale: Normalise::raw(1.0),
        }
    }
}

fn stream(
    file: &RecipeFile,
    spec: &LanguageSpec,
    texts: &[Texts],
    model: &LanguageModel,
) -> Result<Stream> {
    let encoder = Encoder::new(&model.tokenizer, encoding(spec))?;
    let vocabulary = model.decoder.config().vocabulary;
    let (mut train, mut test) = (RowsOf::default(), RowsOf::default());
    let mut experiences = Vec::with_capacity(texts.len());
    let mut evals = Vec::with_capacity(texts.len());
    let (texts, generic) = texts.split_at(spec.experience.len());
    for (index, text) in texts.iter().enumerate() {
        let add = |rows: &mut RowsOf, of: &[Example]| rows.add(&encoder, of, spec.length, index);
        let learnt = add(&mut train, &text.train)?;
        let measured = add(&mut test, &text.test)?;
        let mut origins = vec![0; texts.len()];
        origins[index] = learnt.len();
        experiences.push(Experience {
            index,
            name: text.name.clone(),
            task: index,
            classes: Vec::new(),
            outputs: Vec::new(),
            train: learnt,
            test: measured.clone(),
            origins,
        });
        evals.push(EvalSet {
            name: text.name.clone(),
            task: index,
            items: measured,
        });
    }
    let mut beside = Vec::new();
    for text in generic {
        beside.extend_from_slice(&train.add(&encoder, &text.train, spec.length, 0)?);
    }
    let views = train.pieces.max(test.pieces);
    let train = Arc::new(train.dataset(spec.length, vocabulary));
    let test = Arc::new(test.dataset(spec.length, vocabulary));
    // A piece of a document is a view of it: all of them show it as it is.
    let transforms = (0..views)
        .map(|view| Transform::new(train.shape, train.scale, Vec::new(), view))
        .collect::<ebb_data::Result<_>>()?;
    Ok(Stream {
        spec: file.stream.clone(),
        train,
        test,
        scenario: Scenario::Domain,
        experiences,
        generic: beside.into(),
        evals,
        transforms,
        classes: vocabulary,
        heads: 1,
    })
}
