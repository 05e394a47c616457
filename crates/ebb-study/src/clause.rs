//! Clauses: what a study expects, as small typed expressions over the seeds of its arms.
//!
//! `arm.measure` is a *sample*: one value a seed. Arithmetic on samples is seed by seed, so that
//! `ewc.forgetting - plain.forgetting` is a paired difference. Where a clause needs one number a
//! sample stands for its mean.
//!
//! | form | meaning |
//! |---|---|
//! | `a.m <= b.m - 0.05` | compares means (`<`, `<=`, `>`, `>=`) |
//! | `abs(a.m - b.m) <= 0.01` | absolute value of the mean |
//! | `min(e)`, `max(e)` | over the seeds: "in every seed" |
//! | `count(a.m > b.m) >= 4` | number of seeds in which it holds |
//! | `paired(a.m - b.m) > 0 at 0.05` | exact one-sided sign-flip test (`!=`: two-sided) |

use crate::error::{Error, Result};
use ebb_space::stats::{self, Alternative};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a clause needs to know of an arm's measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// One value a seed, in the order of the seeds; NaN for a run that diverged.
    pub values: Vec<f64>,
    /// How they were measured; equal measures of different protocols are not compared.
    pub protocol: String,
}

/// Where the values of `arm.measure` come from.
pub type Samples = BTreeMap<(String, String), Sample>;

/// A clause that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    text: String,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq)]
enum Rule {
    Compare(Expr, Order, Expr),
    Paired {
        expr: Expr,
        side: Side,
        bound: f64,
        level: f64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Less,
    AtMost,
    More,
    AtLeast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Above,
    Below,
    Apart,
}

#[derive(Clone, Debug, PartialEq)]
enum Expr {
    Number(f64),
    Measure(String, String),
    Negative(Box<Expr>),
    Binary(Box<Expr>, char, Box<Expr>),
    Call(Function, Box<Expr>),
    Count(Box<Expr>, Order, Box<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Mean,
    Abs,
    Min,
    Max,
}

/// What a clause came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    /// Its name in the study.
    pub name: String,
    /// Its text.
    pub clause: String,
    /// The left side; none where a run diverged, so that nothing can be said.
    pub value: Option<f64>,
    /// The right side it was compared with, where it is a number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bound: Option<f64>,
    /// The test's p, of a paired clause.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p: Option<f64>,
    /// Whether it holds.
    pub holds: bool,
}

/// A value while an expression is evaluated.
enum Value {
    One(f64),
    PerSeed(Vec<f64>),
}

impl Value {
    fn mean(&self) -> f64 {
        match self {
            Value::One(x) => *x,
            Value::PerSeed(v) => v.iter().sum::<f64>() / v.len() as f64,
        }
    }

    fn zip(self, other: Value, f: impl Fn(f64, f64) -> f64) -> Value {
        match (self, other) {
            (Value::One(a), Value::One(b)) => Value::One(f(a, b)),
            (Value::One(a), Value::PerSeed(b)) => {
                Value::PerSeed(b.into_iter().map(|b| f(a, b)).collect())
            }
            (Value::PerSeed(a), Value::One(b)) => {
                Value::PerSeed(a.into_iter().map(|a| f(a, b)).collect())
            }
            (Value::PerSeed(a), Value::PerSeed(b)) => {
                Value::PerSeed(a.into_iter().zip(b).map(|(a, b)| f(a, b)).collect())
            }
        }
    }
}

impl Order {
    fn holds(self, a: f64, b: f64) -> bool {
        match self {
            Order::Less => a < b,
            Order::AtMost => a <= b,
            Order::More => a > b,
            Order::AtLeast => a >= b,
        }
    }
}

impl Clause {
    /// Reads a clause.
    ///
    /// # Errors
    /// [`Error::Clause`] with the place.
    pub fn parse(text: &str) -> Result<Clause> {
        let mut parser = Parser {
            text,
            tokens: tokens(text)?,
            at: 0,
        };
        let rule = parser.rule()?;
        match parser.peek() {
            None => Ok(Clause {
                text: text.trim().to_owned(),
                rule,
            }),
            Some(token) => Err(parser.wrong(format!("there is more after its end: {token}"))),
        }
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Every `(arm, measure)` it names, sorted.
    pub fn names(&self) -> Vec<(String, String)> {
        let mut names = Vec::new();
        match &self.rule {
            Rule::Compare(a, _, b) => {
                a.names(&mut names);
                b.names(&mut names);
            }
            Rule::Paired { expr, .. } => expr.names(&mut names),
        }
        names.sort();
        names.dedup();
        names
    }

    /// The same clause with other arms in the place of some.
    pub fn with_arms(&self, replace: &BTreeMap<String, String>) -> Clause {
        let mut clause = self.clone();
        match &mut clause.rule {
            Rule::Compare(a, _, b) => {
                a.rename(replace);
                b.rename(replace);
            }
            Rule::Paired { expr, .. } => expr.rename(replace),
        }
        clause
    }

    /// Refuses a test whose level cannot be reached with so many seeds.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub fn check_level(&self, seeds: usize) -> Result<()> {
        let Rule::Paired { side, level, .. } = &self.rule else {
            return Ok(());
        };
        let least = stats::min_reachable_p(seeds, side.alternative());
        if least <= *level {
            return Ok(());
        }
        let reaches = |n: &usize| stats::min_reachable_p(*n, side.alternative()) <= *level;
        Err(Error::Unreachable {
            clause: self.text.clone(),
            level: *level,
            seeds,
            least,
            needed: (1..=30).find(reaches).unwrap_or(31),
        })
    }

