//! How well a model knows texts and answers questions.
//!
//! A question is scored by the likelihood of each of its choices behind the prompt; a text by that
//! of all its tokens; of a task the answer is written greedily and compared with the true one. Shares
//! of questions have Wilson intervals, means over texts and tasks Student's.

use crate::error::{Error, Result};
use crate::model::LanguageModel;
use crate::write::{Start, Text, Writing};
use ebb_net::decoder;
use ebb_space::stats::{mean_ci_t, proportion_ci_wilson};
use ebb_space::{Direction, ExampleId, Number, Unit};
use ebb_text::metrics::{Likelihood, exact_match, normalised_match, rouge_l};
use ebb_text::{General, Question, chance as guess, likeliest};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Level of every interval.
pub const LEVEL: f64 = 0.95;

/// Questions and texts under one name.
#[derive(Clone, Debug)]
pub struct Set {
    /// What scores of it are called after: scores of different names are different numbers.
    pub name: String,
    /// BLAKE3 of what is in it, in hex.
    pub hash: String,
    /// Questions, kind by kind.
    pub questions: Vec<Question>,
    /// Names and texts.
    pub texts: Vec<(String, String)>,
    /// What has to be written.
    pub tasks: Vec<Task>,
}

/// A prompt whose answer is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// What is given.
    pub prompt: String,
    /// What should follow.
    pub truth: String,
}

impl Set {
    /// A set that comes with the program.
    ///
    /// # Errors
    /// [`Error::Request`] for a name that is none.
    pub fn named(name: &str) -> Result<Set> {
        match name {
            "general-v1" => Ok(Set::general(&General::v1())),
            _ => Err(Error::Request(format!(
                "there is no set `{name}`; the sets are general-v1, or give a JSONL file"
            ))),
        }
    }

    /// The questions and texts of a JSONL file: `{"prompt", "choices", "answer"}` (the number of
    /// the right choice, from 0) with a `"kind"` where there are several, `{"text"}` with a
    /// `"name"`, or `{"prompt", "completion"}` for what has to be written.
    ///
    /// # Errors
    /// [`Error::Request`] with file and line for what is neither.
    pub fn open(path: impl AsRef<Path>) -> Result<Set> {
        let path = path.as_ref();
        let wrong = |at: String, why: String| Err(Error::Request(format!("{at}: {why}")));
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) => {
                return wrong(
                    format!("`{}`", path.display()),
                    format!("cannot be read: {e}"),
                );
            }
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut set = Set {
            name: name.into_owned(),
            hash: blake3::hash(&bytes).to_hex().to_string(),
            questions: Vec::new(),
            texts: Vec::new(),
            tasks: Vec::new(),
        };
        for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
            let at = || format!("`{}`, line {}", path.display(), i + 1);
            let Ok(line) = std::str::from_utf8(line) else {
                return wrong(at(), "it is not UTF-8: save the file as UTF-8".into());
            };
            if line.trim().is_empty() {
                continue;
            }
            match serde_json::from_str(line) {
                Ok(Line::Question {
                    prompt,
                    choices,
                    answer,
                    kind,
                }) => {
                    if answer >= choices.len() || choices.len() < 2 {
                        return wrong(
                            at(),
                            format!(
                                "`answer` is {answer} and there are {} choices: it counts from 0, \
                                 and there are at least two choices",
                                choices.len()
                            ),
                        );
                    }
                    let kind = kind.unwrap_or_else(|| "questions".to_owned());
                    set.questions
                        .push(Question::new(kind, prompt, choices, answer));
                }
                Ok(Line::Task { prompt, completion }) => set.tasks.push(Task {
                    prompt,
                    truth: completion,
                }),
                Ok(Line::Text { text, name }) => {
                    let name = name.unwrap_or_else(|| format!("line {}", i + 1));
                    set.texts.push((name, text));
                }
                Err(_) => {
                    return wrong(
                        at(),
                        "it is none of {\"prompt\": …, \"choices\": […], \"answer\": 0}, \
                         {\"prompt\": …, \"completion\": …} and {\"text\": …}"
                            .into(),
                    );
                }
            }
        }
        match set.questions.is_empty() && set.texts.is_empty() && set.tasks.is_empty() {
            true => wrong(
                format!("`{}`", path.display()),
                "there is nothing in it".into(),
            ),
            false => Ok(set),
        }
    }

    fn general(set: &General) -> Set {
        Set {
            name: set.version().to_owned(),
            hash: set.hash().to_owned(),
            questions: set.questions.clone(),
            texts: set
                .texts
                .iter()
                .map(|t| (t.name.clone(), t.text.clone()))
                .collect(),
            tasks: Vec::new(),
        }
    }

    /// The first `n` questions of each kind, the first `n` texts and the first `n` tasks.
    pub fn first(&mut self, n: usize) {
        let mut taken: Vec<(String, usize)> = Vec::new();
        self.questions.retain(|question| {
            let at = taken.iter().position(|(kind, _)| *kind == question.kind);
            let at = at.unwrap_or_else(|| {
                taken.push((question.kind.clone(), 0));
                taken.len() - 1
            });
            taken[at].1 += 1;
            taken[at].1 <= n
        });
        self.texts.truncate(n);
        self.tasks.truncate(n);
        self.name = format!("{}, first {n} of a kind", self.name);
    }

    /// Kinds of questions, in their order.
    pub fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<&str> = Vec::new();
        for question in &self.questions {
            if !kinds.contains(&question.kind.as_str()) {
                kinds.push(&question.kind);
            }
        }
        kinds
    }
}

