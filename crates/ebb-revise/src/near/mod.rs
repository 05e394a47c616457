//! What is nearly a record: texts with much the same words, texts with a passage in common,
//! vectors close by.

mod distance;
mod overlap;
mod shingle;

pub(crate) use distance::{BLOCK, Nearby, Sample};
pub use overlap::Overlap;
pub use shingle::{MinHash, jaccard};
