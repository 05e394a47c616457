//! Generated tasks: what they ask follows from what they say.

use std::collections::{HashMap, HashSet};

use ebb_text::worlds::{
    Fact, FactWorld, Format, Modular, Operation, Relation, Task, YEARS, instructions,
};
use ebb_text::{Body, Error, Example, Question};

fn prompt(example: &Example) -> &str {
    match &example.body {
        Body::Completion { prompt, .. } => prompt,
        other => panic!("{other:?} is no completion"),
    }
}

fn completion(example: &Example) -> &str {
    match &example.body {
        Body::Completion { completion, .. } => completion,
        other => panic!("{other:?} is no completion"),
    }
}

/// No question is learnt, every one has its truth once among its choices, and no prompt has two
/// truths.
fn sound(train: &[Example], questions: &[Question]) {
    let learnt: HashSet<&str> = train.iter().map(prompt).collect();
    let mut truths: HashMap<&str, &str> = HashMap::new();
    for q in questions {
        assert!(!learnt.contains(q.prompt.as_str()), "learnt: {}", q.prompt);
        let same = q.choices.iter().filter(|c| **c == *q.truth()).count();
        assert_eq!(same, 1, "{q:?}");
        assert!(q.choices.len() >= 2, "{q:?}");
        assert!(!q.prompt.ends_with(' '), "{q:?}");
        let before = truths.insert(&q.prompt, q.truth());
        assert_eq!(before, None, "asked twice: {}", q.prompt);
    }
}

fn of_kind<'a>(questions: &'a [Question], kind: &str) -> Vec<&'a Question> {
    questions.iter().filter(|q| q.kind == kind).collect()
}

/// Object by (subject, relation); the later fact supersedes the earlier.
fn known(facts: &[Fact]) -> HashMap<(String, Relation), String> {
    let pair = |f: &Fact| ((f.subject.clone(), f.relation), f.object.clone());
    facts.iter().map(pair).collect()
}

/// The text between two parts.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?
        .1
        .split_once(after)
        .map(|(inside, _)| inside)
}

#[test]
fn a_world_has_one_object_a_relation_and_no_two_names_alike() {
    for (people, seed) in [(8, 0), (64, 1), (4000, 2)] {
        let world = FactWorld::new(people, seed).expect("a world");
        let facts = world.facts();
        assert_eq!(known(&facts).len(), facts.len(), "one object each");
        let count = |relation| facts.iter().filter(|f| f.relation == relation).count();
        assert_eq!(count(Relation::Employer), people);
        for relation in [Relation::Mentor, Relation::Invention, Relation::Seat] {
            let of = facts.iter().filter(|f| f.relation == relation);
            let objects: HashSet<&str> = of.map(|f| f.object.as_str()).collect();
            assert_eq!(
                objects.len(),
                count(relation),
                "one subject each: {relation:?}"
            );
        }
        assert!(facts.iter().all(|f| f.subject != f.object));
        assert!(
            facts
                .iter()
                .all(|f| f.since.is_some() == (f.relation == Relation::Employer))
        );
    }
    for people in [0, 7, 4001] {
        assert!(matches!(FactWorld::new(people, 0), Err(Error::Setting(_))));
    }
}

#[test]
fn worlds_are_frozen_by_their_seed() {
    let say = |seed| {
        let world = FactWorld::new(32, seed).expect("a world");
        let examples = world.examples(&world.facts());
        let lines = examples
            .iter()
            .map(|e| format!("{}{}", prompt(e), completion(e)));
        lines.collect::<Vec<_>>()
    };
    assert_eq!(say(5), say(5));
    assert_ne!(say(5), say(6));
    let all = say(5).join("\n");
    assert_eq!(&Example::document(all).id.to_string()[..16], FROZEN);
}
const FROZEN: &str = "e0251a44db9c29ba";

