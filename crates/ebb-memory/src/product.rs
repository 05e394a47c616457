//! Product quantisation: a vector as a few bytes.
//!
//! A vector is cut into equal parts; each part becomes the number of the nearest centre in a
//! codebook of its own (Jégou et al. 2011). `b` books of 256 centres of `w/b` values cost
//! `256 · w · 4` bytes, however many there are, and a vector `b` bytes.

use ebb_space::{Key, k_means, nearest};

use crate::{Error, Result};

/// The codebooks.
#[derive(Clone, Debug, PartialEq)]
pub struct ProductQuantiser {
    /// `[books, centres, part]`.
    centres: Vec<f32>,
    books: usize,
    part: usize,
}

impl ProductQuantiser {
    /// Codebooks of (at most 256) `centres` each for vectors of `width` values, fitted by
    /// [`k_means`] to `vectors`, whose draws follow their `ids`.
    ///
    /// # Errors
    /// [`Error::Config`] when the books do not divide the width, there are no vectors or the
    /// centres are none or too many for a byte.
    pub fn fit(
        vectors: &[f32],
        ids: &[u64],
        width: usize,
        books: usize,
        centres: usize,
        rounds: usize,
        key: Key,
    ) -> Result<Self> {
        if books == 0 || width == 0 || !width.is_multiple_of(books) {
            return Err(Error::Config(format!(
                "{books} codebooks do not divide vectors of {width} values; take a divisor"
            )));
        }
        a_byte(centres)?;
        let part = width / books;
        let mut all = Vec::with_capacity(books * centres * part);
        for book in 0..books {
            let vectors = vectors.chunks_exact(width);
            let parts: Vec<f32> = vectors
                .flat_map(|v| &v[book * part..][..part])
                .copied()
                .collect();
            let found = k_means(&parts, ids, part, centres, rounds, key.at(book as u64))
                .map_err(|e| Error::Config(format!("no codebooks can be fitted: {e}")))?;
            all.extend_from_slice(&found);
            // Fewer different parts than centres: the last is repeated and never chosen.
            let last = found[found.len() - part..].to_vec();
            (found.len() / part..centres).for_each(|_| all.extend_from_slice(&last));
        }
        Self::from_centres(all, books, part, centres)
    }

    /// Codebooks as [`ProductQuantiser::centres`] gave them: `books` books of `count` centres of
    /// parts of `part` values.
    ///
    /// # Errors
    /// [`Error::Config`] when they do not fit.
    pub fn from_centres(
        centres: Vec<f32>,
        books: usize,
        part: usize,
        count: usize,
    ) -> Result<Self> {
        a_byte(count)?;
        let book = part.checked_mul(count);
        let all = book.and_then(|book| book.checked_mul(books));
        if centres.is_empty() || all != Some(centres.len()) {
            return Err(Error::Config(format!(
                "{} values are no {books} codebooks of {count} parts of {part}",
                centres.len()
            )));
        }
        Ok(Self {
            centres,
            books,
            part,
        })
    }

    /// `[books, centres, part]`.
    pub fn centres(&self) -> &[f32] {
        &self.centres
    }

    /// Number of codebooks: bytes of a vector.
    pub fn books(&self) -> usize {
        self.books
    }

    /// Values of a part of a vector.
    pub fn part(&self) -> usize {
        self.part
    }

    /// Bytes of the codebooks.
    pub fn bytes(&self) -> usize {
        4 * self.centres.len()
    }

    fn book(&self, book: usize) -> &[f32] {
        let size = self.centres.len() / self.books;
        &self.centres[book * size..][..size]
    }

    /// Appends the codes of `vectors`, row after row.
    pub fn encode(&self, vectors: &[f32], codes: &mut Vec<u8>) {
        for vector in vectors.chunks_exact(self.books * self.part) {
            let parts = vector.chunks_exact(self.part).enumerate();
            codes.extend(parts.map(|(book, part)| nearest(self.book(book), part).0 as u8));
        }
    }

