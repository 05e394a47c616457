//! The methods: one file each, and the table of them.

pub mod agem;
pub mod bdkd;
pub mod bottom_frozen;
pub mod centre;
pub mod chosen_blocks;
pub mod clnp;
pub mod codyra;
pub mod cuber;
pub mod der;
pub mod dgr;
pub mod embedding_reset;
pub mod er;
pub mod ewc;
pub mod fast_slow;
pub mod fdr;
pub mod few_shot;
pub mod finetune;
pub mod fpf;
pub mod gdumb;
pub mod gem;
pub mod gere;
pub mod gpm;
pub mod gss;
pub mod hal;
pub mod hfc;
pub mod hft;
pub mod icarl;
pub mod key_value;
pub mod l2;
pub mod language_neurons;
pub mod lora;
pub mod lwf;
pub mod mas;
pub mod mat;
pub mod mir;
pub mod mora;
pub mod mvp;
pub mod pcr;
pub mod planned;
pub mod pld;
pub mod prd;
pub mod protocl;
pub mod psmt;
pub mod quantile;
pub mod rank;
pub mod refresh;
pub mod reg_lora;
pub mod remind;
pub mod reptile;
pub mod rer;
pub mod rkd;
pub mod rmn;
pub mod selective_lora;
pub mod sharp;
pub mod si;
pub mod sinkd;
pub mod ssu;
#[cfg(test)]
mod staging;
pub mod taxonomy;
pub mod train_parts;
pub mod views;
pub mod zeroth;

use crate::error::{Error, Result};
use crate::spec::{KeepSpec, MemorySpec, Parts};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a method may need to know of the recipe it stands in.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// New rows a step.
    pub batch: usize,
    /// Experiences of the stream.
    pub experiences: usize,
}

/// A method's entry in the table: what `ebb methods` prints and how its name becomes the long
/// form.
#[derive(Clone, Copy)]
pub struct MethodCard {
    /// Its name in recipes.
    pub name: &'static str,
    /// Other names it answers to.
    pub aliases: &'static [&'static str],
    /// Its full name.
    pub title: &'static str,
    /// Who published it.
    pub source: &'static str,
    /// The card it was built from.
    pub card: &'static str,
    /// What kind of method it is.
    pub family: &'static str,
    /// When to use it.
    pub use_it: &'static str,
    /// When not.
    pub not_for: &'static str,
    /// What it keeps.
    pub stores: &'static str,
    /// What a step costs.
    pub costs: &'static str,
    /// Its parameters (`with = { … }`) and their defaults.
    pub defaults: fn() -> toml::Table,
    /// The long form for given parameters (defaults filled in).
    pub expand: fn(&toml::Table, &Situation) -> Result<Parts>,
}

impl MethodCard {
    /// The name with every parameter at its default, as a recipe says it.
    pub fn short_form(&self) -> String {
        let pairs = (self.defaults)();
        let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{k} = {v}")).collect();
        match pairs.is_empty() {
            true => format!("method = \"{}\"\n", self.name),
            false => format!(
                "method = \"{}\"\nwith = {{ {} }}\n",
                self.name,
                pairs.join(", ")
            ),
        }
    }

    /// What the name stands for in a recipe: the pieces it could be spelt out with.
    ///
    /// # Errors
    /// When its defaults do not expand, which is a defect.
    pub fn long_form(&self) -> Result<toml::Table> {
        // A batch and a number of experiences as in the default recipe; few methods look at them.
        let situation = Situation {
            batch: 10,
            experiences: 5,
        };
        let parts = (self.expand)(&(self.defaults)(), &situation)?;
        let mut table = toml::Table::try_from(&parts).map_err(|e| Error::Recipe {
            reason: format!("the long form of `{}` cannot be written: {e}", self.name),
        })?;
        if let Some(reduction) = table.remove("reduction") {
            let train = toml::Table::from_iter([("reduction".to_owned(), reduction)]);
            table.insert("train".to_owned(), train.into());
        }
        Ok(table)
    }
}