/// A line of a set of one's own.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Question {
        prompt: String,
        choices: Vec<String>,
        answer: usize,
        kind: Option<String>,
    },
    Task {
        prompt: String,
        completion: String,
    },
    Text {
        text: String,
        name: Option<String>,
    },
}

/// What became of a question.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// Which question.
    pub id: ExampleId,
    /// Its kind.
    pub kind: String,
    /// Which choice is right.
    pub answer: usize,
    /// Which one is the likeliest.
    pub chosen: Option<usize>,
    /// `ln p` of each choice, in nats.
    pub log_likelihoods: Vec<f64>,
}

impl Answer {
    /// Whether the right choice is the likeliest.
    pub fn correct(&self) -> bool {
        self.chosen == Some(self.answer)
    }
}

/// What became of a text.
#[derive(Clone, Debug, Serialize)]
pub struct Read {
    /// Which text.
    pub name: String,
    /// `ln p` of all its tokens, in nats.
    pub log_likelihood: f64,
    /// Its tokens.
    pub tokens: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// What became of a task.
#[derive(Clone, Debug, Serialize)]
pub struct Written {
    /// The task.
    #[serde(flatten)]
    pub task: Task,
    /// What the model wrote.
    pub text: String,
    /// Whether both are the same, bar the space around them.
    pub exact: bool,
    /// Whether they are under SQuAD's rules: case, punctuation and articles aside.
    pub normalised: bool,
    /// F1 of ROUGE-L.
    pub rouge_l: f64,
}

/// Everything that was measured on a set.
#[derive(Clone, Debug, Serialize)]
pub struct Scores {
    /// Version of the format.
    pub format_version: u32,
    /// The set.
    pub set: String,
    /// BLAKE3 of what is in it.
    pub set_hash: String,
    /// `accuracy` over all questions, `accuracy/KIND`, `bits_per_byte`, `perplexity`,
    /// `exact_match`, `normalised_match`, `rouge_l`.
    pub numbers: Vec<Number>,
    /// What guessing would answer: over the kinds, then of each kind.
    pub chance: Vec<(String, f64)>,
    /// Question by question.
    pub answers: Vec<Answer>,
    /// Text by text.
    pub texts: Vec<Read>,
    /// Task by task.
    pub tasks: Vec<Written>,
}

/// Watches a scoring: questions, texts and tasks done, of how many.
pub type Watch<'a> = &'a mut dyn FnMut(usize, usize);

/// Questions read side by side.
const TOGETHER: usize = 16;
/// Tokens of an answer at most.
const ANSWER: usize = 128;
/// Tokens of a window of a text.
const WINDOW: usize = 1024;

/// Scores a model on a set.
///
/// # Errors
/// When a question or text does not fit the model's context, or the tokenizer refuses it.
pub fn score(model: &mut LanguageModel, set: &Set, watch: Watch) -> Result<Scores> {
    let all = set.questions.len() + set.texts.len() + set.tasks.len();
    let mut answers = Vec::with_capacity(set.questions.len());
    for part in set.questions.chunks(TOGETHER) {
        answers.extend(answer(model, part)?);
        watch(answers.len(), all);
    }
    let mut texts = Vec::with_capacity(set.texts.len());
    for (name, text) in &set.texts {
        texts.push(read(model, name, text)?);
        watch(answers.len() + texts.len(), all);
    }
    let mut tasks = Vec::with_capacity(set.tasks.len());
    for part in set.tasks.chunks(TOGETHER) {
        tasks.extend(written(model, part)?);
        watch(answers.len() + texts.len() + tasks.len(), all);
    }
    let protocol = format!(
        "{} ({}); choices by log-likelihood",
        set.name,
        set.hash.get(..12).unwrap_or(&set.hash)
    );
    let mut numbers = Vec::new();
    let mut chance = Vec::new();
    if !answers.is_empty() {
        numbers.push(accuracy("accuracy", answers.iter(), &protocol)?);
        chance.push(("accuracy".to_owned(), guess(set.questions.iter())));
    }
    for kind in set.kinds() {
        let name = format!("accuracy/{kind}");
        let of = answers.iter().filter(|a| a.kind == kind);
        numbers.push(accuracy(&name, of, &protocol)?);
        let of = set.questions.iter().filter(|q| q.kind == kind);
        chance.push((name, guess(of)));
    }
    if !texts.is_empty() {
        numbers.extend(likelihoods(&texts, &set.name)?);
    }
    if !tasks.is_empty() {
        numbers.extend(matches(&tasks, &set.name)?);
    }
    Ok(Scores {
        format_version: 1,
        set: set.name.clone(),
        set_hash: set.hash.clone(),
        numbers,
        chance,
        answers,
        texts,
        tasks,
    })
}

/// Prompt and choices as tokens: prompt and choice are read as one text, as the model would meet
/// them, and parted where the choices' tokens begin to differ from the prompt's.
fn parted(model: &LanguageModel, question: &Question) -> Result<(Vec<u32>, Vec<Vec<u32>>)> {
    let prompt = model.begin(&question.prompt)?;
    let whole = |choice: &String| model.begin(&format!("{}{choice}", question.prompt));
    let whole: Vec<Vec<u32>> = question.choices.iter().map(whole).collect::<Result<_>>()?;
    let shared = |tokens: &Vec<u32>| {
        prompt
            .iter()
            .zip(tokens)
            .take_while(|(a, b)| a == b)
            .count()
    };
    let at = whole.iter().map(shared).min().unwrap_or(0);
    if at == 0 {
        return Err(Error::Request(format!(
            "the question `{}` has no prompt that its choices share, and this model has no token \
             that begins a text: give it a prompt",
            question.prompt
        )));
    }
    let choices: Vec<Vec<u32>> = whole.iter().map(|tokens| tokens[at..].to_vec()).collect();
    if let Some(i) = choices.iter().position(Vec::is_empty) {
        return Err(Error::Request(format!(
            "choice {} of the question `{}` is empty",
            i + 1,
            question.prompt
        )));
    }
    Ok((prompt[..at].to_vec(), choices))
}

fn answer(model: &mut LanguageModel, questions: &[Question]) -> Result<Vec<Answer>> {
    let tokens = questions.iter().map(|q| parted(model, q));
    let tokens: Vec<(Vec<u32>, Vec<Vec<u32>>)> = tokens.collect::<Result<_>>()?;
    let choices: Vec<Vec<&[u32]>> = tokens
        .iter()
        .map(|(_, choices)| choices.iter().map(Vec::as_slice).collect())
        .collect();
    let asked: Vec<decoder::Question> = tokens
        .iter()
        .zip(&choices)
        .map(|((prompt, _), choices)| decoder::Question { prompt, choices })
        .collect();
    let decoder = model.decoder.clone();
    let scored = decoder.choices(&mut model.model, &asked)?;
    let one = |(question, scored): (&Question, Vec<decoder::Scored>)| {
        let of = |(scored, text): (&decoder::Scored, &String)| Likelihood {
            log_likelihood: scored.log_likelihood(),
            tokens: scored.log_probabilities.len() as u64,
            bytes: text.len() as u64,
        };
        let found: Vec<Likelihood> = scored.iter().zip(&question.choices).map(of).collect();
        Answer {
            id: question.id,
            kind: question.kind.clone(),
            answer: question.answer,
            chosen: likeliest(&found, false),
            log_likelihoods: found.iter().map(|l| l.log_likelihood).collect(),
        }
    };
    Ok(questions.iter().zip(scored).map(one).collect())
}

fn read(model: &mut LanguageModel, name: &str, text: &str) -> Result<Read> {
    let tokens = model.begin(text)?;
    let window = WINDOW.min(model.decoder.config().longest());
    let decoder = model.decoder.clone();
    let losses = decoder.losses(&mut model.model, &tokens, window, window / 2)?;
    Ok(Read {
        name: name.to_owned(),
        log_likelihood: -losses.iter().sum::<f64>(),
        tokens: losses.len() as u64,
        bytes: text.len() as u64,
    })
}

/// Answers end with their line, where the true one is of one line.
fn written(model: &mut LanguageModel, tasks: &[Task]) -> Result<Vec<Written>> {
    let start = |task: &Task| {
        Ok(Start {
            example: 0,
            tokens: model.prompt(&task.prompt)?,
        })
    };
    let starts: Vec<Start> = tasks.iter().map(start).collect::<Result<_>>()?;
    let how = Writing {
        most: ANSWER,
        ..Writing::default()
    };
    let texts = model.write(&starts, &how, |_, _| {})?;
    let one = |(task, made): (&Task, Text)| {
        let text = match task.truth.trim().contains('\n') {
            true => made.text.as_str(),
            false => made.text.trim_start().lines().next().unwrap_or_default(),
        };
        Written {
            exact: exact_match(text, &task.truth),
            normalised: normalised_match(text, &task.truth),
            rouge_l: rouge_l(text, &task.truth).f1,
            text: text.to_owned(),
            task: task.clone(),
        }
    };
    Ok(tasks.iter().zip(texts).map(one).collect())
}

fn matches(tasks: &[Written], set: &str) -> Result<Vec<Number>> {
    let n = tasks.len();
    let protocol = |about: &str| {
        format!(
            "{set}; tasks; greedy, {ANSWER} tokens at most, one line if the truth is one; {about}"
        )
    };
    let share = |name: &str, of: fn(&Written) -> bool, about: &str| {
        let right = tasks.iter().filter(|t| of(t)).count();
        share(name, right, n, &protocol(about))
    };
    let rouge: Vec<f64> = tasks.iter().map(|t| t.rouge_l).collect();
    let interval = mean_ci_t(&rouge, LEVEL).ok();
    Ok(vec![
        share("exact_match", |t| t.exact, "space around them aside")?,
        share("normalised_match", |t| t.normalised, "under SQuAD's rules")?,
        Number {
            name: "rouge_l".to_owned(),
            value: rouge.iter().sum::<f64>() / n as f64,
            ci_low: interval.as_ref().map(|i| i.low),
            ci_high: interval.as_ref().map(|i| i.high),
            n,
            unit: Unit::Example,
            direction: Direction::Higher,
            protocol: protocol("F1, without stemming"),
        },
    ])
}

fn accuracy<'a>(
    name: &str,
    answers: impl Iterator<Item = &'a Answer>,
    protocol: &str,
) -> Result<Number> {
    let (right, n) = answers.fold((0, 0), |(k, n), a| (k + usize::from(a.correct()), n + 1));
    share(name, right, n, protocol)
}

