//! One question asked in several forms.
//!
//! **What it does.** A prompt and its completion become a question that is to be answered in a
//! sentence, with an explanation, by yes or no, or by a letter. Texts of one form teach a model that
//! form; a share of other forms in every task keeps it from taking the newest for the only one (answer
//! style diversification).
//! **Source.** Chen et al., *SEFE: Superficial and Essential Forgetting Eliminator for Multimodal
//! Continual Instruction Tuning*, 2025 (card S036): five forms, a fifth of a task's items converted,
//! the share split equally over the other forms.
//! **When not.** Where only one form will ever be asked for, it is training spent on others.
//! **Privacy.** Yes or no and the choice put answers of *other* examples of the set into a text. Who has
//! to erase an example later finds these texts by its content, not by its id.

use crate::error::{Error, Result};
use crate::example::{Body, Example};
use ebb_hub::Message;
use ebb_space::Key;
use serde::{Deserialize, Serialize};

/// The form in which a question is asked and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// As few words as say it: the completion as it is.
    Short,
    /// One sentence.
    Sentence,
    /// A sentence that says the question again, and a conclusion.
    Explained,
    /// Whether a certain answer is right.
    YesNo,
    /// A letter of up to four answers.
    Choice,
}

impl Form {
    /// Every form.
    pub const ALL: [Form; 5] = [
        Form::Short,
        Form::Sentence,
        Form::Explained,
        Form::YesNo,
        Form::Choice,
    ];

    /// A question in this form. `others` are completions of other examples, in an order that `key`
    /// shall decide on alone.
    fn ask(self, prompt: &str, truth: &str, others: &[&str], key: Key) -> (String, String) {
        let (asked, said) = (prompt.trim_end(), truth.trim());
        let other = |n: usize| others.get(n).map(|o| o.trim());
        match self {
            Form::Short => (format!("{asked}\nAnswer in a word:"), format!(" {said}")),
            Form::Sentence => (
                format!("{asked}\nAnswer in a sentence:"),
                format!(" The answer is {said}."),
            ),
            Form::Explained => (
                format!("{asked}\nAnswer and explain:"),
                format!(" {asked} {said}. So the answer is {said}."),
            ),
            Form::YesNo => {
                let right = other(0).is_none() || key.sub("right").draw(0).is_multiple_of(2);
                let shown = if right {
                    said
                } else {
                    other(0).unwrap_or(said)
                };
                (
                    format!("{asked} {shown}\nIs this so, yes or no?"),
                    format!(" {}", if right { "yes" } else { "no" }),
                )
            }
            Form::Choice => {
                let mut choices = vec![said];
                choices.extend((0..3).filter_map(other));
                let mut places: Vec<usize> = (0..choices.len()).collect();
                key.sub("places").order(&mut places, |p| *p as u64);
                let mut text = asked.to_owned();
                let mut letter = 'A';
                for (line, place) in ('A'..).zip(&places) {
                    text.push_str(&format!("\n{line}. {}", choices[*place]));
                    if *place == 0 {
                        letter = line;
                    }
                }
                (
                    format!("{text}\nAnswer by its letter:"),
                    format!(" {letter}"),
                )
            }
        }
    }
}

/// A question and its answer, where an example is one.
fn question(body: &Body) -> Option<(&str, &str)> {
    match body {
        Body::Completion { prompt, completion } => Some((prompt, completion)),
        Body::Chat(messages) => match &messages[..] {
            [user, assistant] if user.role == "user" && assistant.role == "assistant" => {
                Some((user.content.as_str()?, assistant.content.as_str()?))
            }
            _ => None,
        },
        Body::Document(_) => None,
    }
}

/// Puts every example that `form` names one for into that form.
fn convert(examples: &mut [Example], key: Key, form: impl Fn(&Example) -> Option<Form>) {
    let answers: Vec<Option<String>> = examples
        .iter()
        .map(|e| question(&e.body).map(|(_, answer)| answer.to_owned()))
        .collect();
    for example in examples {
        let (Some(form), Some((prompt, truth))) = (form(example), question(&example.body)) else {
            continue;
        };
        let key = key.at(example.id.mix());
        let others = others(&answers, truth, key);
        let (prompt, completion) = form.ask(prompt, truth, &others, key);
        example.body = match example.body {
            Body::Chat(_) => Body::Chat(vec![
                Message::new("user", prompt),
                Message::new("assistant", completion.trim()),
            ]),
            _ => Body::Completion { prompt, completion },
        };
    }
}

