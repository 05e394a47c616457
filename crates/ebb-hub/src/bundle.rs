//! Several adapters in one file, in common bases, from which each can be rebuilt.
//!
//! The method is [`ebb_space::merge::Shared`] (card S127): factors are balanced, and each position
//! of them has a mean, a few directions and coefficients, `p` directions on average.
//!
//! The file is a safetensors file. For a module `M` it holds `M.A.means` (inputs by rank),
//! `M.A.counts` (directions of each input), `M.A.directions` (their sum by rank) and
//! `M.A.coefficients` (by adapters), and the same of B for outputs; the note `ebbinghaus` names the
//! adapters with their configurations.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ebb_space::merge::{Factors, Shared, spectrum, split};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::adapter::{Adapter, AdapterConfig};
use crate::error::{At, Error, Result};
use crate::merge::names;
use crate::number::NumberType;
use crate::safetensors_file::{self, SafetensorsFile};

/// The version of the file.
const FORMAT: u32 = 1;
/// The note that says what the file is.
const NOTE: &str = "ebbinghaus";

/// Adapters of one model, of one shape, in common bases.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    names: Vec<String>,
    configs: Vec<AdapterConfig>,
    modules: BTreeMap<String, Module>,
}

#[derive(Clone, Debug, PartialEq)]
struct Module {
    rank: usize,
    a: Shared,
    b: Shared,
}

#[derive(Serialize, Deserialize)]
struct Note {
    format_version: u32,
    kind: String,
    names: Vec<String>,
    configs: Vec<AdapterConfig>,
    /// Rank of each module.
    modules: BTreeMap<String, usize>,
}

/// How well a bundle holds its adapters.
#[derive(Clone, Debug, Serialize)]
pub struct BundleSummary {
    /// The adapters.
    pub adapters: Vec<HeldAdapter>,
    /// Numbers stored.
    pub values: usize,
    /// Numbers of the adapters by themselves.
    pub separate_values: usize,
    /// Directions a position, on average.
    pub directions: f64,
    /// Directions above which nothing is saved: `r (n − 1) / (r + n)`, for the greatest rank.
    pub break_even: f64,
    /// The rank that each adapter could keep by itself in the same storage.
    pub rival_rank: usize,
}

/// An adapter of a bundle.
#[derive(Clone, Debug, Serialize)]
pub struct HeldAdapter {
    /// What it is called.
    pub name: String,
    /// `‖B'A' − BA‖ / ‖BA‖` of what is rebuilt, over all modules.
    pub error: f64,
    /// The same of the adapter cut to `rival_rank` by itself.
    pub rival_error: f64,
}

impl Bundle {
    /// The adapters in these folders with `p` directions a position on average.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for fewer than two adapters, or adapters of different modules, shapes or
    /// ranks; those of [`Adapter::open`].
    pub fn of(folders: &[&Path], p: usize) -> Result<(Bundle, BundleSummary)> {
        let names = names(folders.iter().copied())?;
        let adapters: Result<Vec<Adapter>> = folders.iter().map(Adapter::open).collect();
        let adapters = adapters?;
        let n = adapters.len();
        if n < 2 {
            let what = "one adapter has nothing in common with others: give two or more";
            return Err(Error::Mismatch(what.into()));
        }
        let shapes = |adapter: &Adapter| -> Vec<(String, usize, usize, usize)> {
            let pairs = adapter.pairs().iter();
            pairs
                .map(|(m, p)| (m.clone(), p.rank, p.inputs, p.outputs))
                .collect()
        };
        let first = shapes(&adapters[0]);
        for (name, adapter) in names.iter().zip(&adapters) {
            let own = shapes(adapter);
            let differs = first.iter().zip(&own).find(|(a, b)| a != b);
            if let Some(((module, ..), (other, ..))) = differs {
                let what = format!(
                    "`{name}` has another module, shape or rank at `{other}` than `{}` at \
                     `{module}`: only adapters of one shape have common bases",
                    names[0]
                );
                return Err(Error::Mismatch(what));
            }
            if own.len() != first.len() {
                let what = format!(
                    "`{name}` changes {} modules and `{}` {}: only adapters of one shape have \
                     common bases",
                    own.len(),
                    names[0],
                    first.len()
                );
                return Err(Error::Mismatch(what));
            }
        }

        let modules: Vec<&String> = adapters[0].pairs().keys().collect();
        let balanced: Result<Vec<Vec<Factors>>> = modules
            .par_iter()
            .map(|module| balance(&adapters, module))
            .collect();
        let balanced = balanced?;
        let spectra: Vec<[Vec<f64>; 2]> = balanced
            .par_iter()
            .map(|each| {
                [
                    spectrum(&inputs(each), each[0].rank()),
                    spectrum(&outputs(each), each[0].rank()),
                ]
            })
            .collect();
        let mut budget = 0;
        let mut parts = Vec::with_capacity(2 * modules.len());
        for (each, spectra) in balanced.iter().zip(&spectra) {
            let r = each[0].rank();
            let most = r.min(n - 1);
            for (values, positions) in spectra.iter().zip([each[0].inputs(), each[0].outputs()]) {
                parts.push((&values[..], most, r + n));
                budget += positions.saturating_mul(p.min(most)) * (r + n);
            }
        }
        let counts = split(&parts, budget);
        let directions: usize = counts.iter().flatten().map(|&c| usize::from(c)).sum();
        let positions: usize = counts.iter().map(Vec::len).sum();
        let held: BTreeMap<String, Module> = modules
            .par_iter()
            .zip(&balanced)
            .zip(counts.par_chunks_exact(2))
            .map(|((module, each), counts)| {
                let rank = each[0].rank();
                let module = (*module).clone();
                let held = Module {
                    rank,
                    a: Shared::of(&inputs(each), rank, counts[0].clone()),
                    b: Shared::of(&outputs(each), rank, counts[1].clone()),
                };
                (module, held)
            })
            .collect();
        let bundle = Bundle {
            names,
            configs: adapters.iter().map(plain).collect(),
            modules: held,
        };
        let greatest = balanced
            .iter()
            .map(|each| each[0].rank())
            .max()
            .unwrap_or(1);
        let summary = bundle.summary(
            &balanced,
            greatest,
            directions as f64 / positions.max(1) as f64,
        );
        Ok((bundle, summary))
    }