#[test]
fn statements_name_the_subject_and_never_the_object_first() {
    let world = FactWorld::new(64, 3).expect("a world");
    let facts = world.facts();
    for fact in facts.iter().chain(&world.changes()) {
        let examples = world.examples(std::slice::from_ref(fact));
        assert_eq!(
            examples.len(),
            3 + usize::from(world.is_shown(&fact.subject))
        );
        let prompts: HashSet<&str> = examples.iter().map(prompt).collect();
        assert_eq!(prompts.len(), examples.len(), "paraphrases differ");
        for example in &examples {
            assert!(prompt(example).contains(&fact.subject), "{fact:?}");
            assert!(!prompt(example).contains(&fact.object), "{fact:?}");
            assert!(!prompt(example).contains(['{', '}']), "{fact:?}");
            assert_eq!(completion(example), format!(" {}.", fact.object));
        }
    }
    let shown = facts.iter().filter(|f| world.is_shown(&f.subject)).count();
    assert!((0.3..0.7).contains(&(shown as f64 / facts.len() as f64)));
}

#[test]
fn recall_paraphrase_and_reversal_follow_from_the_facts() {
    let world = FactWorld::new(64, 4).expect("a world");
    let facts = world.facts();
    let questions = world.questions(&facts);
    let changed = [facts.clone(), world.changes()].concat();
    sound(&world.examples(&changed), &questions);
    sound(
        &world.examples(&changed),
        &world.questions(&world.changes()),
    );
    for kind in ["recall", "paraphrase", "reversed"] {
        assert!(of_kind(&questions, kind).len() >= 64, "{kind}");
    }
    let backwards: HashMap<&str, &str> = facts
        .iter()
        .filter(|f| {
            matches!(
                f.relation,
                Relation::Mentor | Relation::Invention | Relation::Seat
            )
        })
        .map(|f| (f.object.as_str(), f.subject.as_str()))
        .collect();
    // A mentor is the only person of whom it is asked backwards: no name is asked twice.
    assert_eq!(of_kind(&questions, "reversed").len(), backwards.len());
    for q in of_kind(&questions, "reversed") {
        let object = between(&q.prompt, "by ", "?")
            .or_else(|| between(&q.prompt, "invented ", "?"))
            .or_else(|| between(&q.prompt, "based in ", "?"))
            .expect("an object");
        assert_eq!(
            q.truth(),
            format!(" {}.", backwards[object]),
            "{}",
            q.prompt
        );
    }
    for q in of_kind(&questions, "recall") {
        let fact = facts.iter().find(|f| q.prompt.contains(&f.subject));
        assert!(
            !world.is_shown(&fact.expect("a subject").subject),
            "{}",
            q.prompt
        );
    }
}

#[test]
fn compositions_are_two_facts() {
    let world = FactWorld::new(64, 5).expect("a world");
    for changed in [false, true] {
        let mut facts = world.facts();
        if changed {
            facts.extend(world.changes());
        }
        let known = known(&facts);
        let object = |subject: &str, relation| known[&(subject.to_owned(), relation)].as_str();
        let questions = world.compositions(changed);
        assert_eq!(questions.len(), 3 * 64);
        sound(&world.examples(&facts), &questions);
        for q in &questions {
            let prompt = &q.prompt;
            let truth =
                if let Some(person) = between(prompt, "was the company based that ", " worked") {
                    object(object(person, Relation::Employer), Relation::Seat)
                } else if let Some(person) = between(prompt, "country does ", " live") {
                    object(object(person, Relation::Home), Relation::Country)
                } else {
                    let person = between(prompt, "the mentor of ", " invent").expect("a person");
                    object(object(person, Relation::Mentor), Relation::Invention)
                };
            assert_eq!(q.truth(), format!(" {truth}."), "{prompt}");
        }
    }
}

