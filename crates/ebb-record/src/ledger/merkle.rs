//! A Merkle tree over record names, with proofs that a name is in it.
//!
//! RFC 6962's tree: a leaf is hashed under another context than a node, so that neither passes
//! for the other, and the left subtree is the largest full one. The names are sorted first, so
//! that the root depends on the set alone; the count is hashed into the root.

use serde::{Deserialize, Serialize};

use super::{Digest, Records};

/// A set of names, sorted, with its tree's root.
#[derive(Clone, Debug)]
pub struct Merkle {
    names: Vec<Digest>,
}

/// A proof that one name is among those of a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inclusion {
    /// Its place among the sorted names.
    pub index: u64,
    /// How many names there are.
    pub count: u64,
    /// The roots of the subtrees beside its path, from the leaf up.
    pub beside: Vec<Digest>,
}

impl Merkle {
    /// The tree over these names, in any order; repetitions count once.
    pub fn new(names: impl IntoIterator<Item = Digest>) -> Merkle {
        let mut names: Vec<Digest> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        Merkle { names }
    }

    /// How many names, and the root over them.
    pub fn records(&self) -> Records {
        Records {
            count: self.names.len() as u64,
            root: self.root(),
        }
    }

    /// The root.
    pub fn root(&self) -> Digest {
        top(self.names.len() as u64, subtree(&self.names))
    }

    /// A proof that `name` is in it; `None` if it is not.
    pub fn prove(&self, name: &Digest) -> Option<Inclusion> {
        let index = self.names.binary_search(name).ok()?;
        let (mut from, mut names) = (index, &self.names[..]);
        let mut beside = Vec::new();
        while names.len() > 1 {
            let (left, right) = names.split_at(split(names.len()));
            if from < left.len() {
                beside.push(subtree(right));
                names = left;
            } else {
                beside.push(subtree(left));
                from -= left.len();
                names = right;
            }
        }
        beside.reverse();
        Some(Inclusion {
            index: index as u64,
            count: self.names.len() as u64,
            beside,
        })
    }
}

impl Inclusion {
    /// Whether it proves that `name` is among the names of `records`.
    pub fn proves(&self, name: &Digest, records: &Records) -> bool {
        if self.count != records.count || self.index >= self.count {
            return false;
        }
        // The turns of the path from the top down; the proof is used from the leaf up.
        let (mut from, mut size) = (self.index, self.count);
        let mut right = Vec::new();
        while size > 1 {
            let left = 1 << (size - 1).ilog2();
            right.push(from >= left);
            (from, size) = match from >= left {
                true => (from - left, size - left),
                false => (from, left),
            };
        }
        if right.len() != self.beside.len() {
            return false;
        }
        let mut hash = leaf(name);
        for (right, beside) in right.iter().rev().zip(&self.beside) {
            hash = match right {
                true => node(beside, &hash),
                false => node(&hash, beside),
            };
        }
        top(self.count, hash) == records.root
    }
}

/// The size of the left subtree of `n` > 1 leaves: the largest power of two below `n`.
fn split(n: usize) -> usize {
    1 << (n - 1).ilog2()
}

fn subtree(names: &[Digest]) -> Digest {
    match names {
        [] => Digest([0; 32]),
        [name] => leaf(name),
        _ => {
            let (left, right) = names.split_at(split(names.len()));
            node(&subtree(left), &subtree(right))
        }
    }
}

fn leaf(name: &Digest) -> Digest {
    tagged(0, &[&name.0])
}

fn node(left: &Digest, right: &Digest) -> Digest {
    tagged(1, &[&left.0, &right.0])
}

fn top(count: u64, root: Digest) -> Digest {
    tagged(2, &[&count.to_le_bytes(), &root.0])
}

fn tagged(tag: u8, parts: &[&[u8]]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"ebbinghaus v1 merkle").update(&[tag]);
    for part in parts {
        hasher.update(part);
    }
    Digest(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u8) -> Digest {
        Digest(*blake3::hash(&[n]).as_bytes())
    }

    #[test]
    fn every_name_is_proven_and_no_other_one() {
        for n in 0..=33u8 {
            let tree = Merkle::new((0..n).map(name));
            let records = tree.records();
            assert_eq!(records.count, u64::from(n));
            assert!(tree.prove(&name(200)).is_none());
            for i in 0..n {
                let proof = tree.prove(&name(i)).unwrap();
                assert!(proof.proves(&name(i), &records), "{i} of {n}");
                assert!(!proof.proves(&name(200), &records));
                for k in 0..proof.beside.len() {
                    let mut wrong = proof.clone();
                    wrong.beside[k].0[7] ^= 1;
                    assert!(!wrong.proves(&name(i), &records));
                }
                let longer = [&proof.beside[..], &[name(0)]].concat();
                for wrong in [
                    Inclusion {
                        index: proof.index + 1,
                        ..proof.clone()
                    },
                    Inclusion {
                        count: proof.count + 1,
                        ..proof.clone()
                    },
                    Inclusion {
                        beside: longer,
                        ..proof.clone()
                    },
                    Inclusion {
                        count: u64::MAX,
                        ..proof.clone()
                    },
                ] {
                    assert!(!wrong.proves(&name(i), &records));
                }
            }
        }
    }

    /// The tree as RFC 6962 draws it for seven leaves, written out.
    #[test]
    fn seven_leaves_by_hand() {
        let mut names: Vec<Digest> = (0..7).map(name).collect();
        names.sort_unstable();
        let l: Vec<Digest> = names.iter().map(leaf).collect();
        let left = node(&node(&l[0], &l[1]), &node(&l[2], &l[3]));
        let right = node(&node(&l[4], &l[5]), &l[6]);
        let expected = top(7, node(&left, &right));
        assert_eq!(Merkle::new(names.iter().rev().copied()).root(), expected);
        let twice = names.iter().chain(&names).copied();
        assert_eq!(Merkle::new(twice).root(), expected);
    }

    #[test]
    fn a_node_does_not_pass_for_a_leaf() {
        let two = Merkle::new([name(1), name(2)]);
        let inner = subtree(&two.names);
        assert_ne!(Merkle::new([inner]).root(), two.root());
    }
}