fn share(name: &str, right: usize, n: usize, protocol: &str) -> Result<Number> {
    let interval = proportion_ci_wilson(right, n, LEVEL)?;
    Ok(Number {
        name: name.to_owned(),
        value: right as f64 / n as f64,
        ci_low: Some(interval.low),
        ci_high: Some(interval.high),
        n,
        unit: Unit::Example,
        direction: Direction::Higher,
        protocol: protocol.to_owned(),
    })
}

/// Bits per byte and perplexity over all texts, and intervals over the texts.
fn likelihoods(texts: &[Read], set: &str) -> Result<Vec<Number>> {
    let mut all = Likelihood::default();
    let of = |t: &Read| Likelihood {
        log_likelihood: t.log_likelihood,
        tokens: t.tokens,
        bytes: t.bytes,
    };
    texts.iter().for_each(|t| all.add(of(t)));
    let number = |name: &str, value: f64, each: Vec<f64>, about: &str| {
        let interval = mean_ci_t(&each, LEVEL).ok();
        Number {
            name: name.to_owned(),
            value,
            ci_low: interval.as_ref().map(|i| i.low),
            ci_high: interval.as_ref().map(|i| i.high),
            n: each.len(),
            unit: Unit::Example,
            direction: Direction::Lower,
            protocol: format!("{set}; texts; {about}"),
        }
    };
    let bits: Vec<f64> = texts.iter().map(|t| of(t).bits_per_byte()).collect();
    let mean = bits.iter().sum::<f64>() / bits.len() as f64;
    let perplexity = Number {
        ci_low: None,
        ci_high: None,
        ..number(
            "perplexity",
            all.perplexity(),
            bits.clone(),
            "over all tokens",
        )
    };
    Ok(vec![
        number("bits_per_byte", mean, bits, "the mean over texts"),
        perplexity,
    ])
}
