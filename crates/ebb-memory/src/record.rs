//! What a record is, and the slices in which records come.

use ebb_space::ExampleId;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How inputs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// Four bytes a value, exactly as the network saw it.
    F32,
    /// One byte a value; a [`Lookup`] turns codes into values when they are gathered.
    U8,
}

/// The shape of every record of one memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// Values of an input.
    pub input: usize,
    /// How they are kept.
    pub payload: Payload,
    /// Logits kept beside each input, if any (DER).
    pub logits: Option<usize>,
    /// Features kept beside each input, if any.
    pub features: Option<usize>,
}

/// What is known of a kept record besides its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Who it is.
    pub id: ExampleId,
    /// Its label, as the network sees it.
    pub label: u32,
    /// The experience it came in.
    pub experience: u32,
    /// The head it belongs to.
    pub task: u16,
    /// The step at which its sidecars were written.
    pub step: u64,
    /// Its number in the stream of offers, from 0.
    pub arrival: u64,
}

impl Meta {
    /// What an unused slot holds.
    pub(crate) const BLANK: Meta = Meta {
        id: ExampleId {
            base: [0; 16],
            occurrence: 0,
            view: 0,
        },
        label: 0,
        experience: 0,
        task: 0,
        step: 0,
        arrival: 0,
    };
}

/// Candidates for the memory, without their values: enough to decide.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Who they are.
    pub ids: &'a [ExampleId],
    /// Their labels, one an id.
    pub labels: &'a [u32],
    /// The experience they come in.
    pub experience: u32,
    /// The head they belong to.
    pub task: u16,
    /// The step at which they are offered.
    pub step: u64,
}

/// Input values, row after row.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// For [`Payload::F32`].
    F32(&'a [f32]),
    /// For [`Payload::U8`].
    U8(&'a [u8]),
}

/// The values of some candidates, row after row.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    /// rows × [`Form::input`].
    pub inputs: Values<'a>,
    /// rows × [`Form::logits`]; needed if the memory keeps logits, ignored if not.
    pub logits: Option<&'a [f32]>,
    /// rows × [`Form::features`]; needed if the memory keeps features, ignored if not.
    pub features: Option<&'a [f32]>,
}

impl<'a> Records<'a> {
    /// Records without sidecars.
    pub fn of(inputs: Values<'a>) -> Records<'a> {
        Records {
            inputs,
            logits: None,
            features: None,
        }
    }

    /// Checks that these are `count` rows of `form`.
    pub(crate) fn check(&self, form: &Form, count: usize) -> Result<()> {
        let inputs = match (self.inputs, form.payload) {
            (Values::F32(values), Payload::F32) => values.len(),
            (Values::U8(codes), Payload::U8) => codes.len(),
            (Values::F32(_), Payload::U8) => {
                return Err(Error::Payload {
                    kept: "u8",
                    what: "is offered f32 rows",
                });
            }
            (Values::U8(_), Payload::F32) => {
                return Err(Error::Payload {
                    kept: "f32",
                    what: "is offered u8 rows",
                });
            }
        };
        length("inputs", inputs, count * form.input)?;
        for (what, width, given) in [
            ("logits", form.logits, self.logits),
            ("features", form.features, self.features),
        ] {
            if let Some(width) = width {
                let values = given.ok_or(Error::Sidecar {
                    what,
                    why: "the memory keeps them, the offer has none",
                })?;
                length(what, values.len(), count * width)?;
            }
        }
        Ok(())
    }
}

/// Turns `u8` codes into values: a table of 256 values for each plane (channel) of the input.
#[derive(Clone, Debug)]
pub struct Lookup {
    planes: Vec<[f32; 256]>,
}

impl Lookup {
    /// The table of `value(plane, code)`; an input is `planes` equal runs of values.
    ///
    /// # Panics
    /// If `planes` is 0.
    pub fn new(planes: usize, value: impl Fn(usize, u8) -> f32) -> Lookup {
        assert!(planes > 0, "an input has at least one plane");
        Lookup {
            planes: (0..planes)
                .map(|p| std::array::from_fn(|code| value(p, code as u8)))
                .collect(),
        }
    }

    /// Appends the values of one input's codes.
    pub(crate) fn decode(&self, codes: &[u8], out: &mut Vec<f32>) -> Result<()> {
        if !codes.len().is_multiple_of(self.planes.len()) {
            let got = self.planes.len();
            return Err(Error::Length {
                what: "planes of the lookup (a divisor of the input)",
                expected: 1,
                got,
            });
        }
        for (run, table) in codes
            .chunks_exact(codes.len() / self.planes.len())
            .zip(&self.planes)
        {
            out.extend(run.iter().map(|&code| table[usize::from(code)]));
        }
        Ok(())
    }
}

/// `Ok` if a slice has the length it needs.
pub(crate) fn length(what: &'static str, got: usize, expected: usize) -> Result<()> {
    if got == expected {
        Ok(())
    } else {
        Err(Error::Length {
            what,
            expected,
            got,
        })
    }
}
