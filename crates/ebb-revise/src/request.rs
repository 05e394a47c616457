//! What somebody asks to be forgotten.
//!
//! Written in TOML or JSON:
//! ```toml
//! format_version = 1
//! ground = "person"                 # person, licence, poisoned, wrong-label, or { other = "..." }
//! authority = "data protection officer, ticket 4711"
//! deadline = "2027-01-31"           # or "2027-01-31T12:00:00Z"; may be left out
//!
//! [[forget]]
//! ids = ["00112233445566778899aabbccddeeff-0-0"]
//! [[forget]]
//! text = "The whole text of the record."
//! near = 0.8                        # and whose shingles of words have this Jaccard similarity
//! verbatim = 80                     # and which share a passage of so many bytes
//! [[forget]]
//! vector = [0.0, 0.5, 1.0]
//! within = 0.1                      # and which lie within this Euclidean distance
//! [[forget]]
//! class = 3
//! [[forget]]
//! concept = { name = "Jane Doe", phrases = ["Jane Doe", "J. Doe"], patterns = ['\bDoe, J\w*'] }
//! ```
//! A record is meant if any selection means it. A request holds what is to be forgotten: nothing
//! in this crate writes it anywhere, and whoever keeps it until it is done removes it then.

use ebb_record::ledger::{self, Entry, NameKey, RequestId};
use ebb_space::ExampleId;
use regex::{RegexSet, RegexSetBuilder};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The newest version of requests that this program reads.
pub const REQUEST_VERSION: u32 = 1;

/// The most bytes of one text that near-duplicates or passages are looked for of.
pub const LARGEST_CONTENT: usize = 4 << 20;

/// The shortest passage that counts as an overlap, in bytes.
const SHORTEST_PASSAGE: usize = 8;

/// What is to be forgotten, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Why.
    pub ground: Ground,
    /// Whose authority it rests on.
    pub authority: String,
    /// By when it must be done, in seconds since 1970.
    pub deadline: Option<u64>,
    /// What; at least one selection.
    pub forget: Vec<Select>,
}

/// Why records are to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ground {
    /// A person asked.
    Person,
    /// A licence was withdrawn.
    Licence,
    /// The records were planted to do harm.
    Poisoned,
    /// Their labels are wrong.
    WrongLabel,
    /// Another one, in words.
    Other(String),
}

impl Ground {
    /// As the ledger has it: without words.
    pub fn kind(&self) -> ledger::Ground {
        match self {
            Ground::Person => ledger::Ground::Person,
            Ground::Licence => ledger::Ground::Licence,
            Ground::Poisoned => ledger::Ground::Poisoned,
            Ground::WrongLabel => ledger::Ground::WrongLabel,
            Ground::Other(_) => ledger::Ground::Other,
        }
    }
}

/// One way of saying which records are meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Select {
    /// These records, through whatever view.
    Ids(Vec<ExampleId>),
    /// Records with this text, and with what is like it.
    Text {
        /// The text.
        text: String,
        /// The least Jaccard similarity of shingles, in [0.1, 1].
        near: Option<f64>,
        /// The least number of bytes of a passage in common.
        verbatim: Option<usize>,
    },
    /// Records with these values, and with what is near them.
    Vector {
        /// The values.
        vector: Vec<f32>,
        /// The greatest Euclidean distance.
        within: Option<f64>,
    },
    /// Every record with this label.
    Class(u32),
    /// Every text that speaks of this.
    Concept(Concept),
}

/// A named set of patterns.
#[derive(Clone, Debug)]
pub struct Concept {
    /// What it is called.
    pub name: String,
    patterns: RegexSet,
}

