//! How a decoding rule changes what a language model writes.
//!
//! **Source.** Zhu et al., EMNLP 2023 (card S085). A model continues prompts from the held-out
//! texts of `general-v1`; every seed has prompts of its own. **What is measured**, a value a seed:
//!
//! | arm | rule | measures |
//! |---|---|---|
//! | `greedy` | the likeliest token | `rep_2`, `rep_3`, `rep_4`, `distinct`, `perplexity`, `early_ends`, `tokens` |
//! | `penalty` | the same behind a penalty on every token that was used | the same |
//! | `windowed` | behind a penalty on those of the last `window` positions | the same |
//! | `length` | the same with a penalty on the end while the text is short | the same |
//! | `off` | `length` with θ = 1: all of it but the penalty on repetition, a control | the same |
//! | `sampled` | drawn, cut off at `top_p` | the same |
//! | `copied` | a sentence is read behind k copies of itself | `after_0`, `after_1`, …, `rank_correlation` |
//! | `others` | a sentence is read behind k other sentences, a control | the same |
//!
//! *rep-n* is `1 − unique n-grams / n-grams` of the new tokens of a text, *distinct* its unique
//! tokens over its tokens, both the mean over texts. *Perplexity* is that of the new tokens behind
//! their prompt under the model that wrote them, without any penalty, over all tokens of a seed.
//! *Early ends* are texts that the model ended before they were as long as they may be. `after_k`
//! is the geometric mean of the probabilities of a sentence's tokens, mean over sentences.
//!
//! **What counts as used**: the prompt's tokens as well as the new ones, until they leave the
//! window. Special tokens and tokens of line ends are never penalised.
//! **θ** of `penalty` and of `windowed` is the first of a list that brings rep-4 to a common level
//! on prompts that no seed has.

use crate::clause::Samples;
use crate::error::{Error, Result};
use crate::native::found::Found;
use crate::runner::{Ended, Options, Watch};
use crate::verdict::Verdict;
use ebb_lm::LanguageModel;
use ebb_net::decoder::processors::TopP;
use ebb_net::decoder::{
    Choice, End, Generated, Generation, PenaltyDecoding, Processor, Prompt, Question,
};
use ebb_space::stats::{Alternative, spearman};
use ebb_space::{Direction, Key};
use ebb_text::General;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The arms that clauses may name.
pub const ARMS: &[&str] = &[
    "copied", "greedy", "length", "off", "others", "penalty", "sampled", "windowed",
];

/// Which model writes, from what, and by which rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// A model that `ebb data fetch` brings.
    pub model: String,
    /// Prompts of a seed.
    pub prompts: usize,
    /// Tokens of a prompt.
    pub prompt_tokens: usize,
    /// New tokens of a text, unless the model ends it.
    pub new_tokens: usize,
    /// Prompts that θ is chosen on.
    pub tuning_prompts: usize,
    /// Values of θ, in the order in which they are tried.
    pub penalties: Vec<f64>,
    /// rep-4 that θ must bring about.
    pub level: f64,
    /// Positions that the penalty of `windowed` looks back.
    pub window: usize,
    /// Off the logit of the end while the text is short, in nats.
    pub length_penalty: f64,
    /// Probability within which `sampled` draws.
    pub top_p: f64,
    /// Sentences of a seed.
    pub sentences: usize,
    /// Copies before a sentence at most.
    pub copies: usize,
}

/// The seed of what all runs share: who gets which prompt.
const SHARED: u64 = 85;
/// Tokens of a sentence that is copied.
const SENTENCE: RangeInclusive<usize> = 8..=24;
/// Words whose full stop ends no sentence.
const ABBREVIATED: [&str; 4] = ["Mr", "Mrs", "Dr", "St"];
/// The arms that write, and the order in which they do.
const WRITE: [&str; 6] = ["greedy", "penalty", "windowed", "length", "off", "sampled"];

/// What a rule made of prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Written {
    rep: [f64; 3],
    distinct: f64,
    perplexity: f64,
    early_ends: f64,
    tokens: f64,
}

/// A θ and the rep-4 that it brought about.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tuned {
    penalty: f64,
    rep_4: f64,
}

struct World<'a> {
    spec: &'a Spec,
    model: LanguageModel,
    /// Tokens that may repeat.
    exempt: Vec<u32>,
    options: &'a Options<'a>,
}

