//! An example of text, and who it is.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ebb_hub::Message;
use ebb_space::{ExampleId, Key};
use serde_json::Value;

/// Where in a file a record stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// How its records are counted.
    pub unit: Unit,
    /// The number, from 1.
    pub number: u64,
}

/// How the records of a file are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// By lines; a document of plain text is named by its first.
    Line,
    /// By rows.
    Row,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Line => "line",
            Unit::Row => "row",
        };
        write!(f, "`{}`, {unit} {}", self.file.display(), self.number)
    }
}

/// What an example says.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A text for continued pre-training.
    Document(String),
    /// A prompt and what should follow it.
    Completion {
        /// What is given.
        prompt: String,
        /// What is learnt; with the space that parts it from the prompt, if there is one.
        completion: String,
    },
    /// A conversation.
    Chat(Vec<Message>),
}

impl Body {
    /// The bytes that the id is made from: a tag, then every text with its length before it, so
    /// that no two bodies share them.
    fn content(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Body::Document(text) => {
                out.push(b'd');
                put(&mut out, text);
            }
            Body::Completion { prompt, completion } => {
                out.push(b'c');
                put(&mut out, prompt);
                put(&mut out, completion);
            }
            Body::Chat(messages) => {
                out.push(b'm');
                for message in messages {
                    put(&mut out, &message.role);
                    put(&mut out, &canonical(&message.content).to_string());
                    let more = canonical(&Value::Object(message.more.clone()));
                    put(&mut out, &more.to_string());
                }
            }
        }
        out
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The same value whatever order its keys were written in.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(canonical).collect(),
        Value::Object(map) => {
            let mut items: Vec<_> = map.iter().collect();
            items.sort_by_key(|(key, _)| *key);
            let items = items.into_iter().map(|(k, v)| (k.clone(), canonical(v)));
            Value::Object(items.collect())
        }
        other => other.clone(),
    }
}

/// An example of text.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Who it is: its content and which of its equals, never where it stood.
    pub id: ExampleId,
    /// What it says.
    pub body: Body,
    /// Where it was read, for messages.
    pub place: Option<Place>,
}

impl Example {
    /// The first example that says this.
    pub fn new(body: Body) -> Example {
        Example {
            id: ExampleId::of(&body.content(), 0),
            body,
            place: None,
        }
    }

    /// A text.
    pub fn document(text: impl Into<String>) -> Example {
        Example::new(Body::Document(text.into()))
    }

    /// A prompt and what should follow it.
    pub fn completion(prompt: impl Into<String>, completion: impl Into<String>) -> Example {
        Example::new(Body::Completion {
            prompt: prompt.into(),
            completion: completion.into(),
        })
    }

    /// A conversation.
    pub fn chat(messages: Vec<Message>) -> Example {
        Example::new(Body::Chat(messages))
    }

    /// How a message names it: where it was read, or its id.
    pub fn name(&self) -> String {
        match &self.place {
            Some(place) => place.to_string(),
            None => format!("example {}", self.id),
        }
    }
}

/// Numbers equal records in the order in which they come.
#[derive(Clone, Debug, Default)]
pub struct Occurrences(HashMap<[u8; 16], u32>);

impl Occurrences {
    /// This id as the next of its equals.
    pub fn number(&mut self, id: ExampleId) -> ExampleId {
        let next = self.0.entry(id.base).or_insert(0);
        let numbered = id.with_occurrence(*next);
        *next += 1;
        numbered
    }
}

/// Shuffles examples by their ids: taking one away leaves the order of the others as it was.
pub fn shuffle(examples: &mut [Example], key: Key) {
    key.order(examples, |example| example.id.mix());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_of_the_content_alone() {
        let ids = [
            Example::document("ab").id,
            Example::completion("a", "b").id,
            Example::completion("ab", "").id,
            Example::completion("", "ab").id,
            Example::chat(vec![Message::new("a", "b")]).id,
            Example::chat(vec![Message::new("a", "b"), Message::new("a", "b")]).id,
        ];
        for (i, a) in ids.iter().enumerate() {
            assert!(ids[i + 1..].iter().all(|b| a.base != b.base), "{i}");
        }
        let read = |json: &str| {
            let messages: Vec<Message> = serde_json::from_str(json).expect("messages");
            Example::chat(messages).id
        };
        assert_eq!(
            read(r#"[{"role":"a","content":"b","x":{"p":1,"q":[{"r":2,"s":3}]}}]"#),
            read(r#"[{"x":{"q":[{"s":3,"r":2}],"p":1},"content":"b","role":"a"}]"#),
        );
    }

    #[test]
    fn ids_are_frozen() {
        // Recorded outcomes and deletion requests name these: a change here orphans them.
        let ids = [
            Example::document("A text.").id,
            Example::completion("One plus one is", " two.").id,
            Example::chat(vec![
                Message::new("user", "hi"),
                Message::new("assistant", "ho"),
            ])
            .id,
        ];
        assert_eq!(ids.map(|id| id.to_string()), FROZEN);
    }
    const FROZEN: [&str; 3] = [
        "69fc9ba02cc9305a979a4073fa79c884-0-0",
        "4b545f4a5316557d4760e90af208e018-0-0",
        "2075de213fe049a2cf331349ef0b3425-0-0",
    ];

    #[test]
    fn a_removed_example_leaves_the_order_of_the_others() {
        let mut all: Vec<Example> = (0..50).map(|i| Example::document(i.to_string())).collect();
        let mut less: Vec<Example> = all.iter().rev().cloned().collect();
        less.retain(|e| e.body != Body::Document("7".into()));
        let key = Key::new(3, "order");
        shuffle(&mut all, key);
        shuffle(&mut less, key);
        all.retain(|e| e.body != Body::Document("7".into()));
        assert_eq!(all, less);
    }
}
