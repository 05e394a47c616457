//! JSON has no NaN and no infinity, yet a loss that became one is the record that matters most:
//! such values are written as the strings `"NaN"`, `"inf"` and `"-inf"`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Number(f64),
    Name(String),
}

impl From<f64> for Text {
    fn from(value: f64) -> Text {
        if value.is_finite() {
            Text::Number(value)
        } else {
            Text::Name(value.to_string())
        }
    }
}

impl Text {
    fn value(self) -> Result<f64, String> {
        match self {
            Text::Number(value) => Ok(value),
            Text::Name(name) => match name.as_str() {
                "NaN" => Ok(f64::NAN),
                "inf" => Ok(f64::INFINITY),
                "-inf" => Ok(f64::NEG_INFINITY),
                _ => Err(format!("`{name}` is not a number")),
            },
        }
    }
}

pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    Text::from(*value).serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Text::deserialize(deserializer)?
        .value()
        .map_err(D::Error::custom)
}

/// The same for the values of a map.
pub(crate) mod map {
    use std::collections::BTreeMap;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Text;

    pub fn serialize<S: Serializer>(
        values: &BTreeMap<String, f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            values
                .iter()
                .map(|(name, &value)| (name, Text::from(value))),
        )
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, f64>, D::Error> {
        let texts = BTreeMap::<String, Text>::deserialize(deserializer)?;
        let values = texts
            .into_iter()
            .map(|(name, text)| Ok((name, text.value()?)));
        values
            .collect::<Result<_, String>>()
            .map_err(D::Error::custom)
    }
}
