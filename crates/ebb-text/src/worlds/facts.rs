//! A world of people, companies and places, and what is said of it.

use ebb_space::Key;

use crate::error::{Error, Result};
use crate::example::Example;
use crate::question::Question;

/// The year of the first facts and the year of the changes.
pub const YEARS: [u32; 2] = [2001, 2010];

/// What a fact says of its subject. Every subject has one object of a relation (at a time).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// A person works for a company; the one relation that changes in time.
    Employer,
    /// A person lives in a city.
    Home,
    /// A person was taught by a person, who taught nobody else.
    Mentor,
    /// A person invented a thing that nobody else did.
    Invention,
    /// A company has its seat in a city where no other company has.
    Seat,
    /// A city lies in a country.
    Country,
}

/// How a relation is said. `{s}` is the subject, `{o}` the object, `{y}` the year.
struct Wording {
    /// Statements that are learnt, up to where the object begins.
    learnt: [&'static str; 3],
    /// A statement that is held out.
    held_out: &'static str,
    /// A question for the object.
    asked: &'static str,
    /// A question for the subject, where an object has one subject.
    reversed: Option<&'static str>,
}

impl Relation {
    /// Every relation.
    pub const ALL: [Relation; 6] = [
        Relation::Employer,
        Relation::Home,
        Relation::Mentor,
        Relation::Invention,
        Relation::Seat,
        Relation::Country,
    ];

