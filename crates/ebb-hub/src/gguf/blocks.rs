//! The number formats of GGUF and what each block of them means.
//!
//! A block is a few hundred bits that stand for 32 or 256 values: a scale `d`, sometimes a
//! minimum `m`, and small integers `q`. Products are formed in `f32` in the order of the
//! reference implementation, so that values agree with it to the last bit.

use half::f16;

use crate::number::NumberType;

/// How the numbers of a tensor of a GGUF file are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub enum BlockType {
    /// 32 bits each.
    F32,
    /// 16 bits each.
    F16,
    /// 16 bits each, the upper half of an `F32`.
    BF16,
    /// `d q`, q of 4 bits around 0.
    Q4_0,
    /// `d q + m`, q of 4 bits.
    Q4_1,
    /// `d q`, q of 5 bits around 0.
    Q5_0,
    /// `d q + m`, q of 5 bits.
    Q5_1,
    /// `d q`, q of 8 bits.
    Q8_0,
    /// `d s_k q - m t_k`, q of 4 bits, with a scale and a minimum for every 32.
    Q4_K,
    /// `d s_k q - m t_k`, q of 5 bits, with a scale and a minimum for every 32.
    Q5_K,
    /// `d s_k q`, q of 6 bits around 0, with a scale for every 16.
    Q6_K,
}

impl BlockType {
    /// The type with this number in the file, or its name if it is one that is not read.
    pub(super) fn from_id(id: u32) -> Result<BlockType, String> {
        Ok(match id {
            0 => BlockType::F32,
            1 => BlockType::F16,
            2 => BlockType::Q4_0,
            3 => BlockType::Q4_1,
            6 => BlockType::Q5_0,
            7 => BlockType::Q5_1,
            8 => BlockType::Q8_0,
            12 => BlockType::Q4_K,
            13 => BlockType::Q5_K,
            14 => BlockType::Q6_K,
            30 => BlockType::BF16,
            10 => return Err("Q2_K".into()),
            11 => return Err("Q3_K".into()),
            other => return Err(format!("type number {other}")),
        })
    }

    /// Values of one block.
    pub fn values(self) -> usize {
        match self {
            BlockType::F32 | BlockType::F16 | BlockType::BF16 => 1,
            BlockType::Q4_0
            | BlockType::Q4_1
            | BlockType::Q5_0
            | BlockType::Q5_1
            | BlockType::Q8_0 => 32,
            BlockType::Q4_K | BlockType::Q5_K | BlockType::Q6_K => 256,
        }
    }

    /// Bytes of one block.
    pub fn bytes(self) -> usize {
        match self {
            BlockType::F32 => 4,
            BlockType::F16 | BlockType::BF16 => 2,
            BlockType::Q4_0 => 18,
            BlockType::Q4_1 => 20,
            BlockType::Q5_0 => 22,
            BlockType::Q5_1 => 24,
            BlockType::Q8_0 => 34,
            BlockType::Q4_K => 144,
            BlockType::Q5_K => 176,
            BlockType::Q6_K => 210,
        }
    }

    /// Dequantises whole blocks; `bytes` holds as many as `values`.
    pub(super) fn decode(self, bytes: &[u8], values: &mut [f32]) {
        match self {
            BlockType::F32 => NumberType::F32.decode(bytes, values),
            BlockType::F16 => NumberType::F16.decode(bytes, values),
            BlockType::BF16 => NumberType::BF16.decode(bytes, values),
            BlockType::Q4_0 => blocks(bytes, values, q4_0),
            BlockType::Q4_1 => blocks(bytes, values, q4_1),
            BlockType::Q5_0 => blocks(bytes, values, q5_0),
            BlockType::Q5_1 => blocks(bytes, values, q5_1),
            BlockType::Q8_0 => blocks(bytes, values, q8_0),
            BlockType::Q4_K => blocks(bytes, values, q4_k),
            BlockType::Q5_K => blocks(bytes, values, q5_k),
            BlockType::Q6_K => blocks(bytes, values, q6_k),
        }
    }
}

fn blocks<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    values: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; VALUES]),
) {
    let (from, to) = (bytes.as_chunks().0, values.as_chunks_mut().0);
    debug_assert_eq!(from.len(), to.len());
    for (block, values) in from.iter().zip(to) {
        decode(block, values);
    }
}