    /// Judges the clause.
    ///
    /// # Errors
    /// [`Error::NoMeasure`], [`Error::Protocols`], or a sample that is not finite.
    pub fn judge(&self, name: &str, samples: &Samples) -> Result<Judged> {
        let lost = |(arm, measure): (String, String)| {
            find(samples, &arm, &measure).map(|s| s.values.iter().any(|v| v.is_nan()))
        };
        let undecided = self
            .names()
            .into_iter()
            .map(lost)
            .collect::<Result<Vec<bool>>>()?;
        if undecided.contains(&true) {
            return Ok(Judged {
                name: name.to_owned(),
                clause: self.text.clone(),
                value: None,
                bound: None,
                p: None,
                holds: false,
            });
        }
        self.check_protocols(samples)?;
        let (value, bound, p, holds) = match &self.rule {
            Rule::Compare(a, order, b) => {
                let (a, b) = (a.value(samples)?.mean(), b.value(samples)?.mean());
                (a, b, None, order.holds(a, b))
            }
            Rule::Paired {
                expr,
                side,
                bound,
                level,
            } => {
                let value = expr.value(samples)?;
                let mean = value.mean();
                let Value::PerSeed(values) = value else {
                    return Err(self.wrong("`paired` tests a difference that has a value a seed"));
                };
                let shifted: Vec<f64> = values.iter().map(|v| v - bound).collect();
                let p = stats::paired_sign_flip(&shifted, side.alternative())?;
                (mean, *bound, Some(p), p <= *level)
            }
        };
        Ok(Judged {
            name: name.to_owned(),
            clause: self.text.clone(),
            value: Some(value),
            bound: Some(bound),
            p,
            holds,
        })
    }

    fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::Clause {
            clause: self.text.clone(),
            reason: reason.into(),
        }
    }

    /// Numbers of one name must have been measured in one way.
    fn check_protocols(&self, samples: &Samples) -> Result<()> {
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        for (arm, measure) in self.names() {
            let sample = find(samples, &arm, &measure)?;
            match known.get(&measure) {
                Some(protocol) if *protocol != sample.protocol => {
                    return Err(Error::Protocols {
                        measure,
                        left: protocol.clone(),
                        right: sample.protocol.clone(),
                    });
                }
                Some(_) => {}
                None => {
                    known.insert(measure, sample.protocol.clone());
                }
            }
        }
        Ok(())
    }
}

fn find<'a>(samples: &'a Samples, arm: &str, measure: &str) -> Result<&'a Sample> {
    samples
        .get(&(arm.to_owned(), measure.to_owned()))
        .ok_or_else(|| Error::NoMeasure {
            arm: arm.to_owned(),
            measure: measure.to_owned(),
            reason: "it was not measured".to_owned(),
        })
}

impl Side {
    fn alternative(self) -> Alternative {
        match self {
            Side::Above => Alternative::Greater,
            Side::Below => Alternative::Less,
            Side::Apart => Alternative::TwoSided,
        }
    }
}

