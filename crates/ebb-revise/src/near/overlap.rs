//! Passages in common: the longest common substring, exactly, in one pass over each record.
//!
//! The text asked for becomes its suffix automaton (Blumer et al. 1985): the smallest automaton
//! that reads exactly its substrings, with at most two states a byte. Reading a record through it
//! and falling back along suffix links gives at every byte the longest passage that ends there, in
//! time linear in the record whatever the passages are. (A suffix array answers the same; with
//! long passages in common it needs the links between its suffixes, which are this automaton.)

/// Finds the longest passage that texts share with one text.
#[derive(Clone, Debug)]
pub struct Overlap {
    states: Vec<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// Length of the longest substring that leads here.
    length: u32,
    /// Where the longest suffix leads that does not lead here; the root has none.
    link: Option<u32>,
    /// By byte, ascending.
    next: Vec<(u8, u32)>,
}

impl State {
    fn step(&self, byte: u8) -> Option<u32> {
        let at = self.next.binary_search_by_key(&byte, |(b, _)| *b).ok()?;
        Some(self.next[at].1)
    }

    fn set(&mut self, byte: u8, to: u32) {
        match self.next.binary_search_by_key(&byte, |(b, _)| *b) {
            Ok(at) => self.next[at].1 = to,
            Err(at) => self.next.insert(at, (byte, to)),
        }
    }
}

impl Overlap {
    /// Reads the text, of less than 2 GiB.
    pub fn new(text: &[u8]) -> Overlap {
        let mut states = vec![State::default()];
        let mut last = 0;
        for &byte in text {
            last = extend(&mut states, last, byte);
        }
        Overlap { states }
    }

    /// Where in `record` the first of the longest passages in common begins, and its length in
    /// bytes; 0 if no byte is shared.
    pub fn longest(&self, record: &[u8]) -> (usize, usize) {
        let (mut state, mut length) = (0u32, 0usize);
        let (mut begin, mut best) = (0, 0);
        for (at, &byte) in record.iter().enumerate() {
            loop {
                let here = &self.states[state as usize];
                if let Some(next) = here.step(byte) {
                    (state, length) = (next, length + 1);
                    break;
                }
                let Some(link) = here.link else {
                    (state, length) = (0, 0);
                    break;
                };
                (state, length) = (link, self.states[link as usize].length as usize);
            }
            if length > best {
                (begin, best) = (at + 1 - length, length);
            }
        }
        (begin, best)
    }
}

/// Appends a byte to the text read so far, whose whole leads to `last`; returns where the new
/// whole leads.
fn extend(states: &mut Vec<State>, last: u32, byte: u8) -> u32 {
    let new = states.len() as u32;
    states.push(State {
        length: states[last as usize].length + 1,
        link: Some(0),
        next: Vec::new(),
    });
    let mut from = Some(last);
    while let Some(state) = from {
        let Some(target) = states[state as usize].step(byte) else {
            states[state as usize].set(byte, new);
            from = states[state as usize].link;
            continue;
        };
        let length = states[state as usize].length + 1;
        if states[target as usize].length == length {
            states[new as usize].link = Some(target);
            return new;
        }
        // The target stands for longer substrings as well: part them.
        let clone = states.len() as u32;
        states.push(State {
            length,
            ..states[target as usize].clone()
        });
        while let Some(state) = from {
            if states[state as usize].step(byte) != Some(target) {
                break;
            }
            states[state as usize].set(byte, clone);
            from = states[state as usize].link;
        }
        states[target as usize].link = Some(clone);
        states[new as usize].link = Some(clone);
        return new;
    }
    new
}

#[cfg(test)]
mod tests {
    use ebb_space::Key;

    use super::*;

    fn brute_force(a: &[u8], b: &[u8]) -> (usize, usize) {
        let mut best = (0, 0);
        for i in 0..b.len() {
            for j in 0..a.len() {
                let same = b[i..]
                    .iter()
                    .zip(&a[j..])
                    .take_while(|(x, y)| x == y)
                    .count();
                if same > best.1 {
                    best = (i, same);
                }
            }
        }
        // Of equally long passages the first to end is the first to begin.
        best
    }

    #[test]
    fn the_longest_passage_is_that_of_brute_force() {
        let mut random = Key::new(5, "overlap").stream();
        let mut text = |length: u64, letters: u64| -> Vec<u8> {
            let length = random.below(length);
            (0..length)
                .map(|_| b'a' + random.below(letters) as u8)
                .collect()
        };
        for letters in [1, 2, 3, 26] {
            for _ in 0..300 {
                let (a, b) = (text(40, letters), text(40, letters));
                let overlap = Overlap::new(&a);
                assert_eq!(overlap.longest(&b), brute_force(&a, &b), "{a:?} {b:?}");
                assert!(overlap.states.len() <= (2 * a.len()).max(1));
                assert_eq!(overlap.longest(&a), (0, a.len()));
            }
        }
    }

    #[test]
    fn long_passages_take_no_longer_a_byte() {
        // Quadratic work on these would not end.
        let a = vec![b'a'; 1 << 20];
        let (begin, length) = Overlap::new(&a).longest(&[&b"b"[..], &a, b"c", &a[1..]].concat());
        assert_eq!((begin, length), (1, 1 << 20));
        assert_eq!(Overlap::new(b"").longest(b"x"), (0, 0));
    }
}
