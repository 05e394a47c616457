//! Examples as tokens, and which of them are learnt.

use ebb_hub::{ChatOptions, ChatTemplate, Message, Tokenizer};
use ebb_space::ExampleId;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::example::{Body, Example};

/// Which tokens of prompts and chats are learnt; of a document all are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Learn {
    /// The completion; in a chat, what the assistant says and the token that ends it.
    #[default]
    Answers,
    /// The prompt, and what others say, as well.
    Everything,
}

/// What happens to a sequence that is longer than fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TooLong {
    /// [`Error::TooLong`], which names the example.
    #[default]
    Refuse,
    /// Its last tokens are cut off; an error where no answer would be left.
    CutEnd,
    /// Its first tokens are cut off (but not the token that begins every text); an error where no
    /// answer would be left.
    CutStart,
    /// Documents become consecutive pieces, each a sequence of its own; others are refused.
    Split,
}

/// How examples become tokens.
#[derive(Clone, Debug)]
pub struct Encoding {
    /// The most tokens of a sequence: not more than the model's context.
    pub length: usize,
    /// Which tokens are learnt.
    pub learn: Learn,
    /// What happens to longer sequences.
    pub too_long: TooLong,
    /// Whether documents and completions end with the token that ends a text, so that the model
    /// learns to stop. Chats end as their template has it.
    pub end: bool,
    /// For the chat template; `add_generation_prompt` is set by the encoder, and `now` should be
    /// said where the template writes the date.
    pub chat: ChatOptions,
}

impl Encoding {
    /// Sequences of at most `length` tokens that learn answers, end, and refuse what is longer.
    pub fn new(length: usize) -> Encoding {
        Encoding {
            length,
            learn: Learn::default(),
            too_long: TooLong::default(),
            end: true,
            chat: ChatOptions::default(),
        }
    }
}

/// An example, or a piece of one, as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Whose tokens these are.
    pub id: ExampleId,
    /// Which piece of a document that was split, from 0.
    pub piece: u32,
    /// Token ids.
    pub tokens: Vec<u32>,
    /// For each token whether to predict it is learnt; never for the first, which nothing
    /// predicts.
    pub learn: Vec<bool>,
}

/// Turns examples into [`Sequence`]s.
///
/// A prompt and its completion are tokenised apart, and so are the parts of a chat: what a model
/// is asked to continue at the time of use is then token for token what it was trained to
/// continue.
#[derive(Clone, Debug)]
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    /// The template, or why there is none.
    template: std::result::Result<ChatTemplate, String>,
    encoding: Encoding,
    /// What the tokenizer puts before and behind every text.
    before: Vec<u32>,
    eos: Option<u32>,
    /// Whether the tokenizer puts a space before every text that it is given.
    adds_space: bool,
}

impl<'a> Encoder<'a> {
    /// The encoder of a model's tokenizer and, where it has one, its chat template.
    ///
    /// # Errors
    /// [`Error::Setting`] for fewer than two tokens, or where texts should end and no token ends
    /// them; [`Error::Hub`]. A missing or invalid template is an error of the first chat.
    pub fn new(tokenizer: &'a Tokenizer, encoding: Encoding) -> Result<Encoder<'a>> {
        if encoding.length < 2 {
            let what = "a sequence of fewer than two tokens has nothing to predict".to_owned();
            return Err(Error::Setting(what));
        }
        let eos = tokenizer
            .special()
            .eos
            .as_deref()
            .and_then(|eos| tokenizer.id(eos));
        if encoding.end && eos.is_none() {
            let what = "the tokenizer does not say which token ends a text: set `eos_token` in \
                        its `tokenizer_config.json`, or choose not to end texts";
            return Err(Error::Setting(what.into()));
        }
        let mut before = tokenizer.encode("", true)?;
        if before.last().is_some_and(|&last| Some(last) == eos)
            && tokenizer.special().bos != tokenizer.special().eos
        {
            before.pop();
        }
        let apart = [
            tokenizer.encode("\n", false)?,
            tokenizer.encode("a", false)?,
        ]
        .concat();
        Ok(Encoder {
            template: tokenizer.chat().map_err(|e| e.to_string()),
            adds_space: apart != tokenizer.encode("\na", false)?,
            tokenizer,
            encoding,
            before,
            eos,
        })
    }

    /// The same with this chat template in the place of the model's.
    #[must_use]
    pub fn with_template(self, template: ChatTemplate) -> Encoder<'a> {
        Encoder {
            template: Ok(template),
            ..self
        }
    }

    /// The tokens of an example: one sequence, or several where a document is split.
    ///
    /// # Errors
    /// [`Error::Example`] for a chat without a template, or whose template cannot be learnt from
    /// turn by turn, and for what has no token to learn; [`Error::TooLong`]; [`Error::Hub`].
    pub fn encode(&self, example: &Example) -> Result<Vec<Sequence>> {
        let parts = match &example.body {
            Body::Document(text) => vec![(self.tokenizer.encode(text, false)?, true)],
            Body::Completion { prompt, completion } => {
                let completion = match prompt.is_empty() {
                    true => self.tokenizer.encode(completion, false)?,
                    false => self.continued(completion)?,
                };
                vec![
                    (self.tokenizer.encode(prompt, false)?, false),
                    (completion, true),
                ]
            }
            Body::Chat(messages) => self.chat(example, messages)?,
        };
        let mut tokens = Vec::new();
        let mut learn = Vec::new();
        let is_chat = matches!(example.body, Body::Chat(_));
        // A template writes the first token itself, or means that there is none.
        if !is_chat {
            tokens.extend(&self.before);
        }
        learn.resize(tokens.len(), false);
        for (part, is_answer) in parts {
            learn.resize(
                learn.len() + part.len(),
                is_answer || self.encoding.learn == Learn::Everything,
            );
            tokens.extend(part);
        }
        if let Some(eos) = self.eos
            && self.encoding.end
            && !is_chat
        {
            tokens.push(eos);
            learn.push(true);
        }
        self.fit(example, tokens, learn)
    }