impl Expr {
    fn names(&self, into: &mut Vec<(String, String)>) {
        match self {
            Expr::Number(_) => {}
            Expr::Measure(arm, measure) => into.push((arm.clone(), measure.clone())),
            Expr::Negative(e) | Expr::Call(_, e) => e.names(into),
            Expr::Binary(a, _, b) | Expr::Count(a, _, b) => {
                a.names(into);
                b.names(into);
            }
        }
    }

    fn rename(&mut self, replace: &BTreeMap<String, String>) {
        match self {
            Expr::Number(_) => {}
            Expr::Measure(arm, _) => {
                if let Some(other) = replace.get(arm) {
                    arm.clone_from(other);
                }
            }
            Expr::Negative(e) | Expr::Call(_, e) => e.rename(replace),
            Expr::Binary(a, _, b) | Expr::Count(a, _, b) => {
                a.rename(replace);
                b.rename(replace);
            }
        }
    }

    /// Whether it has a value a seed (or one alone).
    fn per_seed(&self) -> bool {
        match self {
            Expr::Number(_) | Expr::Call(..) | Expr::Count(..) => false,
            Expr::Measure(..) => true,
            Expr::Negative(e) => e.per_seed(),
            Expr::Binary(a, _, b) => a.per_seed() || b.per_seed(),
        }
    }

    fn value(&self, samples: &Samples) -> Result<Value> {
        Ok(match self {
            Expr::Number(x) => Value::One(*x),
            Expr::Measure(arm, measure) => {
                Value::PerSeed(find(samples, arm, measure)?.values.clone())
            }
            Expr::Negative(e) => Value::One(0.0).zip(e.value(samples)?, |a, b| a - b),
            Expr::Binary(a, operator, b) => {
                a.value(samples)?
                    .zip(b.value(samples)?, |a, b| match operator {
                        '+' => a + b,
                        '-' => a - b,
                        '*' => a * b,
                        _ => a / b,
                    })
            }
            Expr::Call(function, e) => {
                let value = e.value(samples)?;
                Value::One(match (function, &value) {
                    (Function::Mean, v) => v.mean(),
                    (Function::Abs, v) => v.mean().abs(),
                    (_, Value::One(x)) => *x,
                    (Function::Min, Value::PerSeed(v)) => fold(v, f64::min),
                    (Function::Max, Value::PerSeed(v)) => fold(v, f64::max),
                })
            }
            Expr::Count(a, order, b) => {
                let hits = a.value(samples)?.zip(b.value(samples)?, |a, b| {
                    f64::from(u8::from(order.holds(a, b)))
                });
                match hits {
                    Value::One(x) => Value::One(x),
                    Value::PerSeed(v) => Value::One(v.iter().sum()),
                }
            }
        })
    }
}

/// A fold over seeds; there is at least one, and none is NaN.
fn fold(values: &[f64], f: fn(f64, f64) -> f64) -> f64 {
    values.iter().copied().reduce(f).unwrap_or(f64::NAN)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(f64),
    Name(String),
    Symbol(&'static str),
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::Number(x) => write!(f, "{x}"),
            Token::Name(name) => f.write_str(name),
            Token::Symbol(s) => f.write_str(s),
        }
    }
}

const SYMBOLS: &[&str] = &[
    "<=", ">=", "!=", "<", ">", "(", ")", "+", "-", "*", "/", ".",
];

/// Names may hold `-` and `+` inside when written in back quotes: `` `der++`.accuracy ``.
fn tokens(text: &str) -> Result<Vec<Token>> {
    let wrong = |reason: String| Error::Clause {
        clause: text.to_owned(),
        reason,
    };
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('`') {
            let end = quoted
                .find('`')
                .ok_or_else(|| wrong("a quoted name has no end".into()))?;
            tokens.push(Token::Name(quoted[..end].to_owned()));
            rest = &quoted[end + 1..];
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(rest.len());
            tokens.push(Token::Name(rest[..end].to_owned()));
            rest = &rest[end..];
        } else if first.is_ascii_digit() {
            let end = number_end(rest);
            let value = rest[..end]
                .parse()
                .map_err(|_| wrong(format!("`{}` is no number", &rest[..end])))?;
            tokens.push(Token::Number(value));
            rest = &rest[end..];
        } else if let Some(symbol) = SYMBOLS.iter().find(|s| rest.starts_with(**s)) {
            tokens.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
        } else {
            return Err(wrong(format!("`{first}` has no meaning here")));
        }
        rest = rest.trim_start();
    }
    Ok(tokens)
}

