//! The decoder against `transformers` and against what is written out in f64.

mod adapter;
mod cache;
mod checkpoint;
mod generation;
mod parity;
mod scoring;