pub(crate) fn run(
    spec: &Spec,
    seeds: &[u64],
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<Samples> {
    let wrong = |reason: String| Error::Study {
        id: verdict.id.clone(),
        reason,
    };
    if spec.prompts == 0 || spec.tuning_prompts == 0 || spec.penalties.is_empty() {
        return Err(wrong("it needs prompts, some for θ, and a θ".to_owned()));
    }
    if spec.new_tokens < 4 || spec.copies < 2 || spec.sentences <= spec.copies {
        return Err(wrong(
            "it needs four new tokens, two copies, and more sentences than copies".to_owned(),
        ));
    }
    let path =
        LanguageModel::find(&spec.model, options.data_dir).map_err(ebb_learn::Error::from)?;
    let model = LanguageModel::open(path).map_err(ebb_learn::Error::from)?;
    let mut world = World {
        spec,
        exempt: exempt(&model)?,
        model,
        options,
    };
    let texts: Vec<String> = General::v1().texts.into_iter().map(|t| t.text).collect();
    let mut prompts = prompts(&world.model, &texts, spec.prompt_tokens)?;
    let mut sentences = sentences(&world.model, &texts)?;
    for (what, have, need) in [
        (
            "prompts",
            prompts.len(),
            spec.tuning_prompts + seeds.len() * spec.prompts,
        ),
        ("sentences", sentences.len(), seeds.len() * spec.sentences),
    ] {
        if have < need {
            return Err(wrong(format!(
                "general-v1 gives {have} {what} and it needs {need}"
            )));
        }
    }
    let key = Key::new(SHARED, "decoding");
    shuffle(key.sub("prompts"), &mut prompts);
    shuffle(key.sub("sentences"), &mut sentences);
    let (tuning, prompts) = prompts.split_at(spec.tuning_prompts);
    let prompts = &prompts[..seeds.len() * spec.prompts];

    watch.ahead(WRITE.len() + seeds.len());
    let all = world.tuned("penalty", tuning, watch)?;
    let windowed = world.tuned("windowed", tuning, watch)?;
    let mut found: BTreeMap<&str, Vec<Written>> = BTreeMap::new();
    for arm in WRITE {
        let begun = Instant::now();
        let how = world.rule(arm, all.penalty, windowed.penalty)?;
        let made = world.write(prompts, &how)?;
        let seconds = begun.elapsed().as_secs_f64();
        let parts = prompts.chunks(spec.prompts).zip(made.chunks(spec.prompts));
        let each: Vec<Written> = parts
            .map(|(prompts, made)| world.measure(prompts, made))
            .collect::<Result<_>>()?;
        let mean = each.iter().map(|w| w.rep[2]).sum::<f64>() / each.len() as f64;
        watch.run(&Ended {
            arm: arm.to_owned(),
            seed: seeds[0],
            trial: None,
            seconds,
            measured: BTreeMap::from([("rep_4".to_owned(), mean)]),
        });
        found.insert(arm, each);
    }
    let mut curves: BTreeMap<&str, Vec<Vec<f64>>> = BTreeMap::new();
    for (seed, sentences) in seeds.iter().zip(sentences.chunks(spec.sentences)) {
        let begun = Instant::now();
        let n = sentences.len();
        let copied: Vec<Vec<usize>> = (0..n).map(|i| vec![i; spec.copies + 1]).collect();
        curves
            .entry("copied")
            .or_default()
            .push(world.curve(sentences, &copied)?);
        let others = turned(n, spec.copies + 1);
        curves
            .entry("others")
            .or_default()
            .push(world.curve(sentences, &others)?);
        watch.run(&Ended {
            arm: "copied".to_owned(),
            seed: *seed,
            trial: None,
            seconds: begun.elapsed().as_secs_f64(),
            measured: BTreeMap::new(),
        });
    }

    let protocol = format!(
        "{}, {} prompts of {} tokens from general-v1, {} new tokens",
        spec.model, spec.prompts, spec.prompt_tokens, spec.new_tokens
    );
    let mut report = Found::new("decoding", protocol, seeds);
    for (arm, each) in &found {
        add_written(&mut report, arm, each);
    }
    for (arm, curves) in &curves {
        add_curves(&mut report, arm, curves)?;
    }
    let (samples, arms) = report.finish()?;
    verdict.arms = arms;
    verdict.notes.push(format!(
        "θ chosen on {} prompts of no seed, the first of {:?} with rep-4 at most {}: {} over all \
         tokens (rep-4 {:.3}), {} within {} (rep-4 {:.3}).",
        tuning.len(),
        spec.penalties,
        spec.level,
        all.penalty,
        all.rep_4,
        windowed.penalty,
        spec.window,
        windowed.rep_4
    ));
    Ok(samples)
}

fn add_written(report: &mut Found, arm: &str, each: &[Written]) {
    let mut add = |name: &str, of: &dyn Fn(&Written) -> f64, direction, what: &str| {
        report.add(arm, name, each.iter().map(of).collect(), direction, what);
    };
    let (up, down) = (Direction::Higher, Direction::Lower);
    for (i, n) in (2..=4).enumerate() {
        let what = format!("1 − unique {n}-grams / {n}-grams of a text, mean over texts");
        add(&format!("rep_{n}"), &|w| w.rep[i], down, &what);
    }
    let what = "unique tokens / tokens of a text, mean over texts";
    add("distinct", &|w| w.distinct, up, what);
    let what = "of the new tokens under the model itself, without penalties";
    add("perplexity", &|w| w.perplexity, Direction::None, what);
    let what = "share of texts that the model ended before their length";
    add("early_ends", &|w| w.early_ends, down, what);
    add(
        "tokens",
        &|w| w.tokens,
        Direction::None,
        "new tokens of a text, mean",
    );
}

fn add_curves(report: &mut Found, arm: &str, curves: &[Vec<f64>]) -> Result<()> {
    let none = Direction::None;
    for k in 0..curves[0].len() {
        let values = curves.iter().map(|curve| curve[k]).collect();
        let what = "geometric mean of a sentence's token probabilities, mean over sentences";
        report.add(arm, &format!("after_{k}"), values, none, what);
    }
    let copies: Vec<f64> = (0..curves[0].len()).map(|k| k as f64).collect();
    let correlation = |curve: &Vec<f64>| {
        let test = spearman(&copies, curve, Alternative::Greater)?;
        Ok(test.statistic)
    };
    let values = curves.iter().map(correlation).collect::<Result<_>>()?;
    let what = "Spearman of what stands before a sentence with its probability";
    report.add(arm, "rank_correlation", values, none, what);
    Ok(())
}

impl World<'_> {
    /// The rule of an arm, with θ over all tokens and θ within the window.
    fn rule(&self, arm: &str, all: f64, windowed: f64) -> Result<Generation> {
        let spec = self.spec;
        let mut processors: Vec<Box<dyn Processor>> = Vec::new();
        let mut choice = Choice::Greedy;
        let length = spec.length_penalty;
        match arm {
            "penalty" => processors = self.penalties(all, usize::MAX, 0.0)?,
            "windowed" => processors = self.penalties(windowed, spec.window, 0.0)?,
            "length" => processors = self.penalties(windowed, spec.window, length)?,
            "off" => processors = self.penalties(1.0, spec.window, length)?,
            "sampled" => {
                let cut = TopP::new(spec.top_p).map_err(ebb_learn::Error::from)?;
                processors.push(Box::new(cut));
                choice = Choice::Sampled { seed: SHARED };
            }
            _ => {}
        }
        Ok(Generation {
            most: spec.new_tokens,
            stops: self.model.stops().to_vec(),
            processors,
            choice,
        })
    }

    fn penalties(
        &self,
        penalty: f64,
        window: usize,
        length_penalty: f64,
    ) -> Result<Vec<Box<dyn Processor>>> {
        let rule = PenaltyDecoding {
            penalty,
            window,
            exempt: self.exempt.clone(),
            ends: self.model.stops().to_vec(),
            target: self.spec.new_tokens,
            length_penalty,
        };
        Ok(rule.processors().map_err(ebb_learn::Error::from)?)
    }

    /// The first θ that brings rep-4 to the level, or else the one that comes closest to it.
    fn tuned(&mut self, arm: &str, prompts: &[Vec<u32>], watch: &mut dyn Watch) -> Result<Tuned> {
        let mut best: Option<Tuned> = None;
        for penalty in &self.spec.penalties {
            watch.ahead(1);
            let begun = Instant::now();
            let how = self.rule(arm, *penalty, *penalty)?;
            let made = self.write(prompts, &how)?;
            let rep_4 = mean(made.iter().map(|text| repeated(&text.tokens, 4)));
            watch.run(&Ended {
                arm: arm.to_owned(),
                seed: SHARED,
                trial: Some(format!("penalty = {penalty}")),
                seconds: begun.elapsed().as_secs_f64(),
                measured: BTreeMap::from([("rep_4".to_owned(), rep_4)]),
            });
            if best.is_none_or(|best| rep_4 < best.rep_4) {
                best = Some(Tuned {
                    penalty: *penalty,
                    rep_4,
                });
            }
            if rep_4 <= self.spec.level {
                break;
            }
        }
        best.ok_or_else(|| Error::NoMeasure {
            arm: arm.to_owned(),
            measure: "rep_4".to_owned(),
            reason: "no θ gave a text".to_owned(),
        })
    }

    /// A text behind each prompt, side by side.
    fn write(&mut self, prompts: &[Vec<u32>], how: &Generation) -> Result<Vec<Generated>> {
        let prompts: Vec<Prompt> = (0u64..)
            .zip(prompts)
            .map(|(example, tokens)| Prompt { example, tokens })
            .collect();
        let stop = self.options.stop;
        let decoder = self.model.decoder.clone();
        let go = |_: usize, _: u32| match stop.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let made = decoder.generate(&mut self.model.model, &prompts, how, go);
        let made = made.map_err(ebb_learn::Error::from)?;
        match stop.load(Ordering::Relaxed) {
            true => Err(Error::Stopped),
            false => Ok(made),
        }
    }

    fn measure(&mut self, prompts: &[Vec<u32>], made: &[Generated]) -> Result<Written> {
        let texts: Vec<&[u32]> = made.iter().map(|text| text.tokens.as_slice()).collect();
        let early = |text: &&Generated| matches!(text.end, End::Stop(_));
        let n = made.len() as f64;
        Ok(Written {
            rep: [2, 3, 4].map(|n| mean(texts.iter().map(|text| repeated(text, n)))),
            // A token alone is an n-gram of one.
            distinct: 1.0 - mean(texts.iter().map(|text| repeated(text, 1))),
            perplexity: self.perplexity(prompts, &texts)?,
            early_ends: made.iter().filter(early).count() as f64 / n,
            tokens: texts.iter().map(|text| text.len()).sum::<usize>() as f64 / n,
        })
    }

    /// Over all tokens of all texts; of none it is not a number.
    fn perplexity(&mut self, prompts: &[Vec<u32>], texts: &[&[u32]]) -> Result<f64> {
        let pairs = prompts.iter().zip(texts);
        let pairs: Vec<(&[u32], [&[u32]; 1])> = pairs
            .filter(|(_, text)| !text.is_empty())
            .map(|(prompt, text)| (prompt.as_slice(), [*text]))
            .collect();
        let questions: Vec<Question> = pairs
            .iter()
            .map(|(prompt, choices)| Question { prompt, choices })
            .collect();
        let decoder = self.model.decoder.clone();
        let scored = decoder.choices(&mut self.model.model, &questions);
        let scored = scored.map_err(ebb_learn::Error::from)?;
        let (mut sum, mut n) = (0.0, 0);
        for scored in scored.iter().flatten() {
            sum += scored.log_likelihood();
            n += scored.log_probabilities.len();
        }
        Ok((-sum / n as f64).exp())
    }

    /// The probability of a sentence's token by the number of sentences before it, where `rows` say
    /// which sentences are read one behind the other.
    fn curve(&mut self, sentences: &[Vec<u32>], rows: &[Vec<usize>]) -> Result<Vec<f64>> {
        let begin = self.model.begin("").map_err(ebb_learn::Error::from)?;
        let texts: Vec<Vec<u32>> = rows
            .iter()
            .map(|row| row.iter().flat_map(|i| &sentences[*i]).copied().collect())
            .collect();
        let choices: Vec<[&[u32]; 1]> = texts.iter().map(|text| [text.as_slice()]).collect();
        let questions: Vec<Question> = choices
            .iter()
            .map(|choices| Question {
                prompt: &begin,
                choices,
            })
            .collect();
        let decoder = self.model.decoder.clone();
        let scored = decoder.choices(&mut self.model.model, &questions);
        let scored = scored.map_err(ebb_learn::Error::from)?;
        if self.options.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let mut curve = vec![0.0; rows[0].len()];
        for (row, scored) in rows.iter().zip(scored.iter().flatten()) {
            let lengths = row.iter().map(|i| sentences[*i].len());
            let of = by_sentence(&scored.log_probabilities, lengths);
            for (sum, p) in curve.iter_mut().zip(of) {
                *sum += p / rows.len() as f64;
            }
        }
        Ok(curve)
    }
}

