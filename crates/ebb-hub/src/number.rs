use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// How a number is stored in a safetensors file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NumberType {
    /// IEEE 754, 32 bits.
    F32,
    /// IEEE 754, 16 bits.
    F16,
    /// The upper half of an `F32`.
    BF16,
}

impl NumberType {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            NumberType::F32 => 4,
            NumberType::F16 | NumberType::BF16 => 2,
        }
    }

    /// The name in `config.json`, such as `float32`.
    pub fn torch_name(self) -> &'static str {
        match self {
            NumberType::F32 => "float32",
            NumberType::F16 => "float16",
            NumberType::BF16 => "bfloat16",
        }
    }

    /// The name in the header of a safetensors file.
    pub(crate) fn safetensors_name(self) -> &'static str {
        match self {
            NumberType::F32 => "F32",
            NumberType::F16 => "F16",
            NumberType::BF16 => "BF16",
        }
    }

    /// Converts little-endian numbers; `bytes` holds as many as `values`.
    pub(crate) fn decode(self, bytes: &[u8], values: &mut [f32]) {
        debug_assert_eq!(bytes.len(), values.len() * self.bytes());
        match self {
            NumberType::F32 => {
                for (value, b) in values.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f32::from_le_bytes(*b);
                }
            }
            NumberType::F16 => {
                for (value, b) in values.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f16::from_le_bytes(*b).to_f32();
                }
            }
            NumberType::BF16 => {
                for (value, b) in values.iter_mut().zip(bytes.as_chunks().0) {
                    *value = bf16::from_le_bytes(*b).to_f32();
                }
            }
        }
    }

    /// Appends the values, rounded to nearest even.
    pub(crate) fn encode(self, values: &[f32], into: &mut Vec<u8>) {
        match self {
            NumberType::F32 => into.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            NumberType::F16 => {
                into.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
            }
            NumberType::BF16 => {
                into.extend(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()));
            }
        }
    }
}
