//! Which parameters of a perceptron belong to which hidden unit.
//!
//! Hidden unit `j` of layer `l` owns row `j` of `layers.{l}.weight` and element `j` of
//! `layers.{l}.bias` (what can influence it), and is read through column `j` of the next weight,
//! that of layer `l + 1` or of every head. Pruning methods are set algebra over these: with the
//! active units `A`, the weights to freeze are `incoming(A)`, and those of them to set to zero, so
//! that no free unit disturbs an active one, are `incoming(A) ∩ outgoing(not A)` (card S047).

use crate::{Error, Result};
use ebb_space::{Entry, Layout, Mask};
use std::ops::Range;
use std::sync::Arc;

/// The hidden units of a perceptron, by its layout.
#[derive(Clone, Debug)]
pub struct Units {
    layout: Arc<Layout>,
    layers: Vec<Layer>,
}

#[derive(Clone, Debug)]
struct Layer {
    weight: Range<usize>,
    bias: Range<usize>,
    inputs: usize,
    units: usize,
    /// The weights that read this layer, `[_, units]` each.
    readers: Vec<Range<usize>>,
}

/// The parameters of one hidden unit, as indices into the contiguous vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its weights from the layer before.
    pub incoming: Range<usize>,
    /// Its bias.
    pub bias: usize,
    /// The weights of the layer behind (of all heads, where that is the last) that read it.
    pub outgoing: Vec<usize>,
}

impl Units {
    /// The units of the perceptron with this layout.
    ///
    /// # Errors
    /// When it is not the layout of a perceptron.
    pub fn of(layout: &Arc<Layout>) -> Result<Self> {
        let foreign = |path: &str| Error::Spec {
            reason: format!(
                "units are known of multi-layer perceptrons only, and `{path}` is no part of one"
            ),
        };
        let matrix = |entry: &Entry| match entry.shape[..] {
            [outputs, inputs] => Ok((outputs, inputs)),
            _ => Err(foreign(&entry.path)),
        };
        let mut layers: Vec<Layer> = Vec::new();
        let mut known = 0;
        while let (Some(weight), Some(bias)) = (
            layout.find(&format!("layers.{}.weight", layers.len())),
            layout.find(&format!("layers.{}.bias", layers.len())),
        ) {
            let (units, inputs) = matrix(weight)?;
            if let Some(before) = layers.last_mut() {
                before.readers.push(weight.range.clone());
            }
            layers.push(Layer {
                weight: weight.range.clone(),
                bias: bias.range.clone(),
                inputs,
                units,
                readers: Vec::new(),
            });
            known += 2;
        }
        for entry in &layout.entries()[known..] {
            match entry
                .path
                .strip_prefix("head")
                .and_then(|p| p.rsplit_once('.'))
            {
                Some((_, "weight")) => {
                    let (_, features) = matrix(entry)?;
                    if let Some(last) = layers.last_mut() {
                        if last.units != features {
                            return Err(foreign(&entry.path));
                        }
                        last.readers.push(entry.range.clone());
                    }
                }
                Some((_, "bias" | "scale")) => {}
                _ => return Err(foreign(&entry.path)),
            }
        }
        Ok(Self {
            layout: layout.clone(),
            layers,
        })
    }

    /// Units of each hidden layer.
    pub fn widths(&self) -> impl Iterator<Item = usize> {
        self.layers.iter().map(|layer| layer.units)
    }

    /// The parameters of unit `index` of hidden layer `layer`, if there is one.
    pub fn unit(&self, layer: usize, index: usize) -> Option<Unit> {
        let layer = self.layers.get(layer).filter(|l| index < l.units)?;
        let row = layer.weight.start + index * layer.inputs;
        let columns = layer.readers.iter().flat_map(|reader| {
            let start = reader.start + index;
            (start..reader.end).step_by(layer.units)
        });
        Some(Unit {
            incoming: row..row + layer.inputs,
            bias: layer.bias.start + index,
            outgoing: columns.collect(),
        })
    }