/// Tokens that may repeat, as in `ebb generate`: those that end a text or a line.
fn exempt(model: &LanguageModel) -> Result<Vec<u32>> {
    let line_ends = model.line_ends().map_err(ebb_learn::Error::from)?;
    Ok([model.stops(), &line_ends].concat())
}

/// Pieces of `tokens` tokens of the texts, each from the beginning of a sentence, no two of which
/// share a token.
fn prompts(model: &LanguageModel, texts: &[String], tokens: usize) -> Result<Vec<Vec<u32>>> {
    let mut pieces = Vec::new();
    for text in texts {
        let mut free = 0;
        for start in beginnings(text) {
            if start < free {
                continue;
            }
            let mut ids = model
                .prompt(&text[start..])
                .map_err(ebb_learn::Error::from)?;
            if ids.len() < tokens {
                break;
            }
            ids.truncate(tokens);
            let covered = model.tokenizer.decode(&ids, false);
            free = start + covered.map_err(ebb_learn::Error::from)?.len();
            pieces.push(ids);
        }
    }
    Ok(pieces)
}

/// Whole sentences of the texts, with the space before them, so that copies have the same tokens.
fn sentences(model: &LanguageModel, texts: &[String]) -> Result<Vec<Vec<u32>>> {
    let mut sentences = Vec::new();
    for text in texts {
        let starts = beginnings(text);
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        for (start, end) in starts.iter().zip(ends) {
            let sentence = text[*start..end].trim();
            let tokens = model.tokenizer.encode(&format!(" {sentence}"), false);
            let tokens = tokens.map_err(ebb_learn::Error::from)?;
            if SENTENCE.contains(&tokens.len()) && !sentence.contains('\n') {
                sentences.push(tokens);
            }
        }
    }
    Ok(sentences)
}