    /// Tokens of a text that goes on where another ended.
    fn continued(&self, text: &str) -> Result<Vec<u32>> {
        if self.adds_space {
            // Behind a line's end no space is added.
            let end = self.tokenizer.encode("\n", false)?;
            let both = self.tokenizer.encode(&format!("\n{text}"), false)?;
            if let Some(rest) = both.strip_prefix(&end[..]) {
                return Ok(rest.to_vec());
            }
        }
        Ok(self.tokenizer.encode(text, false)?)
    }

    /// The parts of a chat, and which of them are answers.
    ///
    /// The template is rendered up to where each answer begins and up to where it ends: what it
    /// wrote between is the answer.
    fn chat(&self, example: &Example, messages: &[Message]) -> Result<Vec<(Vec<u32>, bool)>> {
        let wrong = |what: String| Error::Example {
            example: example.name(),
            what,
        };
        let template = self.template.as_ref();
        let template = template.map_err(|why| wrong(format!("it is a chat, and {why}")))?;
        let render = |messages: &[Message], begin: bool| {
            let options = ChatOptions {
                add_generation_prompt: begin,
                ..self.encoding.chat.clone()
            };
            let text = template.render(messages, &options);
            text.map_err(|e| wrong(e.to_string()))
        };
        let whole = render(messages, false)?;
        let mut parts = Vec::new();
        let mut at = 0;
        for (i, _) in messages
            .iter()
            .enumerate()
            .filter(|(_, m)| m.role == "assistant")
        {
            let begin = render(&messages[..i], true)?;
            let end = render(&messages[..=i], false)?;
            let follows = begin.len() >= at
                && end.len() > begin.len()
                && end.starts_with(&begin)
                && whole.starts_with(&end);
            if !follows {
                return Err(wrong(format!(
                    "the chat template does not write turn {} the same way when it comes last, so \
                     what the assistant said cannot be told from the rest: split the conversation \
                     into one example an answer, or name another template",
                    i + 1
                )));
            }
            parts.push((self.part(&whole[at..begin.len()], at)?, false));
            parts.extend(self.answer(&whole[begin.len()..end.len()])?);
            at = end.len();
        }
        parts.push((self.part(&whole[at..], at)?, false));
        Ok(parts)
    }

    fn part(&self, text: &str, at: usize) -> Result<Vec<u32>> {
        match at {
            0 => Ok(self.tokenizer.encode(text, false)?),
            _ => self.continued(text),
        }
    }

    /// An answer, and apart what the template writes behind the token that ends it: a model is
    /// stopped there.
    fn answer(&self, text: &str) -> Result<[(Vec<u32>, bool); 2]> {
        let mut answer = self.continued(text)?;
        let end = answer.iter().rposition(|&token| Some(token) == self.eos);
        let rest = answer.split_off(end.map_or(answer.len(), |at| at + 1));
        Ok([(answer, true), (rest, false)])
    }

    fn fit(
        &self,
        example: &Example,
        mut tokens: Vec<u32>,
        mut learn: Vec<bool>,
    ) -> Result<Vec<Sequence>> {
        let length = self.encoding.length;
        let is_document = matches!(example.body, Body::Document(_));
        if tokens.len() > length {
            match self.encoding.too_long {
                TooLong::CutEnd => {
                    tokens.truncate(length);
                    learn.truncate(length);
                }
                TooLong::CutStart => {
                    let begins = tokens.starts_with(&self.before);
                    let kept = if begins { self.before.len() } else { 0 }.min(length - 1);
                    let cut = kept..kept + tokens.len() - length;
                    tokens.drain(cut.clone());
                    learn.drain(cut);
                }
                TooLong::Split if is_document => {}
                TooLong::Refuse | TooLong::Split => {
                    return Err(Error::TooLong {
                        example: example.name(),
                        tokens: tokens.len(),
                        length,
                    });
                }
            }
        }
        if !learn.iter().skip(1).any(|&l| l) {
            return Err(Error::Example {
                example: example.name(),
                what: format!(
                    "it has no token to learn within {length}: allow longer sequences or remove it"
                ),
            });
        }
        let pieces = tokens.chunks(length).zip(learn.chunks(length));
        let sequence = |(piece, (tokens, learn)): (usize, (&[u32], &[bool]))| {
            let mut learn = learn.to_vec();
            learn[0] = false;
            Sequence {
                id: example.id,
                piece: piece as u32,
                tokens: tokens.to_vec(),
                learn,
            }
        };
        Ok(pieces.enumerate().map(sequence).collect())
    }
}