    fn summary(&self, balanced: &[Vec<Factors>], rank: usize, directions: f64) -> BundleSummary {
        let n = self.names.len();
        let stored = |m: &Module| m.a.values() + m.b.values();
        let values: usize = self.modules.values().map(stored).sum();
        let width: usize = balanced
            .iter()
            .map(|e| e[0].inputs() + e[0].outputs())
            .sum();
        let rival_rank = (values / (n * width.max(1))).min(rank);
        let errors: Vec<[f64; 3]> = (0..n)
            .into_par_iter()
            .map(|i| {
                let mut squares = [0.0; 3];
                for (each, module) in balanced.iter().zip(self.modules.values()) {
                    let whole = each[i].dot(&each[i]);
                    let rebuilt = module.rebuild(i);
                    let rival = match rival_rank {
                        0 => 1.0,
                        k => each[i].relative_error(&each[i].cut(k)),
                    };
                    squares[0] += whole;
                    squares[1] += each[i].relative_error(&rebuilt).powi(2) * whole;
                    squares[2] += rival.powi(2) * whole;
                }
                squares
            })
            .collect();
        let adapters = self.names.iter().zip(errors);
        BundleSummary {
            adapters: adapters
                .map(|(name, [whole, own, rival])| {
                    let of = |square: f64| {
                        if whole > 0.0 {
                            (square / whole).sqrt()
                        } else {
                            0.0
                        }
                    };
                    HeldAdapter {
                        name: name.clone(),
                        error: of(own),
                        rival_error: of(rival),
                    }
                })
                .collect(),
            values,
            separate_values: n * balanced
                .iter()
                .map(|e| e[0].rank() * (e[0].inputs() + e[0].outputs()))
                .sum::<usize>(),
            directions,
            break_even: (rank * (n - 1)) as f64 / (rank + n) as f64,
            rival_rank,
        }
    }

    /// What the adapters are called.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Rebuilds one of the adapters; its α is its rank, so that its update is `B A`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if there is none of this name.
    pub fn extract(&self, name: &str) -> Result<Adapter> {
        let at = self.names.iter().position(|own| own == name);
        let Some(at) = at else {
            let what = format!(
                "there is no adapter `{name}` in it; it holds {}",
                self.names.join(", ")
            );
            return Err(Error::Mismatch(what));
        };
        let config = self.configs[at].clone();
        let factors = self.modules.iter().map(|(module, held)| {
            let rebuilt = held.rebuild(at);
            let (a, mut b) = rebuilt.to_f32();
            // Where a module has another rank than the configuration, α over it is not 1.
            let scale = (config.lora_alpha / held.rank as f64) as f32;
            b.iter_mut().for_each(|v| *v /= scale);
            (module.clone(), rebuilt.inputs(), a, b)
        });
        let factors: Vec<_> = factors.collect();
        Adapter::new(config, factors)
    }