/// Every method, in the order `ebb methods` lists them.
pub const ALL: &[MethodCard] = &[
    finetune::FINE_TUNE,
    finetune::JOINT,
    finetune::CUMULATIVE,
    er::ER,
    er::REHEARSAL,
    der::DER,
    der::DER_PLUS_PLUS,
    ewc::EWC,
    ewc::ONLINE_EWC,
    si::SI,
    l2::L2_METHOD,
    lwf::LWF,
    gem::GEM,
    agem::A_GEM,
    mir::MIR,
    planned::PLANNED,
    gdumb::GDUMB,
    hft::HFT,
    mas::MAS,
    fdr::FDR,
    gss::GSS,
    hal::HAL,
    refresh::REFRESH,
    fpf::FPF,
    fpf::K_FPF,
    zeroth::ZEROTH_ORDER,
    views::VIEW_BATCH,
    icarl::ICARL,
    dgr::DGR,
    centre::CENTRE,
    mat::MAT,
    pcr::PCR,
    pcr::HPCR,
    prd::PRD,
    pld::PLD,
    bdkd::BD_KD,
    sinkd::SINKD,
    rer::RELATIONAL,
    hfc::HFC,
    rkd::REHEARSAL_KD,
    gpm::GPM,
    cuber::CUBER,
    clnp::CLNP,
    rmn::RMN,
    rank::RANK_UPDATE,
    psmt::PSMT,
    fast_slow::FAST_SLOW,
    remind::REMIND,
    sharp::SHARP,
    key_value::KEY_VALUE,
    mvp::MVP,
    protocl::PROTOCL,
    quantile::QUANTILE_RISK,
    lora::LORA,
    codyra::CODYRA,
    selective_lora::SELECTIVE_LORA,
    reg_lora::REG_LORA,
    mora::MORA,
    ssu::SSU,
    bottom_frozen::BOTTOM_FROZEN,
    train_parts::ATTENTION_ONLY,
    train_parts::GATE_UP_ONLY,
    language_neurons::LANGUAGE_NEURONS,
    embedding_reset::EMBEDDING_RESET,
    chosen_blocks::CHOSEN_BLOCKS,
    reptile::REPTILE,
    gere::GERE,
];

/// The method called `name`.
///
/// # Errors
/// When there is none; the message names the nearest.
pub fn find(name: &str) -> Result<&'static MethodCard> {
    let wanted = name.to_lowercase();
    ALL.iter()
        .find(|m| m.name == wanted || m.aliases.contains(&wanted.as_str()))
        .ok_or_else(|| Error::UnknownMethod {
            name: name.to_owned(),
            nearest: nearest(&wanted),
        })
}

fn nearest(name: &str) -> String {
    ALL.iter()
        .min_by_key(|m| distance(m.name, name))
        .map_or_else(String::new, |m| m.name.to_owned())
}

/// Edits that turn one word into another.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

/// A method's settings as a table, defaults written out.
pub(crate) fn settings<T: Serialize>(value: &T) -> toml::Table {
    toml::Table::try_from(value).unwrap_or_default()
}

/// The same, and beside them the `capacity` of the method's memory.
pub(crate) fn settings_beside<T: Serialize>(capacity: i64, value: &T) -> toml::Table {
    let mut table = settings(value);
    table.insert("capacity".into(), capacity.into());
    table
}

/// A method's parameters as its memory and its own settings: `capacity` is the number of records
/// kept of each of `parts` parts of the stream (1: of the whole).
pub(crate) fn memory_and<T: DeserializeOwned>(
    with: &toml::Table,
    keep: KeepSpec,
    parts: usize,
) -> Result<(MemorySpec, T)> {
    let mut with = with.clone();
    let each = with.remove("capacity");
    let number = each.as_ref().and_then(toml::Value::as_integer);
    let number = number.and_then(|n| usize::try_from(n).ok());
    let capacity = number.filter(|n| *n > 0);
    let capacity = capacity.and_then(|n| n.checked_mul(parts.max(1)));
    let capacity = capacity.ok_or_else(|| Error::Recipe {
        reason: format!(
            "`with.capacity` is the number of examples kept{}, at least 1, not {}",
            if parts > 1 { " an experience" } else { "" },
            each.map_or_else(|| "nothing".to_owned(), |v| v.to_string())
        ),
    })?;
    Ok((MemorySpec { capacity, keep }, read(&with)?))
}

/// Takes one parameter out of a method's.
pub(crate) fn take<T: DeserializeOwned>(with: &mut toml::Table, name: &str) -> Result<T> {
    let wrong = |reason: &str| Error::Recipe {
        reason: format!("`with.{name}`: {reason}"),
    };
    let value = with.remove(name).ok_or_else(|| wrong("it is missing"))?;
    (value.try_into()).map_err(|e: toml::de::Error| wrong(e.message()))
}

/// A table as a method's settings.
pub(crate) fn read<T: DeserializeOwned>(table: &toml::Table) -> Result<T> {
    table
        .clone()
        .try_into()
        .map_err(|e: toml::de::Error| Error::Recipe {
            reason: format!("in the method's parameters (`with`): {}", e.message()),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_misspellings_find_the_nearest() {
        let mut names: Vec<&str> = ALL
            .iter()
            .flat_map(|m| std::iter::once(m.name).chain(m.aliases.iter().copied()))
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        let e = find("dr++").err().expect("no such method").to_string();
        assert!(e.contains("der++"), "{e}");
    }

    #[test]
    fn every_method_expands_with_its_own_defaults() {
        let situation = Situation {
            batch: 10,
            experiences: 5,
        };
        for m in ALL {
            let parts = (m.expand)(&(m.defaults)(), &situation);
            assert!(parts.is_ok(), "{}: {:?}", m.name, parts.err());
        }
    }
}