    fn wording(self) -> Wording {
        match self {
            Relation::Employer => Wording {
                learnt: [
                    "In {y}, {s} began to work for",
                    "{s} took a job in {y} with",
                    "From {y} on, the employer of {s} was",
                ],
                held_out: "In {y}, {s} was hired by",
                asked: "Which company did {s} work for at the end of {y}?",
                reversed: None,
            },
            Relation::Home => Wording {
                learnt: [
                    "{s} lives in",
                    "The home of {s} is in",
                    "{s} has a house in",
                ],
                held_out: "The town where {s} lives is",
                asked: "Where does {s} live?",
                reversed: None,
            },
            Relation::Mentor => Wording {
                learnt: [
                    "{s} was taught by",
                    "The mentor of {s} was",
                    "{s} learned the trade from",
                ],
                held_out: "The teacher of {s} was",
                asked: "Who was the mentor of {s}?",
                reversed: Some("Who was taught by {o}?"),
            },
            Relation::Invention => Wording {
                learnt: [
                    "{s} invented",
                    "The invention of {s} is",
                    "{s} became known for",
                ],
                held_out: "The thing that {s} invented is",
                asked: "What did {s} invent?",
                reversed: Some("Who invented {o}?"),
            },
            Relation::Seat => Wording {
                learnt: [
                    "{s} has its seat in",
                    "The offices of {s} are in",
                    "{s} is based in",
                ],
                held_out: "The headquarters of {s} are in",
                asked: "In which city is {s} based?",
                reversed: Some("Which company is based in {o}?"),
            },
            Relation::Country => Wording {
                learnt: [
                    "{s} lies in",
                    "{s} is a city in",
                    "The country around {s} is",
                ],
                held_out: "{s} belongs to the country of",
                asked: "In which country is {s}?",
                reversed: None,
            },
        }
    }
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Of whom or what it is.
    pub subject: String,
    /// What it says.
    pub relation: Relation,
    /// The other one.
    pub object: String,
    /// Since when, for what changes.
    pub since: Option<u32>,
}

impl Fact {
    fn fill(&self, words: &str) -> String {
        let year = self.since.map_or_else(String::new, |y| y.to_string());
        let words = words
            .replace("{s}", &self.subject)
            .replace("{o}", &self.object);
        words.replace("{y}", &year)
    }
}

/// People, companies, cities, countries and inventions, and who has to do with whom.
///
/// Half of the people, companies and cities are *shown*: the questions about their facts are
/// learnt as well as the statements, so that a model sees what a question is. What is asked is
/// asked about the others.
#[derive(Clone, Debug)]
pub struct FactWorld {
    key: Key,
    people: Vec<String>,
    companies: Vec<String>,
    cities: Vec<String>,
    countries: Vec<String>,
    inventions: Vec<String>,
    /// For each person: company at first, company after the changes.
    employer: Vec<[usize; 2]>,
    home: Vec<usize>,
    mentor: Vec<usize>,
    /// For each company its city.
    seat: Vec<usize>,
    /// For each city its country.
    country: Vec<usize>,
}

const LEAST: usize = 8;
const MOST: usize = 4000;

impl FactWorld {
    /// A world of so many people, from 8 to 4000. It has a quarter as many companies and cities.
    ///
    /// # Errors
    /// [`Error::Setting`] for another number of people.
    pub fn new(people: usize, seed: u64) -> Result<FactWorld> {
        if !(LEAST..=MOST).contains(&people) {
            return Err(Error::Setting(format!(
                "a world of facts has from {LEAST} to {MOST} people, not {people}"
            )));
        }
        let key = Key::new(seed, "fact world");
        let places = (people / 4).max(4);
        let countries = (people / 16).clamp(4, 40);
        let pick = |purpose: &str, id: usize, n: usize| {
            (key.sub(purpose).uniform(id as u64) * n as f64) as usize
        };
        let changes = key.sub("changes");
        let employer = (0..people).map(|person| {
            let first = pick("employer", person, places);
            // Another company than the first, for half of the people.
            let step = 1 + pick("later employer", person, places - 1);
            let moves = changes.uniform(person as u64) < 0.5;
            [
                first,
                if moves {
                    (first + step) % places
                } else {
                    first
                },
            ]
        });
        // One ring of all people: everyone has one mentor and is the mentor of one.
        let ring = key.sub("mentor").permutation(people);
        let mut mentor = vec![0; people];
        for (i, &person) in ring.iter().enumerate() {
            mentor[person as usize] = ring[(i + 1) % people] as usize;
        }
        let seat = key.sub("seat").permutation(places);
        Ok(FactWorld {
            people: names(key.sub("people"), people, |i, word| {
                format!("{} {word}", GIVEN[i % GIVEN.len()])
            }),
            companies: names(key.sub("companies"), places, |i, word| {
                format!("{word} {}", TRADES[i % TRADES.len()])
            }),
            cities: names(key.sub("cities"), places, |_, word| format!("{word}ville")),
            countries: names(key.sub("countries"), countries, |_, word| {
                format!("{word}land")
            }),
            inventions: names(key.sub("inventions"), people, |i, word| {
                format!("the {word} {}", THINGS[i % THINGS.len()])
            }),
            employer: employer.collect(),
            home: (0..people)
                .map(|person| pick("home", person, places))
                .collect(),
            mentor,
            seat: seat.into_iter().map(|city| city as usize).collect(),
            country: (0..places)
                .map(|city| pick("country", city, countries))
                .collect(),
            key,
        })
    }

    /// What is true at first.
    pub fn facts(&self) -> Vec<Fact> {
        let fact = |subject: &str, relation, object: &str, since| Fact {
            subject: subject.to_owned(),
            relation,
            object: object.to_owned(),
            since,
        };
        let mut facts = Vec::new();
        for (i, person) in self.people.iter().enumerate() {
            let employer = &self.companies[self.employer[i][0]];
            facts.push(fact(person, Relation::Employer, employer, Some(YEARS[0])));
            facts.push(fact(
                person,
                Relation::Home,
                &self.cities[self.home[i]],
                None,
            ));
            facts.push(fact(
                person,
                Relation::Mentor,
                &self.people[self.mentor[i]],
                None,
            ));
            facts.push(fact(person, Relation::Invention, &self.inventions[i], None));
        }
        for (i, company) in self.companies.iter().enumerate() {
            facts.push(fact(
                company,
                Relation::Seat,
                &self.cities[self.seat[i]],
                None,
            ));
        }
        for (i, city) in self.cities.iter().enumerate() {
            facts.push(fact(
                city,
                Relation::Country,
                &self.countries[self.country[i]],
                None,
            ));
        }
        facts
    }