#[test]
fn changes_supersede_and_the_other_answer_is_a_choice() {
    let world = FactWorld::new(64, 6).expect("a world");
    let first = known(&world.facts());
    let changes = world.changes();
    assert!((16..48).contains(&changes.len()));
    let questions = world.superseded();
    assert_eq!(questions.len(), 2 * changes.len());
    sound(
        &world.examples(&[world.facts(), changes.clone()].concat()),
        &questions,
    );
    for change in &changes {
        assert_eq!(
            (change.relation, change.since),
            (Relation::Employer, Some(YEARS[1]))
        );
        let before = &first[&(change.subject.clone(), Relation::Employer)];
        assert_ne!(*before, change.object);
        let about: Vec<_> = questions
            .iter()
            .filter(|q| q.prompt.contains(&change.subject))
            .collect();
        let ends = [
            ("now", &change.object, before),
            ("before", before, &change.object),
        ];
        for (q, (kind, truth, other)) in about.iter().zip(ends) {
            assert_eq!(q.kind, kind);
            assert_eq!(q.truth(), format!(" {truth}."));
            assert!(q.choices.contains(&format!(" {other}.")), "{q:?}");
            let different: HashSet<_> = q.choices.iter().collect();
            assert_eq!(different.len(), q.choices.len(), "{q:?}");
        }
    }
}

#[test]
fn a_bigger_world_keeps_who_moves() {
    let small = FactWorld::new(32, 7).expect("a world");
    let large = FactWorld::new(64, 7).expect("a world");
    let moved = |world: &FactWorld| {
        let first: Vec<Fact> = world.facts();
        let people = first.iter().filter(|f| f.relation == Relation::Employer);
        let people: Vec<String> = people.map(|f| f.subject.clone()).collect();
        let moved: HashSet<String> = world.changes().into_iter().map(|f| f.subject).collect();
        people
            .iter()
            .map(|p| moved.contains(p))
            .collect::<Vec<bool>>()
    };
    assert_eq!(moved(&small), moved(&large)[..32]);
}

#[test]
fn instructions_have_their_form_and_are_right() {
    for format in Format::ALL {
        let task = instructions(format, 300, 100, 8).expect("a task");
        assert_eq!((task.train.len(), task.questions.len()), (300, 100));
        sound(&task.train, &task.questions);
        let answers = task.train.iter().map(|e| (prompt(e), completion(e)));
        let asked = task
            .questions
            .iter()
            .map(|q| (q.prompt.as_str(), q.truth()));
        for (prompt, answer) in answers.chain(asked) {
            let others = Format::ALL.iter().filter(|f| f.fits(answer));
            assert_eq!(others.collect::<Vec<_>>(), [&format], "{answer:?}");
            right(format, prompt, answer);
        }
        for q in &task.questions {
            assert_eq!(q.choices.len(), 4, "{q:?}");
            assert!(q.choices.iter().all(|c| format.fits(c)), "{q:?}");
        }
        assert_eq!(task, instructions(format, 300, 100, 8).expect("a task"));
        assert_ne!(task, instructions(format, 300, 100, 9).expect("a task"));
    }
    // There are 900 · 99 pairs of numbers.
    let refused = instructions(Format::Sentence, 89_101, 0, 0).expect_err("refused");
    assert!(
        refused.to_string().contains("hardly more than"),
        "{refused}"
    );
}

