//! The general ability set cannot drift, and what it asks cannot be guessed from its form.

use std::collections::HashSet;

use ebb_text::metrics::Likelihood;
use ebb_text::{General, Question, likeliest};

/// Scores that were recorded belong to this content. A change is a new version, not a new hash.
const HASH: &str = "7748f2b7b2e6eb93f41a2b18b79876b0b57fd003f622a10e971e646c4641a373";

#[test]
fn the_first_version_is_frozen() {
    let general = General::v1();
    assert_eq!(general.version(), "general-v1");
    assert_eq!(general.hash(), HASH);
}

#[test]
fn it_has_what_it_should_have() {
    let general = General::v1();
    assert!(general.texts.len() >= 20);
    for text in &general.texts {
        assert!(text.text.split_whitespace().count() >= 100, "{}", text.name);
        assert!(["written", "austen"].contains(&text.source.as_str()));
    }
    let names: HashSet<&str> = general.texts.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names.len(), general.texts.len());
    let kinds = general.kinds();
    assert!(kinds.len() >= 6);
    for kind in &kinds {
        assert!(general.of_kind(kind).count() >= 50, "{kind}");
        let chance = if ["agreement", "grammar"].contains(kind) {
            0.5
        } else {
            0.25
        };
        assert_eq!(general.chance(kind), chance, "{kind}");
    }
    // The kinds stand together: none comes back later.
    assert_eq!(kinds.iter().collect::<HashSet<_>>().len(), kinds.len());
    let ids: HashSet<_> = general.questions.iter().map(|q| q.id).collect();
    assert_eq!(ids.len(), general.questions.len());
    for q in &general.questions {
        let different: HashSet<&String> = q.choices.iter().collect();
        assert_eq!(different.len(), q.choices.len(), "{q:?}");
        assert!(
            q.choices
                .iter()
                .all(|c| c.starts_with(' ') && c.trim().len() + 1 == c.len()),
            "{q:?}"
        );
        assert!(q.prompt.trim() == q.prompt, "{q:?}");
    }
}

/// The share of right answers of a rule that does not read the question.
fn share(questions: &[&Question], rule: impl Fn(&Question) -> usize) -> f64 {
    let right = questions.iter().filter(|q| rule(q) == q.answer).count();
    right as f64 / questions.len() as f64
}

#[test]
fn neither_the_place_nor_the_length_of_a_choice_gives_it_away() {
    let general = General::v1();
    for kind in general.kinds() {
        let questions: Vec<&Question> = general.of_kind(kind).collect();
        // Four standard errors above chance.
        let chance = general.chance(kind);
        let most = chance + 4.0 * (chance * (1.0 - chance) / questions.len() as f64).sqrt();
        for place in 0..questions[0].choices.len() {
            let share = share(&questions, |_| place);
            assert!(share < most, "{kind}: {share} at place {place}");
        }
        let length = |q: &Question, sign: i64| {
            let by = |i: &usize| sign * q.choices[*i].len() as i64;
            (0..q.choices.len()).max_by_key(by).expect("a choice")
        };
        // The longest form of a verb in the past is seldom the right one: `goed`, `going`.
        for sign in [1, -1] {
            let share = share(&questions, |q| length(q, sign));
            assert!(share < most.max(0.7), "{kind}: {share} by length {sign}");
        }
    }
}

#[test]
fn the_likeliest_choice_by_sum_and_by_byte() {
    let choice = |log_likelihood, bytes| Likelihood {
        log_likelihood,
        tokens: 1,
        bytes,
    };
    let choices = [choice(-4.0, 2), choice(-5.0, 10), choice(-4.0, 1)];
    assert_eq!(likeliest(&choices, false), Some(0));
    assert_eq!(likeliest(&choices, true), Some(1));
    assert_eq!(likeliest(&[], false), None);
    assert_eq!(likeliest(&[choice(f64::NAN, 1)], false), None);
}