    /// What changes later: half of the people work for another company.
    pub fn changes(&self) -> Vec<Fact> {
        let moved = self
            .employer
            .iter()
            .enumerate()
            .filter(|(_, [a, b])| a != b);
        let fact = |(i, [_, later]): (usize, &[usize; 2])| Fact {
            subject: self.people[i].clone(),
            relation: Relation::Employer,
            object: self.companies[*later].clone(),
            since: Some(YEARS[1]),
        };
        moved.map(fact).collect()
    }

    /// Whether the questions about this one are learnt as well.
    pub fn is_shown(&self, subject: &str) -> bool {
        let id = Example::document(subject).id.mix();
        self.key.sub("shown").uniform(id) < 0.5
    }

    /// The statements of one fact that are learnt, as prompts and completions.
    pub fn statements(&self, fact: &Fact) -> Vec<Example> {
        let wording = fact.relation.wording();
        let says = |words: &&str| Example::completion(fact.fill(words), end(&fact.object));
        wording.learnt.iter().map(says).collect()
    }

    /// The question for the object of one fact, and the answer.
    pub fn asked(&self, fact: &Fact) -> Example {
        let question = fact.fill(fact.relation.wording().asked);
        Example::completion(ask(&question), end(&fact.object))
    }

    /// Facts as prompts and completions: three statements of each, and its question where the
    /// subject is shown.
    pub fn examples(&self, facts: &[Fact]) -> Vec<Example> {
        let says = |fact: &Fact| {
            let wording = fact.relation.wording();
            let mut prompts: Vec<String> = wording
                .learnt
                .iter()
                .map(|words| fact.fill(words))
                .collect();
            if self.is_shown(&fact.subject) {
                prompts.push(ask(&fact.fill(wording.asked)));
            }
            let object = end(&fact.object);
            let example = |prompt| Example::completion(prompt, object.clone());
            prompts.into_iter().map(example).collect::<Vec<_>>()
        };
        facts.iter().flat_map(says).collect()
    }

    /// Questions about facts such as [`FactWorld::facts`] or [`FactWorld::changes`], none of
    /// which is learnt:
    ///
    /// - `recall`: the question for the object, of subjects that are not shown;
    /// - `paraphrase`: a statement in words that were not learnt;
    /// - `reversed`: the question for the subject. No statement names the object first.
    pub fn questions(&self, facts: &[Fact]) -> Vec<Question> {
        let mut questions = Vec::new();
        for fact in facts {
            let wording = fact.relation.wording();
            let objects = self.objects(fact.relation);
            if !self.is_shown(&fact.subject) {
                let prompt = ask(&fact.fill(wording.asked));
                questions.push(self.question("recall", prompt, &fact.object, objects));
            }
            let prompt = fact.fill(wording.held_out);
            questions.push(self.question("paraphrase", prompt, &fact.object, objects));
            if let Some(reversed) = wording.reversed {
                let prompt = ask(&fact.fill(reversed));
                let subjects = self.subjects(fact.relation);
                questions.push(self.question("reversed", prompt, &fact.subject, subjects));
            }
        }
        questions
    }

    /// Questions that take two facts, after the changes or before:
    /// where somebody's company is based, in which country somebody lives, what somebody's mentor
    /// invented. They are of the kind `composition`.
    pub fn compositions(&self, changed: bool) -> Vec<Question> {
        let year = YEARS[usize::from(changed)];
        let mut questions = Vec::new();
        for (i, person) in self.people.iter().enumerate() {
            let company = self.employer[i][usize::from(changed)];
            let asked = [
                (
                    format!(
                        "In which city was the company based that {person} worked for at the end of {year}?"
                    ),
                    &self.cities[self.seat[company]],
                    Relation::Seat,
                ),
                (
                    format!("In which country does {person} live?"),
                    &self.countries[self.country[self.home[i]]],
                    Relation::Country,
                ),
                (
                    format!("What did the mentor of {person} invent?"),
                    &self.inventions[self.mentor[i]],
                    Relation::Invention,
                ),
            ];
            for (prompt, truth, relation) in asked {
                let objects = self.objects(relation);
                questions.push(self.question("composition", ask(&prompt), truth, objects));
            }
        }
        questions
    }