    /// The incoming weights and the biases of the units for which `chosen(layer, index)` holds.
    pub fn incoming(&self, chosen: impl Fn(usize, usize) -> bool) -> Mask {
        self.mask(chosen, |unit, marked| {
            marked[unit.incoming].fill(true);
            marked[unit.bias] = true;
        })
    }

    /// The outgoing weights of the units for which `chosen(layer, index)` holds.
    pub fn outgoing(&self, chosen: impl Fn(usize, usize) -> bool) -> Mask {
        self.mask(chosen, |unit, marked| {
            for at in unit.outgoing {
                marked[at] = true;
            }
        })
    }

    fn mask(
        &self,
        chosen: impl Fn(usize, usize) -> bool,
        mark: impl Fn(Unit, &mut [bool]),
    ) -> Mask {
        let mut marked = vec![false; self.layout.len()];
        for (layer, width) in self.widths().enumerate() {
            for unit in (0..width).filter(|&index| chosen(layer, index)) {
                if let Some(unit) = self.unit(layer, unit) {
                    mark(unit, &mut marked);
                }
            }
        }
        Mask::from_fn(&self.layout, |at| marked[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NetworkSpec;

    fn spec(kind: &str) -> NetworkSpec {
        toml::from_str(kind).expect("a network")
    }

    fn members(mask: &Mask) -> Vec<usize> {
        let all = 0..mask.layout().len();
        all.filter(|&at| mask.contains(at)).collect()
    }

    /// 2 inputs, 3 and 2 hidden units, two heads of 2: by hand, in storage order,
    /// layers.0.weight 0..6, its bias 6..9, layers.1.weight 9..15, its bias 15..17,
    /// heads.0.weight 17..21, its bias 21..23, heads.1.weight 23..27, its bias 27..29.
    #[test]
    fn the_parameters_of_a_unit_are_those_counted_by_hand() {
        let network = spec("kind = 'mlp'\nhidden = [3, 2]").build_heads([1, 1, 2], 2, 2);
        let units = Units::of(network.expect("a network").layout()).expect("a perceptron");
        assert_eq!(units.widths().collect::<Vec<_>>(), [3, 2]);
        let first = Unit {
            incoming: 2..4,
            bias: 7,
            outgoing: vec![10, 13],
        };
        assert_eq!(units.unit(0, 1), Some(first));
        let second = Unit {
            incoming: 9..12,
            bias: 15,
            outgoing: vec![17, 19, 23, 25],
        };
        assert_eq!(units.unit(1, 0), Some(second));
        assert_eq!(units.unit(0, 3), None);
        assert_eq!(units.unit(2, 0), None);
    }

    /// Active: unit 1 of the first layer and unit 0 of the second.
    #[test]
    fn masks_are_sets_of_units() {
        let network = spec("kind = 'mlp'\nhidden = [3, 2]").build_heads([1, 1, 2], 2, 2);
        let units = Units::of(network.expect("a network").layout()).expect("a perceptron");
        let active = |layer, index| (layer, index) == (0, 1) || (layer, index) == (1, 0);
        let frozen = units.incoming(active);
        assert_eq!(members(&frozen), [2, 3, 7, 9, 10, 11, 15]);
        // Of the row of (1, 0), only the weight from (0, 1) may be other than 0.
        let silenced = frozen.and(&units.outgoing(|layer, index| !active(layer, index)));
        assert_eq!(members(&silenced), [9, 11]);
        // All units together: everything but the heads' biases.
        let all = units.incoming(|_, _| true).or(&units.outgoing(|_, _| true));
        assert_eq!(members(&all.complement()), [21, 22, 27, 28]);
    }

    #[test]
    fn a_network_of_another_kind_is_refused() {
        let cnn = spec("kind = 'cnn'\nchannels = [2]\nhidden = 3").build([1, 4, 4], 2);
        let e = Units::of(cnn.expect("a network").layout()).expect_err("no perceptron");
        assert!(e.to_string().contains("`blocks.0.conv.weight`"), "{e}");
    }
}