/// Where sentences begin: at 0, and at a capital behind a full stop, a question or an exclamation
/// mark (with a closing quotation mark, or without) and white space.
fn beginnings(text: &str) -> Vec<usize> {
    let mut found = vec![0];
    for (at, mark) in text.match_indices(['.', '?', '!']) {
        let word = text[..at].rsplit(|c: char| !c.is_alphabetic()).next();
        if mark == "." && word.is_some_and(|word| ABBREVIATED.contains(&word)) {
            continue;
        }
        let behind = text[at + 1..].trim_start_matches(['"', '\'', '”', '’']);
        let next = behind.trim_start();
        if next.len() < behind.len() && next.starts_with(char::is_uppercase) {
            found.push(text.len() - next.len());
        }
    }
    found
}

fn shuffle<T>(key: Key, items: &mut Vec<T>) {
    let mut numbered: Vec<(u64, T)> = (0u64..).zip(items.drain(..)).collect();
    key.order(&mut numbered, |(i, _)| *i);
    items.extend(numbered.into_iter().map(|(_, item)| item));
}

/// `n` rows of `length` numbers below `n`, of which every number stands once at every place.
fn turned(n: usize, length: usize) -> Vec<Vec<usize>> {
    let row = |first: usize| (0..length).map(|i| (first + i) % n).collect();
    (0..n).map(row).collect()
}