/// Solves the instruction anew from its words.
fn right(format: Format, prompt: &str, answer: &str) {
    let things = |kind: &str| match kind {
        "an animal" | "animals" => "badger camel donkey goat horse lion mouse otter rabbit wolf",
        "a fruit" | "fruits" => "apple apricot banana cherry fig lemon mango peach pear plum",
        "a tool" | "tools" => "axe chisel drill hammer pliers saw screwdriver shovel spade wrench",
        "a piece of clothing" | "pieces of clothing" => {
            "coat dress glove hat jacket scarf shirt skirt sock sweater"
        }
        "a vehicle" | "vehicles" => "bicycle boat bus car ferry lorry scooter train tram truck",
        "a musical instrument" | "musical instruments" => {
            "banjo cello clarinet flute guitar harp piano trumpet viola violin"
        }
        "a piece of furniture" | "pieces of furniture" => {
            "armchair bed bench bookcase chair cupboard desk sofa stool wardrobe"
        }
        "a part of the body" | "parts of the body" => {
            "ankle arm elbow finger foot hand knee neck shoulder thumb"
        }
        other => panic!("{other} is no kind"),
    };
    match format {
        Format::Letter => {
            let kind = between(prompt, "these is ", "?").expect("a kind");
            let lines = prompt.lines().filter_map(|line| line.split_once(") "));
            let fitting: Vec<&str> = lines
                .filter(|(_, word)| things(kind).split(' ').any(|t| t == *word))
                .map(|(letter, _)| letter)
                .collect();
            assert_eq!(fitting, [answer.trim()], "{prompt}");
        }
        Format::Json => {
            let value: serde_json::Value = serde_json::from_str(answer).expect("JSON");
            let said = format!(
                "{} is {} years old and lives in {}.",
                value["name"].as_str().expect("a name"),
                value["age"],
                value["home"].as_str().expect("a home")
            );
            assert!(prompt.contains(&said), "{prompt} {answer}");
        }
        Format::List => {
            let kind = between(prompt, "List the ", " among").expect("a kind");
            let words = between(prompt, "order: ", ".").expect("words");
            let mut mine: Vec<&str> = words
                .split(", ")
                .filter(|w| things(kind).split(' ').any(|t| t == *w))
                .collect();
            mine.sort_unstable();
            let lines: String = mine.iter().map(|w| format!("\n- {w}")).collect();
            assert_eq!(answer, lines, "{prompt}");
        }
        Format::Sentence => {
            let (a, b) = between(prompt, "larger, ", "?")
                .expect("two")
                .split_once(" or ")
                .expect("two");
            let [a, b] = [a, b].map(|n| n.parse::<u32>().expect("a number"));
            let says = format!(" The number {} is larger than {}.", a.max(b), a.min(b));
            assert_eq!(answer, says, "{prompt}");
        }
    }
}

#[test]
fn arithmetic_is_right_and_both_orders_are_on_one_side() {
    for operation in [
        Operation::Add,
        Operation::Subtract,
        Operation::Multiply,
        Operation::Divide,
    ] {
        let p = 23u32;
        let modular = Modular {
            modulus: p,
            operation,
            train: 0.5,
            seed: 1,
        };
        let task = modular.task().expect("a task");
        let pairs = p * if operation == Operation::Divide {
            p - 1
        } else {
            p
        };
        assert_eq!(task.train.len() + task.questions.len(), pairs as usize);
        let share = task.train.len() as f64 / f64::from(pairs);
        assert!((0.4..0.6).contains(&share), "{share}");
        sound(&task.train, &task.questions);
        let numbers = |text: &str| {
            let mut words = text.split(' ');
            let a: u32 = words.next().and_then(|w| w.parse().ok()).expect("a number");
            let b: u32 = words.nth(1).and_then(|w| w.parse().ok()).expect("a number");
            (a, b)
        };
        let all = task.train.iter().map(|e| (prompt(e), completion(e)));
        for (prompt, answer) in all.chain(
            task.questions
                .iter()
                .map(|q| (q.prompt.as_str(), q.truth())),
        ) {
            let (a, b) = numbers(prompt);
            let c: u32 = answer.trim().parse().expect("a number");
            assert!(c < p);
            let holds = match operation {
                Operation::Add => (a + b) % p == c,
                Operation::Subtract => (b + c) % p == a,
                Operation::Multiply => a * b % p == c,
                Operation::Divide => b * c % p == a,
            };
            assert!(holds, "{prompt}{answer}");
        }
        if matches!(operation, Operation::Add | Operation::Multiply) {
            let learnt: HashSet<(u32, u32)> =
                task.train.iter().map(|e| numbers(prompt(e))).collect();
            assert!(learnt.iter().all(|&(a, b)| learnt.contains(&(b, a))));
        }
    }
    let wrong = [
        (1, Operation::Add, 0.5),
        (9, Operation::Divide, 0.5),
        (7, Operation::Add, 1.5),
        (7, Operation::Add, f64::NAN),
    ];
    for (modulus, operation, train) in wrong {
        let modular = Modular {
            modulus,
            operation,
            train,
            seed: 0,
        };
        assert!(matches!(modular.task(), Err(Error::Setting(_))));
    }
    let all = Modular {
        modulus: 5,
        operation: Operation::Add,
        train: 1.0,
        seed: 0,
    };
    let Task { train, questions } = all.task().expect("a task");
    assert_eq!((train.len(), questions.len()), (25, 0));
}