impl Concept {
    /// A concept that a text speaks of if it holds one of the phrases, as whole words and in
    /// upper or lower case, or matches one of the patterns (the `regex` crate's syntax).
    ///
    /// # Errors
    /// In words, if there is none or one of the patterns cannot be read.
    pub fn new(
        name: &str,
        phrases: &[String],
        patterns: &[String],
    ) -> std::result::Result<Concept, String> {
        if phrases
            .iter()
            .chain(patterns)
            .all(|text| text.trim().is_empty())
        {
            return Err("a concept needs `phrases` or `patterns`".into());
        }
        if phrases
            .iter()
            .chain(patterns)
            .any(|text| text.trim().is_empty())
        {
            return Err("an empty phrase or pattern would match every text".into());
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let phrases = phrases.iter().map(|phrase| {
            let bound = |c: Option<char>| if c.is_some_and(is_word) { r"\b" } else { "" };
            let (begin, end) = (phrase.chars().next(), phrase.chars().next_back());
            format!(
                "(?i){}{}{}",
                bound(begin),
                regex::escape(phrase),
                bound(end)
            )
        });
        let set = RegexSetBuilder::new(phrases.chain(patterns.iter().cloned()))
            .size_limit(64 << 20)
            .build()
            .map_err(|e| e.to_string())?;
        if set.is_match("") {
            return Err("one of the patterns matches the empty text, and so every text".into());
        }
        Ok(Concept {
            name: name.into(),
            patterns: set,
        })
    }

    /// The first of its phrases and patterns, phrases first, that the text holds.
    pub fn find(&self, text: &str) -> Option<usize> {
        self.patterns.matches(text).iter().next()
    }
}

impl PartialEq for Concept {
    fn eq(&self, other: &Concept) -> bool {
        (&self.name, self.patterns.patterns()) == (&other.name, other.patterns.patterns())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    format_version: u32,
    ground: Ground,
    authority: String,
    deadline: Option<String>,
    forget: Vec<UncheckedSelect>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedSelect {
    ids: Option<Vec<ExampleId>>,
    text: Option<String>,
    near: Option<f64>,
    verbatim: Option<usize>,
    vector: Option<Vec<f32>>,
    within: Option<f64>,
    class: Option<u32>,
    concept: Option<UncheckedConcept>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedConcept {
    name: String,
    #[serde(default)]
    phrases: Vec<String>,
    #[serde(default)]
    patterns: Vec<String>,
}

impl Request {
    /// Reads a request from TOML.
    ///
    /// # Errors
    /// [`Error::NotARequest`], [`Error::Select`].
    pub fn from_toml(text: &str) -> Result<Request> {
        // Without the line itself, which would copy content into a message.
        let unchecked = toml::from_str(text).map_err(|e: toml::de::Error| {
            let place = e
                .span()
                .map(|span| text[..span.start.min(text.len())].lines().count());
            let place = place.map_or(String::new(), |line| format!("line {}: ", line.max(1)));
            Error::NotARequest(format!("{place}{}", e.message()))
        })?;
        Request::check(unchecked)
    }

    /// Reads a request from JSON.
    ///
    /// # Errors
    /// [`Error::NotARequest`], [`Error::Select`].
    pub fn from_json(text: &str) -> Result<Request> {
        let unchecked =
            serde_json::from_str(text).map_err(|e| Error::NotARequest(e.to_string()))?;
        Request::check(unchecked)
    }

    fn check(unchecked: Unchecked) -> Result<Request> {
        let wrong = |why: String| Err(Error::NotARequest(why));
        if unchecked.format_version != REQUEST_VERSION {
            let found = unchecked.format_version;
            return wrong(format!(
                "it has format version {found}, and this program reads {REQUEST_VERSION}"
            ));
        }
        if unchecked.authority.trim().is_empty() {
            return wrong("`authority` is empty: say on whose word the records go".into());
        }
        if matches!(&unchecked.ground, Ground::Other(words) if words.trim().is_empty()) {
            return wrong("`ground = { other = ... }` needs words".into());
        }
        if unchecked.forget.is_empty() {
            return wrong("it names nothing: add a `[[forget]]`".into());
        }
        let deadline = unchecked.deadline.as_deref();
        let deadline = deadline.map(|text| {
            seconds(text).ok_or_else(|| {
                Error::NotARequest(format!(
                    "`deadline = {text:?}` is no time: write \"2027-01-31\" or \
                     \"2027-01-31T12:00:00Z\""
                ))
            })
        });
        let forget = unchecked
            .forget
            .into_iter()
            .enumerate()
            .map(|(index, select)| select.check().map_err(|why| Error::Select { index, why }));
        Ok(Request {
            ground: unchecked.ground,
            authority: unchecked.authority,
            deadline: deadline.transpose()?,
            forget: forget.collect::<Result<_>>()?,
        })
    }

    /// The request's name and its first entry in the ledger, for the text it was read from and
    /// the time it came in. One text at one time has one name.
    pub fn submitted(&self, key: &NameKey, text: &str, received: u64) -> (RequestId, Entry) {
        let request = key.request(text.as_bytes(), received);
        let entry = Entry::Submitted {
            request,
            ground: self.ground.kind(),
            deadline: self.deadline,
            authority: key.text(&self.authority),
        };
        (request, entry)
    }
}

impl UncheckedSelect {
    fn check(self) -> std::result::Result<Select, String> {
        let named = [
            self.ids.is_some(),
            self.text.is_some(),
            self.vector.is_some(),
            self.class.is_some(),
            self.concept.is_some(),
        ];
        if named.iter().filter(|named| **named).count() != 1 {
            return Err(
                "it needs exactly one of `ids`, `text`, `vector`, `class`, `concept`".into(),
            );
        }
        if self.text.is_none() && (self.near.is_some() || self.verbatim.is_some()) {
            return Err("`near` and `verbatim` belong to `text`".into());
        }
        if self.vector.is_none() && self.within.is_some() {
            return Err("`within` belongs to `vector`".into());
        }
        if let Some(ids) = self.ids {
            return match ids.is_empty() {
                true => Err("`ids` is empty".into()),
                false => Ok(Select::Ids(ids)),
            };
        }
        if let Some(text) = self.text {
            if text.is_empty() {
                return Err("`text` is empty".into());
            }
            if self.near.is_some_and(|near| !(0.1..=1.0).contains(&near)) {
                return Err("`near` must be a similarity from 0.1 to 1".into());
            }
            if self.verbatim.is_some_and(|bytes| bytes < SHORTEST_PASSAGE) {
                return Err(format!(
                    "`verbatim` must be at least {SHORTEST_PASSAGE} bytes: shorter passages are \
                     shared by chance"
                ));
            }
            let looks = self.near.is_some() || self.verbatim.is_some();
            if looks && text.len() > LARGEST_CONTENT {
                return Err(format!(
                    "`text` has {} bytes, and near-duplicates are looked for of at most \
                     {LARGEST_CONTENT}: give it in parts",
                    text.len()
                ));
            }
            return Ok(Select::Text {
                text,
                near: self.near,
                verbatim: self.verbatim,
            });
        }
        if let Some(vector) = self.vector {
            if vector.is_empty() || vector.iter().any(|value| !value.is_finite()) {
                return Err("`vector` must hold finite numbers".into());
            }
            if self.within.is_some_and(|d| !(d.is_finite() && d >= 0.0)) {
                return Err("`within` must be a distance, 0 or more".into());
            }
            return Ok(Select::Vector {
                vector,
                within: self.within,
            });
        }
        if let Some(class) = self.class {
            return Ok(Select::Class(class));
        }
        match self.concept {
            Some(c) => Concept::new(&c.name, &c.phrases, &c.patterns).map(Select::Concept),
            None => Err("it names nothing".into()),
        }
    }
}

/// Seconds since 1970 of `YYYY-MM-DD` (its end) or `YYYY-MM-DDTHH:MM:SSZ`; `None` for any other.
fn seconds(text: &str) -> Option<u64> {
    let (date, time) = match text.strip_suffix('Z') {
        Some(text) => text.split_once('T')?,
        None => (text, "23:59:59"),
    };
    let parts = |text: &str, by: char, widths: [usize; 3]| {
        let parts: Vec<&str> = text.split(by).collect();
        let fits = |(part, width): (&&str, usize)| {
            part.len() == width && part.bytes().all(|c| c.is_ascii_digit())
        };
        if parts.len() != 3 || !parts.iter().zip(widths).all(fits) {
            return None;
        }
        let number = |i: usize| parts[i].parse::<u64>().ok();
        Some([number(0)?, number(1)?, number(2)?])
    };
    let [year, month, day] = parts(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = parts(time, ':', [2, 2, 2])?;
    let leap = |y: u64| (y.is_multiple_of(4) && !y.is_multiple_of(100)) || y.is_multiple_of(400);
    let lengths = [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let length = *lengths.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if year < 1970 || !(1..=length).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let years: u64 = (1970..year).map(|y| 365 + u64::from(leap(y))).sum();
    let months: u64 = lengths[..month as usize - 1].iter().sum();
    Some((((years + months + day - 1) * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_system_tool() {
        // `date -u -d TEXT +%s`
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:34:56Z", Some(951_827_696)),
            ("2027-01-31", Some(1_801_439_999)),
            ("2100-03-01T00:00:00Z", Some(4_107_542_400)),
            ("2026-02-29", None),
            ("2100-02-29", None),
            ("2026-13-01", None),
            ("2026-00-10", None),
            ("2026-1-1", None),
            ("2026-01-01T24:00:00Z", None),
            ("2026-01-01T00:00:00", None),
            ("1969-12-31", None),
            ("+026-01-01", None),
            ("soon", None),
            ("Z", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    const HEAD: &str = "format_version = 1\nground = 'person'\nauthority = 'a'\n";

    #[test]
    fn every_kind_of_selection_is_read_and_json_says_the_same() {
        let id = ExampleId::of(b"x", 0);
        let toml = format!(
            "format_version = 1\nground = {{ other = 'a court' }}\nauthority = 'a'\n\
             deadline = '2027-01-31'\n[[forget]]\nids = ['{id}']\n\
             [[forget]]\ntext = 't'\nnear = 0.8\nverbatim = 50\n\
             [[forget]]\nvector = [0.5, 1]\nwithin = 0.1\n[[forget]]\nclass = 3\n\
             [[forget]]\nconcept = {{ name = 'n', phrases = ['a b'], patterns = ['c+'] }}\n"
        );
        let request = Request::from_toml(&toml).unwrap();
        assert_eq!(request.ground, Ground::Other("a court".into()));
        assert_eq!(request.deadline, Some(1_801_439_999));
        assert_eq!(request.forget.len(), 5);
        assert_eq!(request.forget[0], Select::Ids(vec![id]));
        let value: toml::Value = toml::from_str(&toml).unwrap();
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(Request::from_json(&json).unwrap(), request);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |rest: &str| {
            Request::from_toml(&format!("{HEAD}{rest}"))
                .unwrap_err()
                .to_string()
        };
        for (rest, word) in [
            ("", "forget"),
            ("forget = []", "names nothing"),
            ("[[forget]]", "exactly one"),
            ("[[forget]]\nclass = 1\nids = []", "exactly one"),
            ("[[forget]]\nids = []", "is empty"),
            ("[[forget]]\nids = ['x']", "line 5"),
            ("[[forget]]\nclass = 1\n[[forget]]\ntext = ''", "forget[1]"),
            ("[[forget]]\ntext = 'a'\nnear = 1.5", "0.1 to 1"),
            ("[[forget]]\ntext = 'a'\nnear = nan", "0.1 to 1"),
            ("[[forget]]\ntext = 'a'\nverbatim = 3", "by chance"),
            ("[[forget]]\nclass = 1\nnear = 0.5", "belong to `text`"),
            (
                "[[forget]]\ntext = 'a'\nwithin = 0.5",
                "belongs to `vector`",
            ),
            ("[[forget]]\nvector = [nan]", "finite"),
            ("[[forget]]\nvector = [1]\nwithin = -1", "0 or more"),
            ("[[forget]]\nclass = 1\ncolour = 2", "colour"),
            ("[[forget]]\nconcept = { name = 'n' }", "needs `phrases`"),
            (
                "[[forget]]\nconcept = { name = 'n', patterns = ['('] }",
                "unclosed",
            ),
            (
                "[[forget]]\nconcept = { name = 'n', patterns = ['a*'] }",
                "every text",
            ),
            (
                "[[forget]]\nconcept = { name = 'n', phrases = [' '] }",
                "needs `phrases`",
            ),
            ("deadline = 'soon'\n[[forget]]\nclass = 1", "is no time"),
        ] {
            assert!(said(rest).contains(word), "{rest}: {}", said(rest));
        }
        let newer = HEAD.replace("= 1", "= 2") + "[[forget]]\nclass = 1";
        assert!(
            Request::from_toml(&newer)
                .unwrap_err()
                .to_string()
                .contains("version 2")
        );
        let nobody = HEAD.replace("'a'", "' '") + "[[forget]]\nclass = 1";
        assert!(
            Request::from_toml(&nobody)
                .unwrap_err()
                .to_string()
                .contains("whose word")
        );
        let ground = HEAD.replace("'person'", "'whim'") + "[[forget]]\nclass = 1";
        assert!(
            Request::from_toml(&ground)
                .unwrap_err()
                .to_string()
                .contains("wrong-label")
        );
        let large = "a".repeat(LARGEST_CONTENT + 1);
        let large = format!("[[forget]]\ntext = '{large}'\nnear = 0.5");
        assert!(said(&large).contains("in parts"));
        // A message does not copy the line it is about.
        let broken = format!("{HEAD}[[forget]]\ntext = \"Jane Doe\nclass = 1");
        assert!(
            !Request::from_toml(&broken)
                .unwrap_err()
                .to_string()
                .contains("Jane")
        );
    }

    #[test]
    fn phrases_are_whole_words_in_any_case() {
        let phrases = ["Jane Doe".to_owned(), "C++".to_owned(), "Straße".to_owned()];
        let concept = Concept::new("n", &phrases, &[r"\bD\.".to_owned()]).unwrap();
        for (text, found) in [
            ("then JANE DOE left", Some(0)),
            ("Jane Does it", None),
            ("in C++, of course", Some(1)),
            ("die STRASSE", None), // folding is by character
            ("die STRAßE", Some(2)),
            ("by D. Knuth", Some(3)),
            ("", None),
        ] {
            assert_eq!(concept.find(text), found, "{text}");
        }
    }
}
