//! The replay store of Ebbinghaus: what is rehearsed, who decides it, and how it is drawn.
//!
//! * A **keep policy** ([`Keep`]) decides which records stay: reservoir and ring at every step,
//!   balanced by class or by experience at the end of each experience. A decision ([`Plan`]) is
//!   made apart from its effect ([`Memory::commit`]), so that only the admitted rows are gathered.
//! * **Storage** is dense: one contiguous column for inputs (`f32`, or `u8` codes) and one for
//!   each sidecar, allocated once, so that no stale copy of a record stays behind in freed memory.
//! * **Draws** ([`Memory::draw`]) are named and keyed by (name, step, example id), without
//!   replacement, and say with which probability each record came.
//!
//! * A **store** ([`Store`]) keeps records on disk, ten million and more: crash-safe, with updates of
//!   sidecars in place, the same named draws, and deletion that leaves no byte in its files.
//!
//! Every choice is a pure function of the key and the example's id, never of its position: taking
//! one record out of a stream leaves all other decisions as they were.
//!
//! ```
//! use ebb_memory::{Config, Form, Values, Keep, Memory, Offer, Payload, Records, Select};
//! use ebb_space::{ExampleId, Key};
//!
//! let form = Form { input: 2, payload: Payload::F32, logits: None, features: None };
//! let config = Config { capacity: 3, keep: Keep::Reservoir, form };
//! let mut memory = Memory::new(config, Key::new(0, "memory"))?;
//! for step in 0..10u64 {
//!     let x = [step as f32, -1.0];
//!     let ids = [ExampleId::of(&step.to_le_bytes(), 0)];
//!     let offer = Offer { ids: &ids, labels: &[0], experience: 0, task: 0, step };
//!     memory.offer(&offer, &Records::of(Values::F32(&x)))?;
//! }
//! let draw = memory.draw("replay:a", Select::Uniform, 2, 10)?;
//! let mut inputs = Vec::new();
//! memory.gather(&draw.slots, None, &mut inputs)?;
//! assert_eq!((memory.len(), inputs.len()), (3, 4));
//! # Ok::<(), ebb_memory::Error>(())
//! ```

mod class_balanced;
mod draw;
mod error;
mod experience_balanced;
mod file;
mod memory;
mod policy;
mod product;
mod record;
mod reservoir;
mod ring;
mod shares;
mod slab;
mod store;

pub use draw::{Draw, Select};
pub use error::{Error, Result};
pub use file::{FILE_NAME, FORMAT_VERSION};
pub use memory::{Config, Memory, Plan};
pub use policy::{Fill, Keep};
pub use product::ProductQuantiser;
pub use record::{Form, Lookup, Meta, Offer, Payload, Records, Values};
pub use store::{By, Compacted, Input, Marks, Safety, Shape, Store};
