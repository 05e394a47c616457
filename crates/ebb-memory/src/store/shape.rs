//! What the records of a store look like.

use serde::{Deserialize, Serialize};

use crate::record::{Form, Payload, Values, length};
use crate::{Error, Result};

/// What an input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Input {
    /// So many values of four bytes: an image as the network saw it, or tokens.
    F32(u32),
    /// So many codes of one byte: an image.
    U8(u32),
    /// Bytes, of any number: texts, or whatever the user packs.
    Bytes,
}

/// The shape of every record of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Its input.
    pub input: Input,
    /// Logits kept beside each input, if any.
    pub logits: Option<u32>,
    /// Features kept beside each input, if any.
    pub features: Option<u32>,
}

impl TryFrom<Form> for Shape {
    type Error = Error;

    /// # Errors
    /// [`Error::Config`] for a width of 0 or beyond `u32`.
    fn try_from(form: Form) -> Result<Shape> {
        let narrow = |width: usize| {
            u32::try_from(width)
                .map_err(|_| Error::Config(format!("a width of {width} is too large")))
        };
        let input = narrow(form.input)?;
        let shape = Shape {
            input: match form.payload {
                Payload::F32 => Input::F32(input),
                Payload::U8 => Input::U8(input),
            },
            logits: form.logits.map(narrow).transpose()?,
            features: form.features.map(narrow).transpose()?,
        };
        shape.check()?;
        Ok(shape)
    }
}

/// Bytes of one payload, at most.
pub(crate) const LONGEST: u64 = 1 << 30;

impl Shape {
    /// Refuses widths of nothing and beyond a gibibyte.
    pub(crate) fn check(&self) -> Result<()> {
        let widths = [
            ("the width of an input", self.unit()),
            ("the number of logits", self.logits),
            ("the number of features", self.features),
        ];
        for (what, width) in widths {
            match width {
                Some(0) => {
                    return Err(Error::Config(format!(
                        "{what} is 0; set it to at least 1, or leave it out"
                    )));
                }
                Some(width) if u64::from(width) * 4 > LONGEST => {
                    return Err(Error::Config(format!(
                        "{what}, {width}, exceeds a gibibyte"
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Bytes of a payload, where all have the same.
    pub(crate) fn unit(&self) -> Option<u32> {
        match self.input {
            Input::F32(width) => Some(width.saturating_mul(4)),
            Input::U8(width) => Some(width),
            Input::Bytes => None,
        }
    }
}

/// Payloads as they are offered.
#[derive(Clone, Copy)]
pub(crate) enum Inputs<'a> {
    Rows(Values<'a>),
    Bytes(&'a [&'a [u8]]),
}

impl Inputs<'_> {
    /// Checks that these are `count` payloads of `input`.
    pub fn check(&self, input: Input, count: usize) -> Result<()> {
        let refuse = |kept, what| Err(Error::Payload { kept, what });
        match (*self, input) {
            (Inputs::Rows(Values::F32(values)), Input::F32(width)) => {
                length("inputs", values.len(), count * width as usize)
            }
            (Inputs::Rows(Values::U8(codes)), Input::U8(width)) => {
                length("inputs", codes.len(), count * width as usize)
            }
            (Inputs::Bytes(rows), Input::Bytes) => {
                if let Some(long) = rows.iter().find(|row| row.len() as u64 > LONGEST) {
                    let len = long.len();
                    return Err(Error::Config(format!(
                        "a payload of {len} bytes exceeds a gibibyte"
                    )));
                }
                length("inputs", rows.len(), count)
            }
            (Inputs::Rows(Values::F32(_)), Input::U8(_)) => refuse("u8", "is offered f32 rows"),
            (Inputs::Rows(Values::U8(_)), Input::F32(_)) => refuse("f32", "is offered u8 rows"),
            (Inputs::Rows(_), Input::Bytes) => refuse("bytes", "is offered rows of values"),
            (Inputs::Bytes(_), _) => refuse("rows of values", "is offered bytes"),
        }
    }

    /// Appends row `row` as it lies on disk.
    pub fn push(&self, row: usize, unit: Option<u32>, out: &mut Vec<u8>) {
        match (*self, unit) {
            (Inputs::Rows(Values::F32(values)), Some(unit)) => {
                let width = unit as usize / 4;
                super::row::push_floats(&values[row * width..][..width], out);
            }
            (Inputs::Rows(Values::U8(codes)), Some(unit)) => {
                out.extend_from_slice(&codes[row * unit as usize..][..unit as usize]);
            }
            (Inputs::Bytes(rows), _) => out.extend_from_slice(rows[row]),
            (Inputs::Rows(_), None) => unreachable!("checked against the shape"),
        }
    }
}
