//! From a request to the records that it means, and why each is meant.

use std::collections::{BTreeMap, BTreeSet};

use ebb_record::ledger::{Entry, Refusal, RequestId};
use ebb_space::{ExampleId, Number};

use crate::error::{Error, Result};
use crate::near::{BLOCK, MinHash, Nearby, Overlap, Sample};
use crate::request::{Concept, Request, Select};

/// What a record holds, for comparing.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// A text.
    Text(&'a str),
    /// An image or features, as numbers.
    Vector(&'a [f32]),
}

/// A record of the dataset.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Who it is.
    pub id: ExampleId,
    /// Its label.
    pub label: u32,
    /// What it holds.
    pub content: Content<'a>,
}

/// Why a record is meant. `select` is the place in [`Request::forget`], from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    /// It was named.
    Id {
        /// By which selection.
        select: usize,
    },
    /// Its content is the same, byte for byte.
    Exact {
        /// By which selection.
        select: usize,
    },
    /// Its words are much the same.
    Near {
        /// By which selection.
        select: usize,
        /// The Jaccard similarity of the shingles.
        similarity: f64,
    },
    /// It shares a passage.
    Passage {
        /// By which selection.
        select: usize,
        /// Where the longest one begins in the record.
        begin: usize,
        /// Its length in bytes.
        bytes: usize,
    },
    /// Its values are close by.
    Close {
        /// By which selection.
        select: usize,
        /// The Euclidean distance.
        distance: f64,
    },
    /// It has the label.
    Class {
        /// By which selection.
        select: usize,
    },
    /// It speaks of the concept.
    Concept {
        /// By which selection.
        select: usize,
        /// By which of its phrases and patterns, phrases first.
        pattern: usize,
    },
}

/// A record that is meant.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// Who it is, as the dataset has it.
    pub id: ExampleId,
    /// Every reason.
    pub why: Vec<Why>,
}

/// What a request means in a dataset.
#[derive(Clone, Debug, Default)]
pub struct Matches {
    /// The records, in the order of the dataset.
    pub records: Vec<Match>,
    /// How many records were looked at.
    pub scanned: u64,
    /// Ids that were asked for and are not in the dataset.
    pub missing: Vec<ExampleId>,
    /// By selection with `near`: the probability that a record exactly at the threshold is
    /// missed; above it fewer are.
    pub missed: Vec<(usize, f64)>,
    /// By selection with `within`: how often two records of this dataset lie as close by chance.
    pub false_positives: Vec<(usize, Number)>,
}

impl Matches {
    /// How many are meant only because they are like what was asked for.
    pub fn near_duplicates(&self) -> u64 {
        let likeness = |why: &Why| {
            matches!(
                why,
                Why::Near { .. } | Why::Passage { .. } | Why::Close { .. }
            )
        };
        let of = self.records.iter().filter(|m| m.why.iter().all(likeness));
        of.count() as u64
    }
}

