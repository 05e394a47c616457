//! Self-activated mixture of ranks (MoRA).
//!
//! **What it does.** Each rank of an adapter is an expert that says itself how much an input concerns
//! it; the few that answer most act. New tasks add ranks, and the ranks of earlier ones stay.
//! **Source.** Lu et al., 2025, "Little by little: Continual learning via self-activated sparse
//! mixture-of-rank adaptive learning" (card S054; no code was found, its defaults are unconfirmed:
//! rank 16, top 8, temperature 0.5 are ours).
//! **Equation.** `u_i = a_i · x`, `w = softmax(u / (τ ‖u‖))` over all ranks, old and new,
//! `y = W₀ x + s Σ_{i ∈ top} w_i u_i b_i`. A large negative answer is no relevance. While new ranks are
//! trained, `reserved` of the acting ones are new, or old ones would keep them out.
//! **Use it** for many domains in a row, without task ids. **Not** where inference must cost what the
//! base costs: this cannot be merged, and what earlier ranks answer shifts as the bank grows, so that
//! "frozen" is not bit for bit.
//! **Stores** every experience's ranks. **Costs** LoRA's step over all ranks so far, and a sort.

use crate::methods::lora::LoraSettings;
use crate::methods::{MethodCard, read, settings, take};
use crate::spec::Parts;
use ebb_net::{Between, Gate};

/// MoRA in the table of methods.
pub const MORA: MethodCard = MethodCard {
    name: "mora",
    aliases: &["mixture-of-ranks"],
    title: "Self-activated mixture of ranks",
    source: "Lu et al., 2025",
    card: "S054",
    family: "adapter",
    use_it: "for many domains in a row on a pretrained model, without task ids",
    not_for: "models whose adapters must be merged",
    stores: "every experience's ranks",
    costs: "LoRA's step over all ranks so far, and a sort of a row's answers",
    defaults: || {
        let mut table = settings(&LoraSettings {
            rank: 16,
            between: Between::Keep,
            ..LoraSettings::default()
        });
        table.insert("top".into(), 8.into());
        table.insert("temperature".into(), 0.5.into());
        table.insert("reserved".into(), 4.into());
        table.insert("shuffled".into(), false.into());
        table
    },
    expand: |with, _| {
        let mut with = with.clone();
        let gate = Gate::Answers {
            top: take(&mut with, "top")?,
            temperature: take(&mut with, "temperature")?,
            reserved: take(&mut with, "reserved")?,
            shuffled: take(&mut with, "shuffled")?,
        };
        Ok(Parts {
            adapter: Some(read::<LoraSettings>(&with)?.adapter(gate)),
            ..Parts::default()
        })
    },
};