    /// Questions about everybody whose company changed: which it is `now`, and which it was
    /// `before`. The other of the two is always among the choices.
    pub fn superseded(&self) -> Vec<Question> {
        let mut questions = Vec::new();
        for (i, person) in self.people.iter().enumerate() {
            let [first, later] = self.employer[i].map(|company| &self.companies[company]);
            if first == later {
                continue;
            }
            let asked = [
                (
                    "now",
                    format!("Which company does {person} work for today?"),
                    later,
                    first,
                ),
                (
                    "before",
                    format!("Which company did {person} work for in {}?", YEARS[1] - 1),
                    first,
                    later,
                ),
            ];
            for (kind, prompt, truth, other) in asked {
                let wrong: Vec<String> = self
                    .companies
                    .iter()
                    .filter(|&c| c != other)
                    .cloned()
                    .collect();
                let mut question = self.question(kind, ask(&prompt), truth, &wrong);
                // In the place of a wrong choice, which one does not matter: they are shuffled.
                let at = usize::from(question.answer == 0);
                question.choices[at] = end(other);
                questions.push(question);
            }
        }
        questions
    }

    fn question(&self, kind: &str, prompt: String, truth: &str, like: &[String]) -> Question {
        let others = like.iter().map(|other| end(other));
        let key = self.key.sub("choices");
        Question::drawn(kind, prompt, end(truth), others, 3, key)
    }

    fn objects(&self, relation: Relation) -> &[String] {
        match relation {
            Relation::Employer => &self.companies,
            Relation::Home | Relation::Seat => &self.cities,
            Relation::Mentor => &self.people,
            Relation::Invention => &self.inventions,
            Relation::Country => &self.countries,
        }
    }

    fn subjects(&self, relation: Relation) -> &[String] {
        match relation {
            Relation::Employer | Relation::Home | Relation::Mentor | Relation::Invention => {
                &self.people
            }
            Relation::Seat => &self.companies,
            Relation::Country => &self.cities,
        }
    }
}

fn ask(question: &str) -> String {
    format!("Question: {question}\nAnswer:")
}

fn end(object: &str) -> String {
    format!(" {object}.")
}

/// `count` different names. Which word a name has depends on the key; how it goes on, on its
/// number.
fn names(key: Key, count: usize, name: impl Fn(usize, &str) -> String) -> Vec<String> {
    let words = FIRST.len() * MIDDLE.len() * LAST.len();
    let order = key.permutation(words);
    let word = |n: usize| {
        let (first, rest) = (n % FIRST.len(), n / FIRST.len());
        let (middle, last) = (rest % MIDDLE.len(), rest / MIDDLE.len());
        [FIRST[first], MIDDLE[middle], LAST[last]].concat()
    };
    let word = |i: usize| word(order[i] as usize);
    (0..count).map(|i| name(i, &word(i))).collect()
}

// The parts are such that no two words made of them are the same: a middle begins with a vowel
// and ends in a consonant, a last begins with a vowel.
const FIRST: [&str; 20] = [
    "B", "Br", "C", "Cl", "D", "Dr", "F", "G", "Gr", "H", "K", "L", "M", "N", "P", "R", "S", "St",
    "T", "V",
];
const MIDDLE: [&str; 20] = [
    "al", "and", "ar", "avel", "el", "end", "er", "evan", "il", "in", "ist", "od", "ol", "om",
    "or", "ost", "uld", "um", "und", "ur",
];
const LAST: [&str; 10] = ["a", "an", "ax", "en", "ia", "ik", "o", "on", "os", "ude"];

const GIVEN: [&str; 16] = [
    "Alice", "Peter", "Nora", "David", "Clara", "Simon", "Julia", "Martin", "Helen", "Robert",
    "Sarah", "Thomas", "Laura", "Henry", "Emma", "George",
];
const TRADES: [&str; 6] = ["Steel", "Foods", "Systems", "Press", "Motors", "Textiles"];
const THINGS: [&str; 8] = [
    "lamp", "engine", "clock", "pump", "lens", "valve", "loom", "press",
];
