//! What each parameter of a decoder is for, whatever its checkpoint calls it.

use super::{Decoder, Paths};
use ebb_kernels::Stored;
use ebb_space::Layout;

/// What a parameter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A row for each token; the head too, where both are one.
    Embedding,
    /// A row for each position.
    Positions,
    /// Queries, keys, values, or what is made of them.
    Attention,
    /// Opens the way up, in a gated network.
    Gate,
    /// The way up.
    Up,
    /// The way down.
    Down,
    /// Scale or shift of a norm.
    Norm,
    /// From features to logits.
    Head,
}

/// A parameter in its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it is for.
    pub role: Role,
    /// Its block, from 0; none before the first and behind the last.
    pub block: Option<usize>,
    /// Its module, around which the taps `{module}.in` and `{module}.out` lie.
    pub module: String,
    /// How the matrix of a linear layer lies.
    pub stored: Option<Stored>,
}

impl Decoder {
    pub(super) fn places_of(&self, layout: &Layout) -> Vec<Place> {
        let paths = Paths::of(self.config.names);
        let entries = layout.entries().iter();
        entries
            .map(|e| paths.place(&e.path, e.shape.len()))
            .collect()
    }
}

impl Paths {
    fn place(&self, path: &str, dimensions: usize) -> Place {
        let module = path.rsplit_once('.').map_or(path, |(module, _)| module);
        let inside = module.strip_prefix(self.layers);
        let inside = inside.and_then(|rest| rest.strip_prefix('.')?.split_once('.'));
        let (role, block) = match inside {
            None if module == self.embedding => (Role::Embedding, None),
            None if module == self.positions => (Role::Positions, None),
            None if module == self.head => (Role::Head, None),
            None => (Role::Norm, None),
            Some((block, inside)) => (self.role(inside), block.parse().ok()),
        };
        let read = !matches!(role, Role::Embedding | Role::Positions) && dimensions == 2;
        let stored = match role {
            Role::Head => Stored::OutIn,
            _ => self.stored,
        };
        Place {
            role,
            block,
            module: module.to_owned(),
            stored: read.then_some(stored),
        }
    }

    /// Of a module within a block.
    fn role(&self, module: &str) -> Role {
        match module.split_once('.') {
            Some((half, name)) if half == self.attention && !name.ends_with("_norm") => {
                Role::Attention
            }
            Some(("mlp", "gate_proj")) => Role::Gate,
            Some(("mlp", name)) if name == self.up => Role::Up,
            Some(("mlp", name)) if name == self.down => Role::Down,
            _ => Role::Norm,
        }
    }
}