/// A request made ready to be looked for.
struct Search<'r> {
    /// Record -> (selection, whether it was found).
    ids: BTreeMap<ExampleId, (usize, bool)>,
    texts: Vec<(usize, &'r str)>,
    near: Vec<(usize, MinHash)>,
    passages: Vec<(usize, Overlap, usize)>,
    vectors: Vec<(usize, &'r [f32])>,
    nearby: Nearby,
    within: Vec<(usize, f64)>,
    classes: Vec<(usize, u32)>,
    concepts: Vec<(usize, &'r Concept)>,
}

impl<'r> Search<'r> {
    fn new(request: &'r Request) -> Search<'r> {
        let mut search = Search {
            ids: BTreeMap::new(),
            texts: Vec::new(),
            near: Vec::new(),
            passages: Vec::new(),
            vectors: Vec::new(),
            nearby: Nearby::default(),
            within: Vec::new(),
            classes: Vec::new(),
            concepts: Vec::new(),
        };
        for (select, what) in request.forget.iter().enumerate() {
            match what {
                Select::Ids(ids) => {
                    let records = ids.iter().map(|id| (id.with_view(0), (select, false)));
                    search.ids.extend(records);
                }
                Select::Text {
                    text,
                    near,
                    verbatim,
                } => {
                    search.texts.push((select, text));
                    if let Some(threshold) = near {
                        let index = MinHash::new(vec![text.clone()], *threshold);
                        search.near.push((select, index));
                    }
                    if let Some(least) = verbatim {
                        let overlap = Overlap::new(text.as_bytes());
                        search.passages.push((select, overlap, *least));
                    }
                }
                Select::Vector { vector, within } => {
                    search.vectors.push((select, vector));
                    if let Some(distance) = within {
                        search.nearby.add(select, vector.clone(), *distance);
                        search.within.push((select, *distance));
                    }
                }
                Select::Class(label) => search.classes.push((select, *label)),
                Select::Concept(concept) => search.concepts.push((select, concept)),
            }
        }
        search
    }

    /// Every reason but closeness, which is looked for in blocks.
    fn reasons(&mut self, record: &Record) -> Vec<Why> {
        let mut why = Vec::new();
        if let Some((select, found)) = self.ids.get_mut(&record.id.with_view(0)) {
            *found = true;
            why.push(Why::Id { select: *select });
        }
        for &(select, label) in &self.classes {
            if label == record.label {
                why.push(Why::Class { select });
            }
        }
        match record.content {
            Content::Text(text) => {
                let exact = |select: usize, why: &[Why]| why.contains(&Why::Exact { select });
                for &(select, asked) in &self.texts {
                    if asked == text {
                        why.push(Why::Exact { select });
                    }
                }
                for (select, index) in &self.near {
                    if let Some(&(_, similarity)) = index.like(text).first()
                        && !exact(*select, &why)
                    {
                        let select = *select;
                        why.push(Why::Near { select, similarity });
                    }
                }
                for (select, overlap, least) in &self.passages {
                    let (begin, bytes) = overlap.longest(text.as_bytes());
                    if bytes >= *least && !exact(*select, &why) {
                        let select = *select;
                        why.push(Why::Passage {
                            select,
                            begin,
                            bytes,
                        });
                    }
                }
                for &(select, concept) in &self.concepts {
                    if let Some(pattern) = concept.find(text) {
                        why.push(Why::Concept { select, pattern });
                    }
                }
            }
            Content::Vector(values) => {
                for &(select, asked) in &self.vectors {
                    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    if asked.len() == values.len() && bits(asked) == bits(values) {
                        why.push(Why::Exact { select });
                    }
                }
            }
        }
        why
    }
}

/// Finds the records of a dataset that a request means. The dataset is read once, record by
/// record; what is held is a block of vectors, a sample of them, and the matches.
///
/// # Errors
/// [`Error::Record`] for a vector with a number that is not finite: its distance to anything is
/// unknown. [`Error::Space`].
pub fn expand<'a>(
    request: &Request,
    dataset: impl IntoIterator<Item = Record<'a>>,
) -> Result<Matches> {
    let mut search = Search::new(request);
    let mut found: BTreeMap<u64, Match> = BTreeMap::new();
    let mut sample = Sample::new();
    let (mut block, mut places) = (Vec::new(), Vec::new());
    let mut scanned = 0;
    for record in dataset {
        let why = search.reasons(&record);
        if !why.is_empty() {
            let id = record.id;
            found.insert(scanned, Match { id, why });
        }
        if let (Content::Vector(values), false) = (record.content, search.nearby.is_empty()) {
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                return Err(Error::Record {
                    record: scanned,
                    why: format!("its value {at} is not a finite number"),
                });
            }
            sample.offer(&record.id, values);
            block.push(values.to_vec());
            places.push((scanned, record.id));
            if block.len() == BLOCK {
                near(&search.nearby, &mut block, &mut places, &mut found);
            }
        }
        scanned += 1;
    }
    near(&search.nearby, &mut block, &mut places, &mut found);
    let missing = search.ids.iter().filter(|(_, (_, found))| !found);
    let missed = search
        .near
        .iter()
        .map(|(select, index)| (*select, index.missed()));
    let mut false_positives = Vec::new();
    for (select, distance) in &search.within {
        if let Some(number) = sample.false_positives(*distance)? {
            false_positives.push((*select, number));
        }
    }
    Ok(Matches {
        records: found.into_values().collect(),
        scanned,
        missing: missing.map(|(id, _)| *id).collect(),
        missed: missed.collect(),
        false_positives,
    })
}

/// Looks for the records of a block that are close to what was asked for, and empties it.
fn near(
    nearby: &Nearby,
    block: &mut Vec<Vec<f32>>,
    places: &mut Vec<(u64, ExampleId)>,
    found: &mut BTreeMap<u64, Match>,
) {
    nearby.search(block, |row, select, distance| {
        let (place, id) = places[row];
        let why = &mut found.entry(place).or_insert(Match { id, why: vec![] }).why;
        if !why.contains(&Why::Exact { select }) {
            why.push(Why::Close { select, distance });
        }
    });
    block.clear();
    places.clear();
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// These records are to be erased.
    Accepted {
        /// Which, as the dataset has them.
        records: Vec<ExampleId>,
        /// Which were meant and are kept, since a law asks for them: the law, in the words given.
        kept: Vec<(ExampleId, String)>,
    },
    /// Nothing is done.
    Refused {
        /// Why not.
        because: Refusal,
        /// How many records were meant.
        records: u64,
        /// To whom it may concern, in words.
        says: String,
    },
}

impl Decision {
    /// The entries in the ledger that tell of refusing, wholly or in part.
    pub fn refusals(&self, request: RequestId) -> Vec<Entry> {
        match self {
            Decision::Refused {
                because, records, ..
            } => vec![Entry::Refused {
                request,
                because: *because,
                records: *records,
            }],
            Decision::Accepted { kept, .. } if kept.is_empty() => vec![],
            Decision::Accepted { kept, .. } => vec![Entry::Refused {
                request,
                because: Refusal::RequiredByLaw,
                records: kept.len() as u64,
            }],
        }
    }
}

/// Accepts a request or refuses it, at the time `now` in seconds since 1970. `required` are the
/// records that a law asks to be kept, with the law; whoever runs the system says so.
pub fn decide(
    request: &Request,
    matches: &Matches,
    now: u64,
    required: &BTreeMap<ExampleId, String>,
) -> Decision {
    let meant = matches.records.len() as u64;
    let refused = |because, says: String| Decision::Refused {
        because,
        records: meant,
        says,
    };
    if meant == 0 {
        let missing = matches.missing.len();
        return refused(
            Refusal::NothingMatched,
            format!(
                "none of the {} records looked at is meant{}",
                matches.scanned,
                match missing {
                    0 => String::new(),
                    _ => format!("; {missing} ids that were named are not among them"),
                }
            ),
        );
    }
    if let Some(deadline) = request.deadline.filter(|deadline| *deadline < now) {
        return refused(
            Refusal::DeadlinePast,
            format!(
                "the deadline passed {} s before: ask again with a new one, the duty itself has \
                 not passed",
                now - deadline
            ),
        );
    }
    let laws: BTreeMap<ExampleId, &String> = required
        .iter()
        .map(|(id, law)| (id.with_view(0), law))
        .collect();
    let (mut records, mut kept) = (Vec::new(), Vec::new());
    for record in &matches.records {
        match laws.get(&record.id.with_view(0)) {
            Some(law) => kept.push((record.id, (*law).clone())),
            None => records.push(record.id),
        }
    }
    if records.is_empty() {
        let laws: BTreeSet<&str> = kept.iter().map(|(_, law)| law.as_str()).collect();
        let laws: Vec<&str> = laws.into_iter().collect();
        return refused(
            Refusal::RequiredByLaw,
            format!(
                "every record that is meant must be kept: {}",
                laws.join("; ")
            ),
        );
    }
    Decision::Accepted { records, kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(forget: &str) -> Request {
        let head =
            "format_version = 1\nground = 'person'\nauthority = 'a'\ndeadline = '2027-01-31'\n";
        Request::from_toml(&format!("{head}{forget}")).unwrap()
    }

    const TEXTS: [&str; 6] = [
        "Jane Doe was born in Springfield in the spring of the year nineteen eighty",
        "jane doe was born in Springfield, in the spring of the year nineteen eighty!",
        "Nobody: Springfield in the spring of the year nineteen ninety is a place",
        "An owl sat in the old oak tree",
        "Doe, Jane. An owl sat in the old oak tree",
        "Jane Doe was born in Springfield in the spring of the year nineteen eighty",
    ];

    fn texts() -> Vec<Record<'static>> {
        let mut seen = BTreeMap::new();
        let all = TEXTS.iter().enumerate().map(|(n, text)| {
            let id = ExampleId::of(text.as_bytes(), n as u32 % 2);
            let occurrence = seen.entry(id.base).and_modify(|n| *n += 1).or_insert(0u32);
            Record {
                id: id.with_occurrence(*occurrence),
                label: n as u32 % 2,
                content: Content::Text(text),
            }
        });
        all.collect()
    }

    #[test]
    fn each_record_says_why_it_is_meant() {
        let data = texts();
        let toml = format!(
            "[[forget]]\ntext = '{}'\nnear = 0.5\nverbatim = 30\n\
             [[forget]]\nconcept = {{ name = 'c', phrases = ['jane doe'], patterns = ['Doe, J'] }}\n\
             [[forget]]\nids = ['{}', '{}']\n[[forget]]\nclass = 0\n",
            TEXTS[0],
            data[3].id.with_view(4),
            ExampleId::of(b"nobody", 0)
        );
        let matches = expand(&request(&toml), data.iter().copied()).unwrap();
        let why: Vec<&[Why]> = matches.records.iter().map(|m| &m.why[..]).collect();
        let (class, concept) = (Why::Class { select: 3 }, |pattern| Why::Concept {
            select: 1,
            pattern,
        });
        let exact = Why::Exact { select: 0 };
        assert_eq!(why[0], [class, exact, concept(0)]);
        let near = Why::Near {
            select: 0,
            similarity: 1.0,
        };
        assert_eq!(why[1][..1], [near]);
        assert_eq!(why[1][2], concept(0));
        let passage = |n: usize, at: usize| match why[n][at] {
            Why::Passage { begin, bytes, .. } => &TEXTS[n][begin..begin + bytes],
            other => panic!("{other:?}"),
        };
        assert_eq!(passage(1, 1), " in the spring of the year nineteen eighty");
        assert_eq!(why[2][0], class);
        assert_eq!(
            passage(2, 1),
            " Springfield in the spring of the year nineteen "
        );
        assert_eq!(why[3], [Why::Id { select: 2 }]);
        assert_eq!(why[4], [class, concept(1)]);
        assert_eq!(why[5], [exact, concept(0)]);
        assert_eq!((matches.scanned, matches.missing.len()), (6, 1));
        assert_eq!(matches.near_duplicates(), 0);
        assert_eq!(matches.missed.len(), 1);

        let only = request(&format!("[[forget]]\ntext = '{}'\nnear = 0.5", TEXTS[0]));
        let matches = expand(&only, data).unwrap();
        assert_eq!((matches.records.len(), matches.near_duplicates()), (3, 1));
    }

    #[test]
    fn vectors_near_a_query_are_those_of_brute_force() {
        let mut random = ebb_space::Key::new(1, "vectors").stream();
        let values: Vec<Vec<f32>> = (0..1000)
            .map(|_| (0..5).map(|_| random.uniform() as f32).collect())
            .collect();
        let record = |(n, v): (usize, &'static [f32])| Record {
            id: ExampleId::of(&n.to_le_bytes(), 0),
            label: 0,
            content: Content::Vector(v),
        };
        let values: &'static [Vec<f32>] = values.leak();
        let query = &values[17];
        let toml = format!("[[forget]]\nvector = {query:?}\nwithin = 0.3");
        let data = values.iter().map(Vec::as_slice).enumerate().map(record);
        let matches = expand(&request(&toml), data).unwrap();
        let distance = |v: &[f32]| {
            let squares = v.iter().zip(query).map(|(a, b)| f64::from(a - b).powi(2));
            squares.sum::<f64>().sqrt()
        };
        let expected: Vec<ExampleId> = (0..1000usize)
            .filter(|n| distance(&values[*n]) <= 0.3)
            .map(|n| ExampleId::of(&n.to_le_bytes(), 0))
            .collect();
        assert!(expected.len() > 5);
        let found: Vec<ExampleId> = matches.records.iter().map(|m| m.id).collect();
        assert_eq!(found, expected);
        assert_eq!(matches.near_duplicates() as usize, expected.len() - 1);
        let (_, rate) = &matches.false_positives[0];
        assert_eq!(rate.n, 500);
        // The share of all pairs, which the interval is an estimate of.
        let pairs = (0..1000).flat_map(|i| (0..i).map(move |j| (i, j)));
        let near = pairs.filter(|(i, j): &(usize, usize)| {
            let squares = values[*i]
                .iter()
                .zip(&values[*j])
                .map(|(a, b)| f64::from(a - b).powi(2));
            squares.sum::<f64>().sqrt() <= 0.3
        });
        let share = near.count() as f64 / (1000.0 * 999.0 / 2.0);
        assert!(rate.ci_low.unwrap() <= share && share <= rate.ci_high.unwrap());

        let bad = Record {
            id: ExampleId::of(b"", 0),
            label: 0,
            content: Content::Vector(&[f32::NAN; 5]),
        };
        assert!(matches!(
            expand(&request(&toml), [bad]),
            Err(Error::Record { record: 0, .. })
        ));
    }

    #[test]
    fn refusals_say_why() {
        let data = texts();
        let all = request("[[forget]]\nclass = 0");
        let matches = expand(&all, data.iter().copied()).unwrap();
        let decided = |now, laws: &[usize]| {
            let law = |n: &usize| (data[*n].id, format!("law {n}"));
            decide(&all, &matches, now, &laws.iter().map(law).collect())
        };
        let id = RequestId([1; 16]);
        let Decision::Accepted { records, kept } = decided(0, &[2, 1]) else {
            panic!("refused")
        };
        assert_eq!(records, [data[0].id, data[4].id]);
        assert_eq!(kept, [(data[2].id, "law 2".to_owned())]);
        assert_eq!(
            decided(0, &[2, 1]).refusals(id),
            [Entry::Refused {
                request: id,
                because: Refusal::RequiredByLaw,
                records: 1
            }]
        );
        assert!(decided(0, &[]).refusals(id).is_empty());
        for (decision, because) in [
            (decided(0, &[0, 2, 4]), Refusal::RequiredByLaw),
            (decided(1_801_440_000, &[]), Refusal::DeadlinePast),
        ] {
            assert!(
                matches!(&decision, Decision::Refused { because: b, records: 3, .. } if *b == because)
            );
            assert_eq!(decision.refusals(id).len(), 1);
        }
        assert!(matches!(
            decided(1_801_439_999, &[]),
            Decision::Accepted { .. }
        ));
        let none = request("[[forget]]\nclass = 9");
        let matches = expand(&none, data).unwrap();
        assert!(matches!(
            decide(&none, &matches, 0, &BTreeMap::new()),
            Decision::Refused {
                because: Refusal::NothingMatched,
                records: 0,
                ..
            }
        ));
    }
}
