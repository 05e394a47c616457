//! Grids: the values that are tried of each key of a recipe.

use crate::recipe::value_of;
use std::str::FromStr;

/// A key of a recipe and the values tried of it, as TOML.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// The key, such as `train.lr`.
    pub key: String,
    /// The values, as a recipe would spell them.
    pub values: Vec<String>,
}

impl FromStr for Axis {
    type Err = String;

    /// Reads `KEY=VALUE,VALUE,…`, where `LOW..HIGH:N` stands for N values in equal ratios.
    fn from_str(text: &str) -> Result<Axis, String> {
        let (key, list) = text
            .split_once('=')
            .map(|(key, list)| (key.trim(), list.trim()))
            .filter(|(key, list)| !key.is_empty() && !list.is_empty())
            .ok_or("a grid looks like train.lr=0.01,0.03,0.1 or with.lambda=1..1e4:5")?;
        let mut values = Vec::new();
        for part in parts(list) {
            match range(part)? {
                Some(range) => values.extend(range),
                None if part.is_empty() => return Err(format!("`{text}` has an empty value")),
                None => values.push(part.to_owned()),
            }
        }
        if let Some((i, twice)) = values
            .iter()
            .enumerate()
            .find(|(i, value)| values[..*i].contains(value))
        {
            return Err(format!("`{text}`: value {} is `{twice}` again", i + 1));
        }
        Ok(Axis {
            key: key.to_owned(),
            values,
        })
    }
}

impl Axis {
    /// The values as numbers, if all of them are.
    pub fn numbers(&self) -> Option<Vec<f64>> {
        let number = |text: &String| match value_of(text) {
            toml::Value::Integer(i) => Some(i as f64),
            toml::Value::Float(f) => Some(f),
            _ => None,
        };
        self.values.iter().map(number).collect()
    }

    /// Whether `chosen` lies at an end of the grid, so that a wider one might choose another:
    /// the smallest or largest of numbers, the first or last of lists and tables. Words have no
    /// order and so no end.
    pub fn at_edge(&self, chosen: &str) -> bool {
        let Some(at) = self.values.iter().position(|v| v == chosen) else {
            return false;
        };
        if self.values.len() < 2 {
            return false;
        }
        if let Some(numbers) = self.numbers() {
            let below = numbers.iter().any(|n| *n < numbers[at]);
            let above = numbers.iter().any(|n| *n > numbers[at]);
            return !(below && above);
        }
        let ordered = !matches!(value_of(chosen), toml::Value::String(_));
        ordered && (at == 0 || at + 1 == self.values.len())
    }
}

