//! The store of this crate.

use std::path::Path;

use ebb_memory::{By, Input, Marks, Offer, Records, Safety, Shape, Store, Values};
use ebb_space::ExampleId;

use crate::Outcome;
use crate::work::{INPUT, LOGITS, Peer, SIZE, id, input, key};

pub struct Ours(Store);

impl Ours {
    pub fn open(dir: &Path, synced: bool) -> Outcome<Ours> {
        let safety = if synced {
            Safety::Power
        } else {
            Safety::Process
        };
        let shape = Shape {
            input: Input::U8(INPUT as u32),
            logits: Some(LOGITS as u32),
            features: None,
        };
        let empty = dir.read_dir()?.next().is_none();
        Ok(Ours(match empty {
            true => Store::create(dir, shape, key(), safety)?,
            false => Store::open(dir, key(), safety)?,
        }))
    }

    fn draw(&mut self, by: By, step: u64, inputs: &mut Vec<u8>) -> Outcome<Vec<u64>> {
        let draw = self.0.draw("replay", by, SIZE, step)?;
        for &slot in &draw.slots {
            self.0.payload(slot, inputs)?;
        }
        Ok(draw.slots.into_iter().map(u64::from).collect())
    }
}

impl Peer for Ours {
    fn insert(&mut self, ns: std::ops::Range<u64>) -> Outcome<()> {
        let ids: Vec<ExampleId> = ns.clone().map(id).collect();
        let codes: Vec<u8> = ns.clone().flat_map(input).collect();
        let offer = Offer {
            ids: &ids,
            labels: &vec![0; ids.len()],
            experience: 0,
            task: 0,
            step: 0,
        };
        let logits = vec![0.5; ids.len() * LOGITS];
        let records = Records {
            inputs: Values::U8(&codes),
            logits: Some(&logits),
            features: None,
        };
        self.0.insert(&offer, &records)?;
        Ok(())
    }

    fn mark(&mut self, handles: &[u64], scores: &[f32]) -> Outcome<()> {
        let slots: Vec<u32> = handles.iter().map(|&h| h as u32).collect();
        let marks: Vec<Marks> = scores
            .iter()
            .map(|&score| Marks {
                score,
                loss: 1.0,
                count: 1,
            })
            .collect();
        Ok(self.0.mark(&slots, &marks)?)
    }

    fn rewrite(&mut self, handles: &[u64], logits: &[f32]) -> Outcome<()> {
        let slots: Vec<u32> = handles.iter().map(|&h| h as u32).collect();
        Ok(self.0.rewrite(&slots, Some(logits), None, 1)?)
    }

    fn uniform(&mut self, step: u64, inputs: &mut Vec<u8>) -> Outcome<Vec<u64>> {
        self.draw(By::Uniform, step, inputs)
    }

    fn weighted(&mut self, step: u64, inputs: &mut Vec<u8>) -> Outcome<Vec<u64>> {
        self.draw(By::Scores { temperature: 1.0 }, step, inputs)
    }

    fn lookup(&mut self, id: &ExampleId, input: &mut Vec<u8>) -> Outcome<()> {
        let slot = self.0.find(id)?.ok_or("lost")?;
        Ok(self.0.payload(slot, input)?)
    }

    fn delete(&mut self, ids: &[ExampleId]) -> Outcome<()> {
        self.0.delete(ids)?;
        Ok(())
    }

    fn compact(&mut self) -> Outcome<()> {
        self.0.compact()?;
        Ok(())
    }

    fn file_bytes(&self) -> Outcome<u64> {
        Ok(self.0.file_bytes()?)
    }
}