    /// Writes the file: all of it, or nothing.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is one already; [`Error::Io`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        if path.exists() {
            return Err(Error::Exists { path: path.into() });
        }
        if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("")) {
            fs::create_dir_all(parent).at("create", parent)?;
        }
        let note = Note {
            format_version: FORMAT,
            kind: "reversible".into(),
            names: self.names.clone(),
            configs: self.configs.clone(),
            modules: self
                .modules
                .iter()
                .map(|(m, held)| (m.clone(), held.rank))
                .collect(),
        };
        let note = serde_json::to_string(&note)
            .map_err(|e| Error::Mismatch(format!("an adapter's configuration is no JSON: {e}")))?;
        let n = self.names.len();
        let mut counted: Vec<Vec<f32>> = Vec::new();
        let sides = || self.modules.values().flat_map(|m| [&m.a, &m.b]);
        for shared in sides() {
            counted.push(shared.parts().0.iter().map(|&c| f32::from(c)).collect());
        }
        let named = self
            .modules
            .iter()
            .flat_map(|(m, held)| [(format!("{m}.A"), held.rank), (format!("{m}.B"), held.rank)]);
        let mut tensors: Vec<(String, Vec<usize>, &[f32])> = Vec::new();
        for (((name, rank), shared), counts) in named.zip(sides()).zip(&counted) {
            let (_, means, directions, coefficients) = shared.parts();
            let all = directions.len() / rank;
            for (what, shape, values) in [
                ("counts", vec![counts.len()], &counts[..]),
                ("means", vec![counts.len(), rank], means),
                ("directions", vec![all, rank], directions),
                ("coefficients", vec![all, n], coefficients),
            ] {
                tensors.push((format!("{name}.{what}"), shape, values));
            }
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let draft = path.with_file_name(format!(".{name}.unfinished-{}", std::process::id()));
        let tensors = tensors.iter().map(|(n, s, v)| (&n[..], &s[..], *v));
        let written = safetensors_file::write(&draft, NumberType::F32, &[(NOTE, note)], tensors)
            .and_then(|()| fs::rename(&draft, path).at("create", path));
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another kind of file; [`Error::Damaged`] where it contradicts
    /// itself; [`Error::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Bundle> {
        let path = path.as_ref();
        let file = SafetensorsFile::open(path)?;
        let Some(note) = file.note(NOTE) else {
            let what = "it is no file of adapters in common bases: `--reversible` writes one";
            return Err(Error::unsupported(path, what));
        };
        let note: Note = serde_json::from_str(note)
            .map_err(|e| Error::damaged(path, format!("its note is not readable ({e})")))?;
        if note.format_version != FORMAT || note.kind != "reversible" {
            let what = format!(
                "it is a file of the kind `{}`, version {}; `reversible`, version {FORMAT}, is read",
                note.kind, note.format_version
            );
            return Err(Error::unsupported(path, what));
        }
        let n = note.names.len();
        if n == 0 || note.configs.len() != n {
            return Err(Error::damaged(path, "its names and configurations differ"));
        }
        let mut modules = BTreeMap::new();
        for (module, rank) in note.modules {
            let side = |side: &str| shared(&file, &format!("{module}.{side}"), rank, n);
            let held = Module {
                rank,
                a: side("A")?,
                b: side("B")?,
            };
            modules.insert(module, held);
        }
        Ok(Bundle {
            names: note.names,
            configs: note.configs,
            modules,
        })
    }
}

impl Module {
    fn rebuild(&self, model: usize) -> Factors {
        Factors::of_positions(self.rank, self.a.rebuild(model), self.b.rebuild(model))
    }
}

/// One side of a module, as it was stored.
fn shared(file: &SafetensorsFile, name: &str, rank: usize, n: usize) -> Result<Shared> {
    let read = |what: &str| -> Result<Vec<f32>> {
        let name = format!("{name}.{what}");
        let info = file.tensors().find(|t| t.name == name);
        let values = info.map_or(0, crate::TensorInfo::values);
        let mut out = vec![0.0; values];
        file.read_into(&name, &mut out).map(|()| out)
    };
    let counts = read("counts")?;
    let whole = |c: &f32| (0.0..=255.0).contains(c) && c.fract() == 0.0;
    let damaged = |what: &str| Error::damaged(file.path(), format!("`{name}` {what}"));
    if rank == 0 || !counts.iter().all(whole) {
        return Err(damaged("has no numbers of directions"));
    }
    let counts = counts.iter().map(|&c| c as u8).collect();
    let (means, directions) = (read("means")?, read("directions")?);
    Shared::from_parts(rank, n, counts, means, directions, read("coefficients")?)
        .ok_or_else(|| damaged("contradicts its numbers of directions"))
}

/// A module's products, each in balanced factors, with the signs of the first.
fn balance(adapters: &[Adapter], module: &str) -> Result<Vec<Factors>> {
    let mut each: Vec<Factors> = Vec::with_capacity(adapters.len());
    for adapter in adapters {
        let pair = adapter.pairs().get(module);
        let pair = pair.ok_or_else(|| Error::Mismatch(format!("there is no module `{module}`")))?;
        let factors = Factors::new(pair.rank, f64::from(pair.scale), &pair.a, &pair.b)
            .map_err(|e| Error::Mismatch(e.to_string()))?;
        let (mut balanced, _) = factors.balanced();
        if let Some(first) = each.first() {
            balanced.align_signs(first);
        }
        each.push(balanced);
    }
    Ok(each)
}

fn inputs(each: &[Factors]) -> Vec<&[f64]> {
    each.iter().map(|f| f.positions().0).collect()
}

fn outputs(each: &[Factors]) -> Vec<&[f64]> {
    each.iter().map(|f| f.positions().1).collect()
}

/// The configuration of what is rebuilt: the scale is in the factors.
fn plain(adapter: &Adapter) -> AdapterConfig {
    let mut config = adapter.config().clone();
    config.lora_alpha = config.r as f64;
    config.use_rslora = false;
    config.alpha_pattern.clear();
    config
}