    /// Refuses codes that stand for no centre, which a damaged memory may hold.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check(&self, codes: &[u8]) -> Result<()> {
        let centres = self.centres.len() / (self.books * self.part);
        match codes.iter().find(|code| usize::from(**code) >= centres) {
            None => Ok(()),
            Some(code) => Err(Error::Config(format!(
                "code {code} stands for none of the {centres} centres of a codebook"
            ))),
        }
    }

    /// Appends the vectors that `codes` stand for.
    ///
    /// # Panics
    /// On a code that [`check`](ProductQuantiser::check) refuses; `encode` makes none.
    pub fn decode(&self, codes: &[u8], vectors: &mut Vec<f32>) {
        for row in codes.chunks_exact(self.books) {
            for (book, code) in row.iter().enumerate() {
                let at = usize::from(*code) * self.part;
                vectors.extend_from_slice(&self.book(book)[at..][..self.part]);
            }
        }
    }
}

fn a_byte(centres: usize) -> Result<()> {
    match centres {
        1..=256 => Ok(()),
        _ => Err(Error::Config(format!(
            "a codebook has 1 to 256 centres, so that a code is a byte, not {centres}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(n: usize, width: usize) -> (Vec<f32>, Vec<u64>) {
        let mut s = Key::new(4, "vectors").stream();
        let values = (0..n * width).map(|_| s.normal() as f32).collect();
        (values, (0..n as u64).collect())
    }

    fn through(q: &ProductQuantiser, x: &[f32]) -> Vec<f32> {
        let (mut codes, mut back) = (Vec::new(), Vec::new());
        q.encode(x, &mut codes);
        q.decode(&codes, &mut back);
        back
    }

    fn error(x: &[f32], y: &[f32]) -> f64 {
        let pairs = x.iter().zip(y);
        pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum()
    }

    #[test]
    fn with_as_many_centres_as_vectors_nothing_is_lost() {
        let (x, ids) = vectors(200, 12);
        let q = ProductQuantiser::fit(&x, &ids, 12, 3, 256, 5, Key::new(1, "pq")).expect("fits");
        assert_eq!(through(&q, &x), x);
        let again =
            ProductQuantiser::from_centres(q.centres().to_vec(), 3, 4, 256).expect("the same");
        assert_eq!(q, again);
        assert_eq!(q.bytes(), 4 * 256 * 12);
    }

    #[test]
    fn more_codebooks_and_more_centres_lose_less() {
        let (x, ids) = vectors(600, 16);
        let lost = |books, centres| {
            let key = Key::new(2, "pq");
            let q = ProductQuantiser::fit(&x, &ids, 16, books, centres, 20, key).expect("fits");
            error(&x, &through(&q, &x))
        };
        let by_books = [1, 2, 4, 8, 16].map(|b| lost(b, 32));
        assert!(by_books.windows(2).all(|w| w[1] < w[0]), "{by_books:?}");
        let by_centres = [2, 8, 32, 128].map(|c| lost(4, c));
        assert!(by_centres.windows(2).all(|w| w[1] < w[0]), "{by_centres:?}");
    }

    /// One book of one centre is the mean: what is lost is the sum of squares around it.
    #[test]
    fn one_centre_is_the_mean() {
        let (x, ids) = vectors(50, 3);
        let q = ProductQuantiser::fit(&x, &ids, 3, 1, 1, 5, Key::new(1, "pq")).expect("fits");
        for j in 0..3 {
            let mean = (0..50).map(|i| f64::from(x[3 * i + j])).sum::<f64>() / 50.0;
            assert!((f64::from(q.centres()[j]) - mean).abs() < 1e-6);
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let (x, ids) = vectors(5, 6);
        let fit = |books, centres| {
            ProductQuantiser::fit(&x, &ids, 6, books, centres, 2, Key::new(1, "pq"))
        };
        assert!(fit(4, 8).is_err() && fit(0, 8).is_err());
        assert!(fit(2, 257).is_err() && fit(2, 0).is_err());
        assert!(ProductQuantiser::fit(&[], &[], 0, 2, 8, 2, Key::new(1, "pq")).is_err());
        let from = |values, count| ProductQuantiser::from_centres(vec![0.0; values], 2, 1, count);
        assert!(from(2 * 257, 257).is_err(), "no byte names the last");
        assert!(from(8, 3).is_err() && from(0, 0).is_err());
        let four = from(8, 4).expect("two books of four");
        assert!(four.check(&[3, 3]).is_ok() && four.check(&[0, 4]).is_err());
    }
}