/// Three other answers that differ from the truth and from each other, or as many as are found in a
/// few draws.
fn others<'a>(answers: &'a [Option<String>], truth: &str, key: Key) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    let draws = key.sub("others");
    for draw in 0..40 {
        let at = (draws.draw(draw) % answers.len().max(1) as u64) as usize;
        if let Some(Some(answer)) = answers.get(at)
            && answer.trim() != truth.trim()
            && found.iter().all(|f| f.trim() != answer.trim())
        {
            found.push(answer);
            if found.len() == 3 {
                break;
            }
        }
    }
    found
}

/// Puts examples into the form `own`, or leaves them as they are without one, and a share of them into
/// the other forms, as many into each. Which ones is decided by `key` and their ids alone; each keeps
/// its id, since it is the same record. Documents and longer chats stay as they are.
///
/// # Errors
/// [`Error::Setting`] for a share that is not from 0 to 1.
pub fn put_into(examples: &mut [Example], own: Option<Form>, share: f64, key: Key) -> Result<()> {
    if !(0.0..=1.0).contains(&share) {
        let what = format!("a share of other forms lies between 0 and 1, it is {share}");
        return Err(Error::Setting(what));
    }
    // Texts without a form answer as shortly as they do.
    let is_own = |form: &Form| *form == own.unwrap_or(Form::Short);
    let others: Vec<Form> = Form::ALL.into_iter().filter(|f| !is_own(f)).collect();
    let drawn = key.sub("which");
    convert(examples, key, |example| {
        let draw = drawn.uniform(example.id.mix());
        // A number below the share is as likely in each of its parts.
        let part = ((draw / share) * others.len() as f64) as usize;
        match draw < share {
            true => others.get(part).copied(),
            false => own,
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(n: usize) -> Vec<Example> {
        (0..n)
            .map(|i| {
                Example::completion(format!("Person {i} lives in"), format!(" Town {}", i % 7))
            })
            .collect()
    }

    fn text(example: &Example) -> (String, String) {
        let (prompt, answer) = question(&example.body).expect("a question");
        (prompt.to_owned(), answer.to_owned())
    }

    #[test]
    fn a_question_in_every_form() {
        let of = |form| {
            let mut all = facts(20);
            put_into(&mut all, Some(form), 0.0, Key::new(1, "forms")).expect("a share");
            text(&all[2])
        };
        assert_eq!(of(Form::Short).1, " Town 2");
        assert_eq!(of(Form::Sentence).1, " The answer is Town 2.");
        assert_eq!(
            of(Form::Explained).1,
            " Person 2 lives in Town 2. So the answer is Town 2."
        );
        let (prompt, letter) = of(Form::Choice);
        let line = format!("\n{}. Town 2", letter.trim());
        assert!(prompt.contains(&line), "{prompt}");
        assert_eq!(prompt.matches("Town").count(), 4);
    }

    #[test]
    fn yes_and_no_are_both_right_half_of_the_time() {
        let mut all = facts(400);
        put_into(&mut all, Some(Form::YesNo), 0.0, Key::new(1, "forms")).expect("a share");
        let mut yes = 0;
        for (i, example) in all.iter().enumerate() {
            let (prompt, answer) = text(example);
            let says = prompt.contains(&format!("lives in Town {}\n", i % 7));
            assert_eq!(says, answer == " yes", "{prompt}{answer}");
            yes += u32::from(says);
        }
        // Five standard deviations.
        assert!((150..250).contains(&yes), "{yes}");
    }

    #[test]
    fn a_share_is_converted_and_split_equally() {
        let (before, mut after) = (facts(4000), facts(4000));
        put_into(&mut after, None, 0.2, Key::new(1, "forms")).expect("a share");
        assert!(before.iter().zip(&after).all(|(a, b)| a.id == b.id));
        let changed = |end: &str| after.iter().filter(|e| text(e).0.ends_with(end)).count();
        for end in ["sentence:", "explain:", "yes or no?", "letter:"] {
            // 200 expected, five standard deviations.
            assert!((130..270).contains(&changed(end)), "{end} {}", changed(end));
        }
        assert_eq!(changed("word:"), 0);
        let wrong = put_into(&mut after, None, 1.5, Key::new(1, "forms"));
        assert!(wrong.is_err());
    }

    #[test]
    fn an_example_taken_away_leaves_which_others_are_converted() {
        let (mut all, mut less) = (facts(200), facts(200));
        less.remove(10);
        for examples in [&mut all, &mut less] {
            put_into(examples, Some(Form::Sentence), 0.3, Key::new(1, "forms")).expect("a share");
        }
        all.remove(10);
        let form = |e: &Example| text(e).0.lines().last().unwrap_or("").to_owned();
        assert!(all.iter().zip(&less).all(|(a, b)| form(a) == form(b)));
    }
}