/// Every combination of the values, the last axis changing fastest.
pub fn crossed(grid: &[Axis]) -> Vec<Vec<(String, String)>> {
    let mut all = vec![Vec::new()];
    for axis in grid {
        let longer = |sets: &Vec<(String, String)>| {
            let with = |value: &String| {
                let mut sets = sets.clone();
                sets.push((axis.key.clone(), value.clone()));
                sets
            };
            axis.values.iter().map(with).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

/// The first of the highest scores; a trial without one cannot win.
pub fn best(scores: &[Option<f64>]) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, score) in scores.iter().enumerate() {
        if let Some(score) = score
            && best.is_none_or(|(_, high)| *score > high)
        {
            best = Some((i, *score));
        }
    }
    best.map(|(i, _)| i)
}

/// A list's parts: the text between commas that stand in no bracket and no quotes.
fn parts(list: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quote) = (Vec::new(), 0, 0usize, None);
    for (at, c) in list.char_indices() {
        match (quote, c) {
            (Some(open), c) => quote = Some(open).filter(|open| *open != c),
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(list[start..].trim());
    parts
}

/// The values of `LOW..HIGH:N`, in equal ratios; nothing for a text of another form. Whole
/// numbers stay whole if both ends are written so.
fn range(text: &str) -> Result<Option<Vec<String>>, String> {
    let Some((ends, count)) = text.rsplit_once(':') else {
        return Ok(None);
    };
    let Some((low, high)) = ends.split_once("..") else {
        return Ok(None);
    };
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|n| n.is_finite());
    let (Some(from), Some(to)) = (number(low), number(high)) else {
        return Ok(None);
    };
    let wrong = |why: &str| Err(format!("the range `{text}` {why}"));
    let n = match count.trim().parse::<usize>() {
        Ok(n) if (2..=1000).contains(&n) => n,
        _ => return wrong("needs a number of values from 2 to 1000 behind its `:`"),
    };
    if from <= 0.0 || to <= 0.0 {
        return wrong("has equal ratios, so its ends lie above 0; list a 0 by itself: 0,1..100:3");
    }
    let whole = |text: &str| text.trim().parse::<i64>().is_ok();
    let whole = whole(low) && whole(high);
    let value = |i: usize| match i {
        0 => from,
        i if i + 1 == n => to,
        i => from * (to / from).powf(i as f64 / (n - 1) as f64),
    };
    let written = |x: f64| match whole {
        true => format!("{x:.0}"),
        // Six digits are more than any search resolves, and hide the rounding of the power.
        false => format!("{:?}", format!("{x:.5e}").parse().unwrap_or(x)),
    };
    let values: Vec<String> = (0..n).map(|i| written(value(i))).collect();
    match values.windows(2).any(|pair| pair[0] == pair[1]) {
        true => wrong("comes to the same value twice; take fewer values (or write 1.0 for 1)"),
        false => Ok(Some(values)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<String> {
        text.parse::<Axis>().unwrap().values
    }

    #[test]
    fn lists_and_ranges_are_read() {
        assert_eq!(values("train.lr=0.01, 0.03,0.1"), ["0.01", "0.03", "0.1"]);
        assert_eq!(
            values("with.lambda=1..1e4:5"),
            ["1.0", "10.0", "100.0", "1000.0", "10000.0"]
        );
        assert_eq!(values("with.capacity=10..1000:3"), ["10", "100", "1000"]);
        assert_eq!(values("x=0,1..100:3"), ["0", "1", "10", "100"]);
        // Each half the one before.
        assert_eq!(
            values("x=1e4..1250:4"),
            ["10000.0", "5000.0", "2500.0", "1250.0"]
        );
        assert_eq!(
            values("network.hidden=[100, 100],[20]"),
            ["[100, 100]", "[20]"]
        );
        assert_eq!(values("a='x,y',{ b = 1, c = 2 }").len(), 2);
    }

    #[test]
    fn every_refusal_says_what_is_wrong() {
        for (text, why) in [
            ("train.lr", "looks like"),
            ("=3", "looks like"),
            ("a=", "looks like"),
            ("a=1,,2", "empty value"),
            ("a=1,2,1", "value 3 is `1` again"),
            ("a=0..10:3", "above 0"),
            ("a=1..10:1", "from 2 to 1000"),
            ("a=1..2:5", "same value twice"),
        ] {
            let error = text.parse::<Axis>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn every_combination_comes_once_the_last_key_fastest() {
        let grid: Vec<Axis> = ["a=1,2", "b=x,y,z"].map(|t| t.parse().unwrap()).into();
        let words: Vec<String> = crossed(&grid)
            .iter()
            .map(|sets| sets.iter().map(|(_, v)| v.as_str()).collect())
            .collect();
        assert_eq!(words, ["1x", "1y", "1z", "2x", "2y", "2z"]);
        assert_eq!(crossed(&[]), [Vec::new()]);
    }

    #[test]
    fn the_first_of_the_highest_wins_and_a_failure_never() {
        assert_eq!(best(&[None, Some(0.2), Some(0.5), Some(0.5)]), Some(2));
        assert_eq!(best(&[Some(-3.0), None]), Some(0));
        assert_eq!(best(&[None, None]), None);
    }

    #[test]
    fn an_edge_is_an_end_of_what_was_tried() {
        let edge = |text: &str, chosen: &str| text.parse::<Axis>().unwrap().at_edge(chosen);
        // Whatever the order in which they were listed.
        assert!(edge("a=0.1,0.01,1", "0.01") && edge("a=0.1,0.01,1", "1"));
        assert!(!edge("a=0.1,0.01,1", "0.1"));
        assert!(!edge("a=3", "3"));
        assert!(!edge("method=er,der,ewc", "er"));
        assert!(edge("a=[1],[2],[3]", "[1]") && !edge("a=[1],[2],[3]", "[2]"));
    }
}
