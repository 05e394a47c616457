//! Who is where, in memory: the digests of all records in 65,536 cells, by their first 16 bits.
//!
//! The cells serve two ends. A record is found by a search in one cell; and draws visit few cells
//! (see `race`), which is why a cell's scores stand beside its digests. A cell is sorted by digest,
//! so that its content depends on the records alone and not on how they came.

/// Number of cells.
pub(crate) const CELLS: usize = 1 << 16;

#[derive(Clone, Default)]
pub(crate) struct Cell {
    pub digests: Vec<u64>,
    pub slots: Vec<u32>,
    pub scores: Vec<f32>,
}

pub(crate) struct Index {
    pub cells: Vec<Cell>,
    pub len: usize,
    /// One bit a cell: whether there is anybody in it.
    pub occupied: Vec<u64>,
    /// Cells that changed since [`changed`](Index::changed) was last asked, each once.
    touched: Vec<u32>,
    is_touched: Vec<bool>,
}

/// The cell of a digest.
pub(crate) fn cell_of(digest: u64) -> usize {
    (digest >> 48) as usize
}

impl Index {
    pub fn new() -> Index {
        Index {
            cells: vec![Cell::default(); CELLS],
            len: 0,
            occupied: vec![0; CELLS / 64],
            touched: Vec::new(),
            is_touched: vec![false; CELLS],
        }
    }

    /// The index of records `(digest, slot, score)`, without growing any cell twice.
    pub fn build(records: impl Iterator<Item = (u64, u32, f32)> + Clone) -> Index {
        let mut index = Index::new();
        let mut sizes = vec![0u32; CELLS];
        for (digest, ..) in records.clone() {
            sizes[cell_of(digest)] += 1;
        }
        for (cell, &size) in index.cells.iter_mut().zip(&sizes) {
            let size = size as usize;
            cell.digests.reserve_exact(size);
            cell.slots.reserve_exact(size);
            cell.scores.reserve_exact(size);
        }
        for (digest, slot, score) in records {
            let cell = &mut index.cells[cell_of(digest)];
            cell.digests.push(digest);
            cell.slots.push(slot);
            cell.scores.push(score);
            index.len += 1;
        }
        let mut sorted: Vec<(u64, u32, f32)> = Vec::new();
        for (i, cell) in index.cells.iter_mut().enumerate() {
            index.occupied[i / 64] |= u64::from(!cell.digests.is_empty()) << (i % 64);
            sorted.clear();
            let parts = cell.digests.iter().zip(&cell.slots).zip(&cell.scores);
            sorted.extend(parts.map(|((&d, &s), &z)| (d, s, z)));
            sorted.sort_unstable_by_key(|&(digest, slot, _)| (digest, slot));
            for (i, &(digest, slot, score)) in sorted.iter().enumerate() {
                (cell.digests[i], cell.slots[i], cell.scores[i]) = (digest, slot, score);
            }
        }
        index
    }

    /// Slots of the records with this digest: as a rule none or one.
    pub fn find(&self, digest: u64) -> &[u32] {
        let cell = &self.cells[cell_of(digest)];
        let from = cell.digests.partition_point(|&d| d < digest);
        let same = cell.digests[from..].iter().take_while(|&&d| d == digest);
        &cell.slots[from..from + same.count()]
    }

    pub fn insert(&mut self, digest: u64, slot: u32, score: f32) {
        let cell = &mut self.cells[cell_of(digest)];
        let at = cell.digests.partition_point(|&d| d < digest);
        if cell.digests.len() == cell.digests.capacity() {
            // An eighth at a time: doubling would leave a quarter of the memory unused.
            let more = cell.digests.len() / 8 + 2;
            cell.digests.reserve_exact(more);
            cell.slots.reserve_exact(more);
            cell.scores.reserve_exact(more);
        }
        cell.digests.insert(at, digest);
        cell.slots.insert(at, slot);
        cell.scores.insert(at, score);
        self.len += 1;
        self.touch(digest);
    }

    pub fn remove(&mut self, digest: u64, slot: u32) {
        if let Some(at) = self.place(digest, slot) {
            let cell = &mut self.cells[cell_of(digest)];
            cell.digests.remove(at);
            cell.slots.remove(at);
            cell.scores.remove(at);
            self.len -= 1;
            self.touch(digest);
        }
    }

    pub fn score(&self, digest: u64, slot: u32) -> Option<f32> {
        let at = self.place(digest, slot)?;
        Some(self.cells[cell_of(digest)].scores[at])
    }

    pub fn set_score(&mut self, digest: u64, slot: u32, score: f32) {
        if let Some(at) = self.place(digest, slot) {
            self.cells[cell_of(digest)].scores[at] = score;
            self.touch(digest);
        }
    }

    /// Takes the list of cells that changed since it was last taken.
    pub fn changed(&mut self) -> Vec<u32> {
        for &cell in &self.touched {
            self.is_touched[cell as usize] = false;
        }
        std::mem::take(&mut self.touched)
    }

    /// Bytes that the cells reserve.
    pub fn bytes(&self) -> usize {
        let entries: usize = self.cells.iter().map(|c| c.digests.capacity()).sum();
        entries * (8 + 4 + 4) + CELLS * (size_of::<Cell>() + 1)
    }

    fn place(&self, digest: u64, slot: u32) -> Option<usize> {
        let cell = &self.cells[cell_of(digest)];
        let from = cell.digests.partition_point(|&d| d < digest);
        (from..cell.digests.len())
            .take_while(|&at| cell.digests[at] == digest)
            .find(|&at| cell.slots[at] == slot)
    }

    fn touch(&mut self, digest: u64) {
        let cell = cell_of(digest);
        let (word, bit) = (cell / 64, 1 << (cell % 64));
        match self.cells[cell].digests.is_empty() {
            true => self.occupied[word] &= !bit,
            false => self.occupied[word] |= bit,
        }
        if !self.is_touched[cell] {
            self.is_touched[cell] = true;
            self.touched.push(cell as u32);
        }
    }
}
