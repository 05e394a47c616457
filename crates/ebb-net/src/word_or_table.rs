//! Choices that a recipe may write as one word: `"relu"` stands for `{ kind = "relu" }`, and
//! `"hard-ash"` for that table with every default. Written back, a choice without parameters is
//! the word, any other the table.

use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// A choice that may have a name and nothing else.
pub(crate) trait Word {
    /// Its name, where it has no parameters.
    fn word(&self) -> Option<&'static str>;
}

pub(crate) fn serialize<T: Word + Serialize, S: Serializer>(
    choice: &T,
    to: S,
) -> Result<S::Ok, S::Error> {
    match choice.word() {
        Some(word) => to.serialize_str(word),
        None => choice.serialize(to),
    }
}

pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<T, D::Error> {
    from.deserialize_any(Either(PhantomData))
}

struct Either<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name, or a table with `kind`")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<T, E> {
        T::deserialize(MapDeserializer::<_, E>::new(std::iter::once((
            "kind", word,
        ))))
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(table))
    }
}

/// For a variant without parameters, which would otherwise accept any.
pub(crate) fn nothing_else<'de, D: Deserializer<'de>>(from: D) -> Result<(), D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Empty {}
    Empty::deserialize(from).map(|Empty {}| ())
}