fn float(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

fn low(byte: u8) -> i32 {
    i32::from(byte & 15)
}

fn high(byte: u8) -> i32 {
    i32::from(byte >> 4)
}

/// Bit `i` of `bits`, moved to the place of the 16.
fn fifth(bits: u32, i: usize) -> i32 {
    ((bits >> i & 1) << 4) as i32
}

/// d, 16 bytes: the low halves are the first 16 values.
fn q4_0(block: &[u8; 18], y: &mut [f32; 32]) {
    let d = float(block, 0);
    for (i, &byte) in block[2..].iter().enumerate() {
        y[i] = (low(byte) - 8) as f32 * d;
        y[i + 16] = (high(byte) - 8) as f32 * d;
    }
}

/// d, m, 16 bytes.
fn q4_1(block: &[u8; 20], y: &mut [f32; 32]) {
    let (d, m) = (float(block, 0), float(block, 2));
    for (i, &byte) in block[4..].iter().enumerate() {
        y[i] = low(byte) as f32 * d + m;
        y[i + 16] = high(byte) as f32 * d + m;
    }
}

/// d, 32 fifth bits, 16 bytes.
fn q5_0(block: &[u8; 22], y: &mut [f32; 32]) {
    let (d, bits) = (float(block, 0), word(block, 2));
    for (i, &byte) in block[6..].iter().enumerate() {
        y[i] = ((low(byte) | fifth(bits, i)) - 16) as f32 * d;
        y[i + 16] = ((high(byte) | fifth(bits, i + 16)) - 16) as f32 * d;
    }
}

/// d, m, 32 fifth bits, 16 bytes.
fn q5_1(block: &[u8; 24], y: &mut [f32; 32]) {
    let (d, m, bits) = (float(block, 0), float(block, 2), word(block, 4));
    for (i, &byte) in block[8..].iter().enumerate() {
        y[i] = (low(byte) | fifth(bits, i)) as f32 * d + m;
        y[i + 16] = (high(byte) | fifth(bits, i + 16)) as f32 * d + m;
    }
}

/// d, 32 signed bytes.
fn q8_0(block: &[u8; 34], y: &mut [f32; 32]) {
    let d = float(block, 0);
    for (y, &byte) in y.iter_mut().zip(&block[2..]) {
        *y = f32::from(byte as i8) * d;
    }
}

/// Scale and minimum `k` of eight, 6 bits each, packed into 12 bytes: four of each in the low
/// bits of the first eight bytes; the others' low four bits in the last four, their high two in
/// the high bits of the first eight.
fn scale_and_minimum(packed: &[u8], k: usize) -> (f32, f32) {
    let (scale, minimum) = if k < 4 {
        (packed[k] & 63, packed[k + 4] & 63)
    } else {
        (
            packed[k + 4] & 15 | packed[k - 4] >> 6 << 4,
            packed[k + 4] >> 4 | packed[k] >> 6 << 4,
        )
    };
    (f32::from(scale), f32::from(minimum))
}

/// d, m, 12 bytes of scales and minima, 128 bytes: each 32 of them hold 64 values, low halves
/// first.
fn q4_k(block: &[u8; 144], y: &mut [f32; 256]) {
    let (d, m) = (float(block, 0), float(block, 2));
    let (packed, quants) = block[4..].split_at(12);
    for (k, y) in y.chunks_exact_mut(32).enumerate() {
        let (s, t) = scale_and_minimum(packed, k);
        let (d, m) = (d * s, m * t);
        let half = if k % 2 == 0 { low } else { high };
        for (y, &byte) in y.iter_mut().zip(&quants[k / 2 * 32..]) {
            *y = d * half(byte) as f32 - m;
        }
    }
}

/// As [`q4_k`], with 32 bytes of fifth bits before the 128: bit `k` belongs to the `k`-th 32.
fn q5_k(block: &[u8; 176], y: &mut [f32; 256]) {
    let (d, m) = (float(block, 0), float(block, 2));
    let (packed, rest) = block[4..].split_at(12);
    let (fifths, quants) = rest.split_at(32);
    for (k, y) in y.chunks_exact_mut(32).enumerate() {
        let (s, t) = scale_and_minimum(packed, k);
        let (d, m) = (d * s, m * t);
        let half = if k % 2 == 0 { low } else { high };
        for ((y, &byte), &bits) in y.iter_mut().zip(&quants[k / 2 * 32..]).zip(fifths) {
            *y = d * (half(byte) | fifth(bits.into(), k)) as f32 - m;
        }
    }
}

/// 128 bytes of low four bits, 64 of high two, 16 signed scales, d. Each half of the block is
/// four runs of 32: runs 0 and 1 are low halves, 2 and 3 high halves of the same 64 bytes, and
/// run `r` has bits `2r` and `2r + 1` of 32 bytes.
fn q6_k(block: &[u8; 210], y: &mut [f32; 256]) {
    let (lows, rest) = block.split_at(128);
    let (highs, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    let d = float(d, 0);
    for (k, y) in y.chunks_exact_mut(32).enumerate() {
        let (half, run) = (k / 4, k % 4);
        let lows = &lows[64 * half + 32 * (run % 2)..];
        let highs = &highs[32 * half..];
        let nibble = if run < 2 { low } else { high };
        for (i, y) in y.iter_mut().enumerate() {
            let scale = f32::from(scales[2 * k + i / 16] as i8);
            let q = (nibble(lows[i]) | i32::from(highs[i] >> (2 * run) & 3) << 4) - 32;
            *y = d * scale * q as f32;
        }
    }
}