fn number_end(text: &str) -> usize {
    let mut previous = ' ';
    for (i, c) in text.char_indices() {
        let exponent = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E');
        if !(c.is_ascii_digit() || c == '.' || matches!(c, 'e' | 'E') || exponent) {
            return i;
        }
        previous = c;
    }
    text.len()
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
}

impl Parser<'_> {
    fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::Clause {
            clause: self.text.trim().to_owned(),
            reason: reason.into(),
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn takes(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Symbol(s)) if *s == symbol);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<()> {
        match self.takes(symbol) {
            true => Ok(()),
            false => {
                let found = self
                    .peek()
                    .map_or("its end".to_owned(), ToString::to_string);
                Err(self.wrong(format!("expected `{symbol}`, found {found}")))
            }
        }
    }

    fn rule(&mut self) -> Result<Rule> {
        let is_test = self.peek() == Some(&Token::Name("paired".to_owned()))
            && self.tokens.get(self.at + 1) == Some(&Token::Symbol("("));
        if is_test {
            return self.paired();
        }
        let left = self.sum()?;
        let order = self.order()?;
        let right = self.sum()?;
        Ok(Rule::Compare(left, order, right))
    }

    fn paired(&mut self) -> Result<Rule> {
        self.at += 1;
        self.expect("(")?;
        let expr = self.sum()?;
        self.expect(")")?;
        if !expr.per_seed() {
            return Err(self.wrong("`paired` tests a difference that has a value a seed"));
        }
        let side = if self.takes(">") {
            Side::Above
        } else if self.takes("<") {
            Side::Below
        } else if self.takes("!=") {
            Side::Apart
        } else {
            return Err(self.wrong("a test is `paired(…) > 0 at 0.05`, or with `<` or `!=`"));
        };
        let bound = self.number()?;
        match self.next() {
            Some(Token::Name(at)) if at == "at" => {}
            _ => return Err(self.wrong("a test names its level: `at 0.05`")),
        }
        let level = self.number()?;
        if !(level > 0.0 && level < 1.0) {
            return Err(self.wrong(format!("a level lies between 0 and 1, not at {level}")));
        }
        Ok(Rule::Paired {
            expr,
            side,
            bound,
            level,
        })
    }

    fn number(&mut self) -> Result<f64> {
        let sign = if self.takes("-") { -1.0 } else { 1.0 };
        match self.next() {
            Some(Token::Number(x)) => Ok(sign * x),
            _ => Err(self.wrong("expected a number")),
        }
    }

    fn order(&mut self) -> Result<Order> {
        let orders = [
            ("<=", Order::AtMost),
            (">=", Order::AtLeast),
            ("<", Order::Less),
            (">", Order::More),
        ];
        for (symbol, order) in orders {
            if self.takes(symbol) {
                return Ok(order);
            }
        }
        Err(self.wrong("expected a comparison: <, <=, > or >="))
    }

    fn sum(&mut self) -> Result<Expr> {
        let mut left = self.product()?;
        loop {
            let operator = match (self.takes("+"), self.takes("-")) {
                (true, _) => '+',
                (_, true) => '-',
                _ => return Ok(left),
            };
            left = Expr::Binary(Box::new(left), operator, Box::new(self.product()?));
        }
    }

    fn product(&mut self) -> Result<Expr> {
        let mut left = self.atom()?;
        loop {
            let operator = match (self.takes("*"), self.takes("/")) {
                (true, _) => '*',
                (_, true) => '/',
                _ => return Ok(left),
            };
            left = Expr::Binary(Box::new(left), operator, Box::new(self.atom()?));
        }
    }

    fn atom(&mut self) -> Result<Expr> {
        match self.next() {
            Some(Token::Number(x)) => Ok(Expr::Number(x)),
            Some(Token::Symbol("-")) => Ok(Expr::Negative(Box::new(self.atom()?))),
            Some(Token::Symbol("(")) => {
                let inner = self.sum()?;
                self.expect(")")?;
                Ok(inner)
            }
            Some(Token::Name(name)) if self.takes("(") => self.call(&name),
            Some(Token::Name(arm)) => {
                if !self.takes(".") {
                    return Err(self.wrong(format!("a measure is `arm.measure`; `{arm}` is alone")));
                }
                match self.next() {
                    Some(Token::Name(measure)) => Ok(Expr::Measure(arm, measure)),
                    _ => Err(self.wrong(format!("`{arm}.` is followed by no measure"))),
                }
            }
            Some(token) => Err(self.wrong(format!("{token} cannot stand here"))),
            None => Err(self.wrong("it ends too early")),
        }
    }

    fn call(&mut self, name: &str) -> Result<Expr> {
        let inner = self.sum()?;
        let function = match name {
            "count" => {
                let order = self.order()?;
                let right = self.sum()?;
                self.expect(")")?;
                return Ok(Expr::Count(Box::new(inner), order, Box::new(right)));
            }
            "mean" => Function::Mean,
            "abs" => Function::Abs,
            "min" => Function::Min,
            "max" => Function::Max,
            "paired" => return Err(self.wrong("a `paired` test stands alone in its clause")),
            _ => {
                return Err(self.wrong(format!(
                    "there is no `{name}(…)`; there are mean, abs, min, max, count and paired"
                )));
            }
        };
        self.expect(")")?;
        Ok(Expr::Call(function, Box::new(inner)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Samples {
        let sample = |values: &[f64]| Sample {
            values: values.to_vec(),
            protocol: "digits".into(),
        };
        let key = |a: &str, m: &str| (a.to_owned(), m.to_owned());
        BTreeMap::from([
            (key("ewc", "acc"), sample(&[0.8, 0.9, 0.7, 0.8, 0.8])),
            (key("plain", "acc"), sample(&[0.6, 0.6, 0.5, 0.7, 0.6])),
            (key("der++", "acc"), sample(&[0.6, 0.6, 0.5, 0.9, 0.6])),
            (key("ewc", "loss"), sample(&[1.0, 2.0, 3.0, 4.0, 5.0])),
        ])
    }

    fn judge(text: &str) -> Judged {
        let clause = Clause::parse(text).unwrap();
        clause.judge("c", &samples()).unwrap()
    }

    #[test]
    fn means_are_compared_with_the_usual_precedence() {
        let j = judge("ewc.acc >= plain.acc + 0.1 * 2");
        // Means 0.8 and 0.6: on the bound, up to rounding.
        assert!((j.value.unwrap() - 0.8).abs() < 1e-12 && (j.bound.unwrap() - 0.8).abs() < 1e-12);
        assert!(judge("ewc.acc - plain.acc > 0.19").holds);
        assert!(!judge("ewc.acc - plain.acc > 0.21").holds);
        assert!(judge("-(plain.acc - ewc.acc) / 2 < 0.11").holds);
        assert!(judge("2 - 1 - 1 <= 0").holds, "from the left");
        assert!(judge("8 / 2 / 2 <= 2").holds);
        assert!(judge("1e-3 < 2.5E+1").holds);
    }

    #[test]
    fn samples_reduce_as_named() {
        assert!((judge("abs(plain.acc - ewc.acc) <= 1").value.unwrap() - 0.2).abs() < 1e-12);
        assert!((judge("min(ewc.acc - plain.acc) >= 0").value.unwrap() - 0.1).abs() < 1e-12);
        assert!((judge("max(ewc.acc - plain.acc) >= 0").value.unwrap() - 0.3).abs() < 1e-12);
        assert_eq!(judge("mean(ewc.loss) >= 3").value, Some(3.0));
        assert_eq!(judge("count(ewc.acc > `der++`.acc) >= 4").value, Some(4.0));
        // A mean of absolute values is not what `abs` means: the signs cancel first.
        assert!(judge("abs(ewc.loss - 3) <= 0").holds);
    }

    #[test]
    fn paired_tests_are_exact_and_one_sided() {
        let j = judge("paired(ewc.acc - plain.acc) > 0 at 0.05");
        assert_eq!((j.p, j.holds), (Some(1.0 / 32.0), true));
        let j = judge("paired(ewc.acc - plain.acc) < 0 at 0.05");
        assert_eq!((j.p, j.holds), (Some(1.0), false));
        let j = judge("paired(ewc.acc - plain.acc) != 0 at 0.1");
        assert_eq!((j.p, j.holds), (Some(2.0 / 32.0), true));
        // Shifted by its bound: all five differences exceed 0.05.
        assert!(judge("paired(ewc.acc - plain.acc) > 0.05 at 0.05").holds);
        assert!(!judge("paired(ewc.acc - plain.acc) > 0.15 at 0.05").holds);
    }

    #[test]
    fn a_level_that_cannot_be_reached_is_refused() {
        let clause = Clause::parse("paired(a.m - b.m) > 0 at 0.05").unwrap();
        assert!(clause.check_level(5).is_ok());
        let text = clause.check_level(4).unwrap_err().to_string();
        assert!(
            text.contains("at least 5 seeds") && text.contains("0.0625"),
            "{text}"
        );
        let two = Clause::parse("paired(a.m - b.m) != 0 at 0.05").unwrap();
        assert!(two.check_level(5).is_err() && two.check_level(6).is_ok());
        assert!(Clause::parse("a.m > 0").unwrap().check_level(1).is_ok());
    }

    #[test]
    fn other_arms_may_stand_in() {
        let clause = Clause::parse("paired(ewc.acc - plain.acc) > 0 at 0.05").unwrap();
        let replace = BTreeMap::from([("ewc".to_owned(), "plain".to_owned())]);
        let other = clause.with_arms(&replace);
        assert_eq!(other.names(), [("plain".to_owned(), "acc".to_owned())]);
        assert!(!other.judge("c", &samples()).unwrap().holds);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (text, why) in [
            ("ewc.acc", "comparison"),
            ("ewc > 1", "`arm.measure`"),
            ("ewc. > 1", "no measure"),
            ("median(ewc.acc) > 1", "there is no `median"),
            ("(ewc.acc > 1", "expected `)`"),
            ("ewc.acc > 1 2", "more after its end"),
            ("ewc.acc > ", "too early"),
            ("paired(ewc.acc) > 0", "names its level"),
            ("paired(ewc.acc) > 0 at 2", "between 0 and 1"),
            ("paired(mean(ewc.acc)) > 0 at 0.05", "a value a seed"),
            ("paired(1) > 0 at 0.05", "a value a seed"),
            ("1 + paired(ewc.acc) > 0", "stands alone"),
            ("ewc.acc # 1", "no meaning"),
            ("`ewc.acc > 1", "no end"),
            ("1.2.3 > 1", "no number"),
        ] {
            let error = Clause::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn unknown_and_incomparable_numbers_are_refused() {
        let judged =
            |text: &str, samples: &Samples| Clause::parse(text).unwrap().judge("c", samples);
        let error = judged("ewc.bwt > 0", &samples()).unwrap_err();
        assert!(matches!(error, Error::NoMeasure { .. }));
        let mut mixed = samples();
        let plain = ("plain".to_owned(), "acc".to_owned());
        mixed.get_mut(&plain).unwrap().protocol = "mnist".into();
        let error = judged("ewc.acc > plain.acc", &mixed).unwrap_err();
        assert!(matches!(error, Error::Protocols { .. }), "{error}");
        // Different measures are by nature different protocols.
        assert!(judged("ewc.loss > plain.acc", &mixed).is_ok());
    }

    #[test]
    fn a_run_that_diverged_leaves_its_clauses_undecided() {
        let mut broken = samples();
        broken
            .get_mut(&("ewc".to_owned(), "acc".to_owned()))
            .unwrap()
            .values[2] = f64::NAN;
        for text in [
            "ewc.acc > 0",
            "ewc.acc <= 0",
            "min(ewc.acc) <= 9",
            "count(ewc.acc > 0) >= 0",
            "paired(ewc.acc - plain.acc) > 0 at 0.05",
        ] {
            let judged = Clause::parse(text).unwrap().judge("c", &broken).unwrap();
            assert!(!judged.holds && judged.value.is_none(), "{text}");
        }
        let other = Clause::parse("ewc.loss > plain.acc").unwrap();
        assert!(other.judge("c", &broken).unwrap().holds);
    }
}
