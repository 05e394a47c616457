//! Chat templates: Jinja, with what `transformers` adds to it.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value as Jinja, ValueKind};
use minijinja::{Environment, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: most templates know `system`, `user` and `assistant`.
    pub role: String,
    /// What is said: a text, or what else the template expects.
    #[serde(default)]
    pub content: Value,
    /// Further fields, such as `tool_calls`.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Message {
    /// A turn that is a text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message {
            role: role.into(),
            content: Value::String(content.into()),
            more: Map::new(),
        }
    }
}

/// What a template may ask for beside the messages.
#[derive(Clone, Debug, Default)]
pub struct ChatOptions {
    /// Ends the prompt where the assistant begins to speak.
    pub add_generation_prompt: bool,
    /// Descriptions of tools, as JSON schemas.
    pub tools: Option<Vec<Value>>,
    /// Further variables, such as `enable_thinking`.
    pub more: Map<String, Value>,
    /// The time for templates that write the date, in seconds since 1970 (UTC); the clock's if
    /// not said. Say it where the same conversation must give the same prompt tomorrow.
    pub now: Option<u64>,
}

/// A template that turns messages into a prompt.
///
/// It is rendered as `transformers` does: blocks take their line with them, `raise_exception`,
/// `strftime_now`, `tojson` in Python's spelling, methods of Python's strings and dictionaries,
/// `break` and `continue`, and `{% generation %}` blocks, which change nothing in the text.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    tokens: Map<String, Value>,
}

impl ChatTemplate {
    /// A template, and the special tokens that it may name: `bos_token`, `eos_token`, ...
    ///
    /// # Errors
    /// [`Error::Template`] if it is not valid Jinja.
    pub fn new(source: &str, tokens: Map<String, Value>) -> Result<ChatTemplate> {
        let source = without_generation(source);
        environment(0)?
            .template_from_str(&source)
            .map_err(|e| syntax(&e))?;
        Ok(ChatTemplate { source, tokens })
    }

    /// The prompt for these messages.
    ///
    /// # Errors
    /// [`Error::Template`] if the template refuses them, with the reason that it gives.
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<String> {
        let clock = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| d.as_secs())
        };
        let environment = environment(options.now.unwrap_or_else(clock))?;
        let template = environment
            .template_from_str(&self.source)
            .map_err(|e| syntax(&e))?;
        let mut context = self.tokens.clone();
        context.insert(
            "add_generation_prompt".into(),
            options.add_generation_prompt.into(),
        );
        context.insert("tools".into(), options.tools.clone().into());
        context.insert("documents".into(), Value::Null);
        context.extend(options.more.clone());
        let messages = messages
            .iter()
            .map(serde_json::to_value)
            .collect::<std::result::Result<Vec<_>, _>>();
        let messages =
            messages.map_err(|e| Error::Template(format!("got no valid message: {e}")))?;
        context.insert("messages".into(), messages.into());
        template.render(Jinja::from(Serde(&context))).map_err(|e| {
            let detail = e.detail().map_or_else(|| e.to_string(), str::to_owned);
            let line = e
                .line()
                .map_or_else(String::new, |line| format!(" in line {line}"));
            Error::Template(format!("refuses the conversation{line}: {detail}"))
        })
    }
}

fn syntax(e: &minijinja::Error) -> Error {
    Error::Template(format!("is not valid Jinja: {e}"))
}

fn environment(now: u64) -> Result<Environment<'static>> {
    let lines = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    let mut environment = Environment::new();
    // A template comes from outside and might never end: the longest conversations take a
    // thousandth of this.
    environment.set_fuel(Some(100_000_000));
    environment.set_syntax(lines.map_err(|e| syntax(&e))?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|out, state, value| {
        let python = match value.kind() {
            ValueKind::Bool if value.is_true() => "True",
            ValueKind::Bool => "False",
            ValueKind::None => "None",
            _ => return minijinja::escape_formatter(out, state, value),
        };
        out.write_str(python).map_err(minijinja::Error::from)
    });
    environment.add_function("raise_exception", |message: String| {
        Err::<Jinja, _>(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", move |format: String| strftime(&format, now));
    environment.add_filter("tojson", |value: Serde<Value>, options: Kwargs| {
        let indent: Option<usize> = options.get("indent")?;
        let sorted: Option<bool> = options.get("sort_keys")?;
        let _: Option<bool> = options.get("ensure_ascii")?;
        options.assert_all_used()?;
        let mut out = String::new();
        let style = Json {
            // Deeper than any person reads; it keeps a template from asking for gigabytes.
            indent: indent.map(|n| n.min(16)),
            sorted: sorted.unwrap_or(false),
        };
        style.write(&value.0, 0, &mut out);
        Ok::<_, minijinja::Error>(Jinja::from(out))
    });
    Ok(environment)
}

/// JSON as Python's `json.dumps(..., ensure_ascii=False)` spells it.
struct Json {
    indent: Option<usize>,
    sorted: bool,
}

impl Json {
    fn write(&self, value: &Value, depth: usize, out: &mut String) {
        match value {
            Value::Array(values) if !values.is_empty() => {
                let items = values.iter().map(|value| (None, value));
                self.list(['[', ']'], items, depth, out);
            }
            Value::Object(map) if !map.is_empty() => {
                let mut items: Vec<_> = map.iter().map(|(key, value)| (Some(key), value)).collect();
                if self.sorted {
                    items.sort_by_key(|(key, _)| *key);
                }
                self.list(['{', '}'], items.into_iter(), depth, out);
            }
            other => out.push_str(&other.to_string()),
        }
    }

    fn list<'a>(
        &self,
        [open, close]: [char; 2],
        items: impl Iterator<Item = (Option<&'a String>, &'a Value)>,
        depth: usize,
        out: &mut String,
    ) {
        let line = |out: &mut String, depth: usize| {
            if let Some(indent) = self.indent {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent * depth));
            }
        };
        out.push(open);
        for (i, (key, value)) in items.enumerate() {
            if i > 0 {
                out.push_str(if self.indent.is_some() { "," } else { ", " });
            }
            line(out, depth + 1);
            if let Some(key) = key {
                out.push_str(&Value::String(key.clone()).to_string());
                out.push_str(": ");
            }
            self.write(value, depth + 1, out);
        }
        line(out, depth);
        out.push(close);
    }
}

