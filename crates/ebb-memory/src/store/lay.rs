//! How entries are put one behind the other.

use super::disk::{self, Disk};
use super::journal::{Frame, Part};
use super::row;
use crate::Result;

/// Bytes of one entry of a sidecar of `width` values: values, step, checksum.
pub(super) fn stride(width: u32) -> usize {
    width as usize * 4 + 12
}

pub(super) fn encode_sidecar(slot: u32, values: &[f32], step: u64, entry: &mut Vec<u8>) {
    row::push_floats(values, entry);
    entry.extend_from_slice(&step.to_le_bytes());
    entry.extend_from_slice(&[0; 4]);
    row::seal(slot, entry);
}

/// Pieces that lie one behind the other are written at once.
pub(super) struct Batch<'a> {
    disk: &'a Disk,
    at: u64,
    bytes: Vec<u8>,
}

impl<'a> Batch<'a> {
    pub fn new(disk: &'a Disk) -> Batch<'a> {
        Batch {
            disk,
            at: 0,
            bytes: Vec::new(),
        }
    }

    pub fn add(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        if self.at + self.bytes.len() as u64 != at || self.bytes.len() >= disk::PIECE {
            self.finish()?;
            self.at = at;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub fn finish(&mut self) -> Result<()> {
        let written = match self.bytes.is_empty() {
            true => Ok(()),
            false => self.disk.write(self.at, &self.bytes),
        };
        self.bytes.clear();
        written
    }
}

/// Entries of neighbouring slots are one change of a frame.
pub(super) struct Run {
    part: Part,
    at: u64,
    bytes: Vec<u8>,
}

impl Run {
    pub fn new(part: Part) -> Run {
        Run {
            part,
            at: 0,
            bytes: Vec::new(),
        }
    }

    pub fn add(&mut self, slot: u32, entry: &[u8], frame: &mut Frame) {
        let at = u64::from(slot) * entry.len() as u64;
        if self.at + self.bytes.len() as u64 != at {
            self.finish(frame);
            self.at = at;
        }
        self.bytes.extend_from_slice(entry);
    }

    pub fn finish(&mut self, frame: &mut Frame) {
        if !self.bytes.is_empty() {
            frame.write(self.part, self.at, &self.bytes);
            self.bytes.clear();
        }
    }
}