/// `1 − unique n-grams / n-grams`; none of a text without an n-gram.
pub(super) fn repeated(tokens: &[u32], n: usize) -> Option<f64> {
    let all = tokens.windows(n);
    let total = all.len();
    let unique = all.collect::<BTreeSet<_>>().len();
    (total > 0).then(|| 1.0 - unique as f64 / total as f64)
}

/// The mean of what there is; not a number of nothing.
fn mean(values: impl Iterator<Item = Option<f64>>) -> f64 {
    let values: Vec<f64> = values.flatten().collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// The geometric mean of the probabilities of each of the sentences that stand one behind the
/// other.
fn by_sentence(log_probabilities: &[f64], lengths: impl Iterator<Item = usize>) -> Vec<f64> {
    let mut rest = log_probabilities.iter();
    lengths
        .map(|n| (rest.by_ref().take(n).sum::<f64>() / n as f64).exp())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use ebb_hub::Tokenizer;
    use ebb_net::NetworkSpec;
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn repetition_is_counted_as_by_hand() {
        // 12 21 12 21 12; 121 212 121 212; 1212 2121 1212.
        let text = [1, 2, 1, 2, 1, 2];
        let found = [1, 2, 3, 4].map(|n| repeated(&text, n).expect("n-grams"));
        for (found, by_hand) in found
            .iter()
            .zip([4.0 / 6.0, 3.0 / 5.0, 2.0 / 4.0, 1.0 / 3.0])
        {
            assert!((found - by_hand).abs() < 1e-12, "{found}, {by_hand}");
        }
        assert_eq!(repeated(&[1, 2, 3, 4], 4), Some(0.0));
        assert_eq!(repeated(&[1, 2, 3], 4), None);
        assert_eq!(mean([Some(0.5), None, Some(0.25)].into_iter()), 0.375);
    }

    /// An n-gram is repeated where the same one stands at an earlier place.
    #[test]
    fn repetition_is_the_share_of_places_that_were_there_before() {
        let key = Key::new(85, "texts");
        for example in 0..50 {
            let mut draw = key.at(example).stream();
            let text: Vec<u32> = (0..60).map(|_| draw.below(3) as u32).collect();
            for n in 1..=4 {
                let places = text.len() - n + 1;
                let before = |i: usize| (0..i).any(|j| (0..n).all(|d| text[i + d] == text[j + d]));
                let share = (0..places).filter(|i| before(*i)).count() as f64 / places as f64;
                assert!((repeated(&text, n).expect("n-grams") - share).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn sentences_begin_where_a_reader_says() {
        let text = "He ran. \"Why?\" Mr. Hill asked. It cost 3.50 a day, no less! and so on. Then";
        let found: Vec<&str> = beginnings(text).iter().map(|at| &text[*at..]).collect();
        let first = |s: &str| s.split(' ').next().map(str::to_owned);
        let words: Vec<_> = found.iter().filter_map(|s| first(s)).collect();
        assert_eq!(words, ["He", "Mr.", "It", "Then"]);
    }

    #[test]
    fn every_sentence_stands_once_at_every_place() {
        let rows = turned(5, 4);
        for place in 0..4 {
            let at: BTreeSet<usize> = rows.iter().map(|row| row[place]).collect();
            assert_eq!(at, (0..5).collect());
        }
        let apart = |row: &Vec<usize>| row.iter().collect::<BTreeSet<_>>().len() == row.len();
        assert!(rows.iter().all(apart));
    }

    #[test]
    fn a_sentence_has_the_geometric_mean_of_its_tokens() {
        let p = [0.5f64, 0.125, 0.2, 0.2, 0.2, 1.0];
        let found = by_sentence(&p.map(f64::ln), [2, 3, 1].into_iter());
        for (found, by_hand) in found.iter().zip([0.25, 0.2, 1.0]) {
            assert!((found - by_hand).abs() < 1e-12);
        }
    }

    #[test]
    fn a_shuffle_keeps_all_and_is_the_same_again() {
        let mut a: Vec<u32> = (0..40).collect();
        let mut b = a.clone();
        shuffle(Key::new(1, "x"), &mut a);
        shuffle(Key::new(1, "x"), &mut b);
        assert_eq!(a, b);
        assert_ne!(a, (0..40).collect::<Vec<_>>());
        a.sort_unstable();
        assert_eq!(a, (0..40).collect::<Vec<_>>());
    }

    const TEXT: &str = "One day the fox met a crow. The crow sat there. The fox went home.\nThen \
                        the day was done. The crow met the fox again and the fox sat there.";

    /// A decoder with fresh weights that knows the words of [`TEXT`].
    fn fresh() -> LanguageModel {
        // Words that begin a text are asked for without a space before them, or with one.
        let tokenizer = Tokenizer::words([TEXT, "The", " One"]).expect("a tokenizer");
        let network = NetworkSpec::Decoder {
            width: 16,
            layers: 2,
            heads: 2,
            inner: None,
            tied: true,
        };
        let config = network.decoder_config(tokenizer.len(), 64).expect("one");
        let key = Key::new(1, "fresh");
        LanguageModel::fresh(config, tokenizer, 64, key, &Device::flex()).expect("a model")
    }

    fn spec() -> Spec {
        Spec {
            model: String::new(),
            prompts: 2,
            prompt_tokens: 5,
            new_tokens: 20,
            tuning_prompts: 1,
            penalties: vec![1.0, 1.5],
            level: 0.0,
            window: 6,
            length_penalty: 1e6,
            top_p: 0.9,
            sentences: 4,
            copies: 3,
        }
    }

    #[test]
    fn prompts_have_their_length_and_share_nothing() {
        let model = fresh();
        let found = prompts(&model, &[TEXT.to_owned()], 5).expect("prompts");
        let text = |ids: &Vec<u32>| model.tokenizer.decode(ids, false).expect("text");
        let texts: Vec<String> = found.iter().map(text).collect();
        assert_eq!(
            texts,
            [
                "One day the fox met",
                "The crow sat there.",
                "The fox went home.",
                "Then the day was done",
                "The crow met the fox"
            ]
        );
        assert!(found.iter().all(|ids| ids.len() == 5));
        let all = sentences(&model, &[TEXT.to_owned()]).expect("sentences");
        let texts: Vec<String> = all.iter().map(text).collect();
        assert_eq!(
            texts,
            [
                " One day the fox met a crow.",
                " The crow met the fox again and the fox sat there."
            ]
        );
        let exempt = exempt(&model).expect("tokens");
        let stops = model.stops().iter().copied();
        let line = model.tokenizer.id("\n");
        assert!(line.is_some() && stops.len() > 0);
        assert_eq!(exempt, stops.chain(line).collect::<Vec<_>>());
    }

    /// What the rules write, and what it is worth, told another way.
    #[test]
    fn rules_do_what_they_say() {
        let stop = AtomicBool::new(false);
        let options = Options {
            data_dir: Path::new("."),
            threads: 1,
            stop: &stop,
            kept: None,
        };
        let spec = spec();
        let model = fresh();
        let prompts = prompts(&model, &[TEXT.to_owned()], 5).expect("prompts");
        let mut world = World {
            exempt: exempt(&model).expect("tokens"),
            spec: &spec,
            model,
            options: &options,
        };
        let by = |world: &mut World, arm: &str, all: f64, windowed: f64| {
            let how = world.rule(arm, all, windowed).expect("a rule");
            world.write(&prompts, &how).expect("texts")
        };
        let greedy = by(&mut world, "greedy", 1.0, 1.0);
        // A penalty of 1 is none, and an end that is forbidden never comes.
        assert_eq!(by(&mut world, "penalty", 1.0, 9.0), greedy);
        let off = by(&mut world, "off", 9.0, 9.0);
        assert!(off.iter().all(|text| text.end == End::Length));
        // A penalty beyond all logits: no word comes twice within the window.
        let windowed = by(&mut world, "windowed", 1.0, 1e9);
        for (prompt, text) in prompts.iter().zip(&windowed) {
            let whole: Vec<u32> = prompt.iter().chain(&text.tokens).copied().collect();
            for at in prompt.len()..whole.len() {
                let window = &whole[at.saturating_sub(6)..at];
                assert!(world.exempt.contains(&whole[at]) || !window.contains(&whole[at]));
            }
        }
        let measured = world.measure(&prompts, &greedy).expect("measures");
        let decoder = world.model.decoder.clone();
        let (mut sum, mut n) = (0.0, 0);
        for (prompt, text) in prompts.iter().zip(&greedy) {
            let whole: Vec<u32> = prompt.iter().chain(&text.tokens).copied().collect();
            let losses = decoder.losses(&mut world.model.model, &whole, 64, 63);
            let losses = losses.expect("losses");
            sum += losses[prompt.len() - 1..].iter().sum::<f64>();
            n += text.tokens.len();
        }
        let perplexity = (sum / f64::from(n as u32)).exp();
        assert!((measured.perplexity / perplexity - 1.0).abs() < 1e-5);
        let tokens = f64::from(n as u32) / prompts.len() as f64;
        assert!((measured.tokens - tokens).abs() < 1e-12);
        let ended = greedy.iter().filter(|text| text.tokens.len() < 20).count();
        let early = ended as f64 / prompts.len() as f64;
        assert!((measured.early_ends - early).abs() < 1e-12);
    }
}