/// Takes `{% generation %}` for a block that is always rendered.
fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (inside, after) = (&tag[2..end], &tag[end + 2..]);
        let word = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let replaced = match word {
            "generation" => inside.replacen(word, "if true", 1),
            "endgeneration" => inside.replacen(word, "endif", 1),
            _ => inside.to_owned(),
        };
        out.push_str("{%");
        out.push_str(&replaced);
        out.push_str("%}");
        rest = after;
    }
    out.push_str(rest);
    out
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// A moment as text, in UTC; the letters that dates and times are written with.
fn strftime(format: &str, seconds: u64) -> std::result::Result<String, minijinja::Error> {
    // A template cannot ask for the year ten million.
    let days = (seconds / 86_400).min(365_000_000);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day) = date(days);
    let weekday = DAYS[(days % 7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        out.push_str(&match letters.next() {
            Some('Y') => format!("{year}"),
            Some('y') => format!("{:02}", year % 100),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('e') => format!("{day:2}"),
            Some('B') => month_name.to_owned(),
            Some('b') => month_name[..3].to_owned(),
            Some('A') => weekday.to_owned(),
            Some('a') => weekday[..3].to_owned(),
            Some('H') => format!("{hour:02}"),
            Some('I') => format!("{:02}", (hour + 11) % 12 + 1),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('M') => format!("{minute:02}"),
            Some('S') => format!("{second:02}"),
            Some('%') => "%".to_owned(),
            other => {
                let other = other.map_or_else(String::new, String::from);
                let what = format!("strftime_now: `%{other}` is not known");
                return Err(minijinja::Error::new(ErrorKind::InvalidOperation, what));
            }
        });
    }
    Ok(out)
}

/// Year, month and day of a day counted from 1 January 1970.
fn date(days: u64) -> (u64, u64, u64) {
    // Counted from 1 March of the year 0, so that leap days end years; 146 097 days are 400 years.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (
        400 * era + year + u64::from(month <= 2),
        month,
        day_of_month,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, Map::new()).expect("valid Jinja")
    }

    fn render(source: &str) -> String {
        let messages = [Message::new("user", " hi ")];
        template(source)
            .render(&messages, &ChatOptions::default())
            .expect("rendered")
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "Thursday 01 January 1970 00:00:00"),
            (951_827_696, "Tuesday 29 February 2000 12:34:56"),
            (1_735_689_599, "Tuesday 31 December 2024 23:59:59"),
            (4_107_542_400, "Monday 01 March 2100 00:00:00"),
        ] {
            assert_eq!(
                strftime("%A %d %B %Y %H:%M:%S", seconds).expect("known"),
                expected
            );
        }
        assert!(strftime("%Q", 0).is_err());
        assert!(strftime("%", 0).is_err());
    }

    #[test]
    fn what_python_adds_to_jinja() {
        assert_eq!(
            render("{{ messages[0].content.strip() }}|{{ true }}|{{ none }}"),
            "hi|True|None"
        );
        assert_eq!(
            render(
                "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}"
            ),
            "013"
        );
        assert_eq!(
            render(
                "{% set n = namespace(x=1) %}{% for i in [1, 2] %}{% set n.x = n.x + i %}{% endfor %}{{ n.x }}"
            ),
            "4"
        );
        assert_eq!(render("a{%- generation %} b{% endgeneration -%} c"), "a bc");
        assert_eq!(
            render("{{ {'a': [1, 'é'], 'b': {}} | tojson }}"),
            r#"{"a": [1, "é"], "b": {}}"#
        );
        assert_eq!(
            render("{{ [1, {'a': 2}] | tojson(indent=2) }}"),
            "[\n  1,\n  {\n    \"a\": 2\n  }\n]"
        );
    }

    #[test]
    fn a_template_that_refuses_says_why() {
        let refuses = template("{{ raise_exception('roles must alternate') }}");
        let error = refuses
            .render(&[], &ChatOptions::default())
            .expect_err("refused");
        assert!(
            error.to_string().contains("roles must alternate"),
            "{error}"
        );
        let error = ChatTemplate::new("{% if %}", Map::new()).expect_err("no Jinja");
        assert!(error.to_string().contains("not valid Jinja"), "{error}");
    }
}
