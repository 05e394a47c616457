//! The memory: a policy, its records, and what can be asked of them.

use ebb_space::{ExampleId, Key};

use crate::draw::{self, Draw, Select};
use crate::policy::{self, Fill, Group, Keep};
use crate::record::{Form, Lookup, Meta, Offer, Records, Values, length};
use crate::slab::{self, Bulk, Entry, Slab};
use crate::{Error, Result};

/// Settings of a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Records it holds at most.
    pub capacity: usize,
    /// Which of them it keeps.
    pub keep: Keep,
    /// What a record looks like.
    pub form: Form,
}

/// A replay memory.
pub struct Memory {
    pub(crate) config: Config,
    pub(crate) slab: Slab,
    /// State of the policy.
    pub(crate) groups: Vec<Group>,
    /// Records offered so far.
    pub(crate) seen: u64,
    pub(crate) keys: Keys,
    /// Counts changes, so that a stale plan is refused.
    version: u64,
}

/// The independent uses of a memory's key.
#[derive(Clone, Copy)]
pub(crate) struct Keys {
    pub keep: Key,
    pub draw: Key,
}

/// What an offer would change: made by [`Memory::plan`], carried out by [`Memory::commit`].
pub struct Plan {
    indices: Vec<u32>,
    entries: Vec<Entry>,
    evict: Vec<u32>,
    groups: Vec<Group>,
    seen: u64,
    version: u64,
}

impl Plan {
    /// Which of the offered records enter, by index into the offer, ascending. Only their rows are
    /// needed for [`Memory::commit`].
    pub fn admitted(&self) -> &[u32] {
        &self.indices
    }

    /// Slots of the records that leave.
    pub fn evicted(&self) -> &[u32] {
        &self.evict
    }
}

impl Memory {
    /// An empty memory. Its choices follow `key`, so two memories of one run need two keys.
    ///
    /// # Errors
    /// [`Error::Config`] for a capacity or width of 0 or a ring that holds nothing;
    /// [`Error::TooLarge`] if the columns cannot be allocated.
    pub fn new(config: Config, key: Key) -> Result<Memory> {
        let zero = |what: &str| {
            Err(Error::Config(format!(
                "{what} is 0; set it to at least 1, or leave it out"
            )))
        };
        match config {
            Config { capacity: 0, .. } => return zero("`capacity`"),
            Config {
                form: Form { input: 0, .. },
                ..
            } => return zero("the width of an input"),
            Config {
                form: Form {
                    logits: Some(0), ..
                },
                ..
            } => return zero("the number of logits"),
            Config {
                form: Form {
                    features: Some(0), ..
                },
                ..
            } => return zero("the number of features"),
            Config {
                keep: Keep::Ring { per_task: 0 },
                ..
            } => return zero("`per_task` of the ring"),
            Config { capacity, .. } if u32::try_from(capacity).is_err() => {
                return Err(Error::Config(format!(
                    "`capacity` {capacity} exceeds {}",
                    u32::MAX
                )));
            }
            _ => {}
        }
        Ok(Memory {
            config,
            slab: Slab::new(config.capacity, config.form)?,
            groups: Vec::new(),
            seen: 0,
            keys: Keys {
                keep: key.sub("keep"),
                draw: key.sub("draw"),
            },
            version: 0,
        })
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// When this memory takes offers.
    pub fn fill(&self) -> Fill {
        self.config.keep.fill()
    }

    /// Records kept.
    pub fn len(&self) -> usize {
        self.slab.len
    }

    /// Whether no record is kept.
    pub fn is_empty(&self) -> bool {
        self.slab.len == 0
    }

    /// Records offered so far, kept or not.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Decides what an offer would change, without changing it.
    ///
    /// # Errors
    /// [`Error::Length`] if ids and labels differ in number; [`Error::RingFull`].
    pub fn plan(&self, offer: &Offer<'_>) -> Result<Plan> {
        let offered = self.entries(offer)?;
        let mut groups = self.groups.clone();
        let mut decision = policy::decide(
            self.config.keep,
            self.config.capacity,
            &self.slab,
            &offered,
            &mut groups,
        )?;
        decision.admit.sort_unstable();
        decision.evict.sort_unstable();
        Ok(self.planned(&offered, decision, groups))
    }

    /// A plan its user made: of the offered records those in `admit` (indices into the offer)
    /// enter, and the records in the slots `evict` leave. For a memory that keeps what is chosen.
    ///
    /// # Errors
    /// [`Error::Length`] if ids and labels differ in number; [`Error::Config`] if the memory has
    /// a policy of its own, an index or slot does not exist, an index, slot or record is named
    /// twice, a record is kept already, or there would be more records than the capacity.
    pub fn plan_chosen(&self, offer: &Offer<'_>, admit: &[u32], evict: &[u32]) -> Result<Plan> {
        let refuse = |reason: String| Err(Error::Config(reason));
        if self.fill() != Fill::Chosen {
            return refuse("a memory with a policy of its own takes no chosen records".into());
        }
        let offered = self.entries(offer)?;
        let mut decision = policy::Decision {
            admit: admit.to_vec(),
            evict: evict.to_vec(),
        };
        for (what, list, limit) in [
            ("record", &mut decision.admit, offered.len()),
            ("slot", &mut decision.evict, self.len()),
        ] {
            list.sort_unstable();
            if let Some(last) = list.last().filter(|last| **last as usize >= limit) {
                return refuse(format!("{what} {last} was chosen, but there are {limit}"));
            }
            if let Some(twice) = list.windows(2).find(|w| w[0] == w[1]) {
                return refuse(format!("{what} {} was chosen twice", twice[0]));
            }
        }
        let after = self.len() + decision.admit.len() - decision.evict.len();
        if after > self.config.capacity {
            return refuse(format!(
                "{after} records would be kept, more than the capacity {}",
                self.config.capacity
            ));
        }
        let plan = self.planned(&offered, decision, self.groups.clone());
        let stays = |slot: &u32| plan.evict.binary_search(slot).is_err();
        let mut ids: Vec<ExampleId> = plan.entries.iter().map(|e| e.meta.id).collect();
        let slots = self.slab.slots_of(&plan.entries);
        for (id, slot) in ids.iter().zip(slots) {
            if let Some(slot) = slot.filter(stays) {
                return refuse(format!("record {id} is kept already, in slot {slot}"));
            }
        }
        ids.sort_unstable();
        match ids.windows(2).find(|w| w[0] == w[1]) {
            Some(twice) => refuse(format!("record {} is named twice", twice[0])),
            None => Ok(plan),
        }
    }

    fn entries(&self, offer: &Offer<'_>) -> Result<Vec<Entry>> {
        length("labels", offer.labels.len(), offer.ids.len())?;
        Ok((offer.ids.iter().zip(offer.labels).zip(self.seen..))
            .map(|((&id, &label), arrival)| {
                let (
                    mix,
                    Offer {
                        experience,
                        task,
                        step,
                        ..
                    },
                ) = (id.mix(), *offer);
                let meta = Meta {
                    id,
                    label,
                    experience,
                    task,
                    step,
                    arrival,
                };
                Entry {
                    meta,
                    mix,
                    priority: self.keys.keep.draw(mix),
                }
            })
            .collect())
    }

    fn planned(&self, offered: &[Entry], decision: policy::Decision, groups: Vec<Group>) -> Plan {
        Plan {
            entries: decision
                .admit
                .iter()
                .map(|&i| offered[i as usize])
                .collect(),
            indices: decision.admit,
            evict: decision.evict,
            groups,
            seen: self.seen + offered.len() as u64,
            version: self.version,
        }
    }

    /// Carries a plan out. `rows` are those of [`Plan::admitted`], in that order. Returns how many
    /// records entered.
    ///
    /// # Errors
    /// [`Error::StalePlan`] if the memory changed since, and the errors of rows that do not fit;
    /// the memory is then as before.
    pub fn commit(&mut self, plan: Plan, records: &Records<'_>) -> Result<usize> {
        records.check(&self.config.form, plan.entries.len())?;
        self.carry_out(plan, records, |k, _| k)
    }

    /// Offers a batch with all its rows, at every step of training. A memory that is filled after
    /// each experience ignores it: [`plan`](Memory::plan) and [`commit`](Memory::commit) the whole
    /// experience at its end. Returns how many records entered.
    ///
    /// # Errors
    /// Those of [`plan`](Memory::plan) and [`commit`](Memory::commit).
    pub fn offer(&mut self, offer: &Offer<'_>, records: &Records<'_>) -> Result<usize> {
        if self.fill() != Fill::Step {
            return Ok(0);
        }
        records.check(&self.config.form, offer.ids.len())?;
        let plan = self.plan(offer)?;
        self.carry_out(plan, records, |_, index| index)
    }

    /// Successors overwrite those who leave; `row` finds the row of the k-th admitted record, which
    /// is number `index` of the offer.
    fn carry_out(
        &mut self,
        plan: Plan,
        records: &Records<'_>,
        row: impl Fn(usize, usize) -> usize,
    ) -> Result<usize> {
        if plan.version != self.version {
            return Err(Error::StalePlan);
        }
        let mut vacant = plan.evict.iter();
        for (k, (entry, &index)) in plan.entries.iter().zip(&plan.indices).enumerate() {
            let row = row(k, index as usize);
            match vacant.next() {
                Some(&slot) => self.slab.write(slot as usize, entry, records, row),
                None => self.slab.push(entry, records, row),
            }
        }
        // From the end, since removing a record moves only records behind it.
        for &slot in vacant.as_slice().iter().rev() {
            self.slab.remove(slot as usize);
        }
        self.groups = plan.groups;
        self.seen = plan.seen;
        self.version += 1;
        Ok(plan.entries.len())
    }

    /// Draws records by name for a step. See [`Select`] and [`Draw`].
    ///
    /// # Errors
    /// [`Error::Weight`] or [`Error::Length`] for weights that are none; [`Error::CycleInFuture`].
    pub fn draw(&self, name: &str, select: Select<'_>, size: usize, step: u64) -> Result<Draw> {
        draw::draw(self.keys.draw, &self.slab, name, select, size, step)
    }

    /// What is known of each record, by slot.
    pub fn metas(&self) -> &[Meta] {
        self.slab.metas()
    }

    /// The slot of a record. Slots hold until the memory changes.
    pub fn find(&self, id: &ExampleId) -> Option<u32> {
        self.slab.find(id, id.mix())
    }

    /// Slots of the records that satisfy `test`, in the order in which they came.
    pub fn slots_where(&self, test: impl Fn(&Meta) -> bool) -> Vec<u32> {
        let mut slots: Vec<u32> = self
            .metas()
            .iter()
            .zip(0..)
            .filter(|(meta, _)| test(meta))
            .map(|(_, slot)| slot)
            .collect();
        slots.sort_unstable_by_key(|&slot| self.slab.metas[slot as usize].arrival);
        slots
    }

    /// The input in a slot, as it is kept.
    ///
    /// # Panics
    /// If the slot holds no record; so do all functions that take slots.
    pub fn input(&self, slot: u32) -> Values<'_> {
        let (slot, width) = (self.slot(slot), self.config.form.input);
        match &self.slab.inputs {
            Bulk::F32(column) => Values::F32(&column[slot * width..][..width]),
            Bulk::U8(column) => Values::U8(&column[slot * width..][..width]),
        }
    }

    /// The logits kept in a slot, if logits are kept.
    pub fn logits(&self, slot: u32) -> Option<&[f32]> {
        let slot = self.slot(slot);
        self.config
            .form
            .logits
            .map(|width| &self.slab.logits[slot * width..][..width])
    }

    /// The features kept in a slot, if features are kept.
    pub fn features(&self, slot: u32) -> Option<&[f32]> {
        let slot = self.slot(slot);
        self.config
            .form
            .features
            .map(|width| &self.slab.features[slot * width..][..width])
    }

    /// Appends the inputs of `slots` to `out`, row after row. Codes are turned into values by
    /// `lookup`; `f32` inputs need none.
    ///
    /// # Errors
    /// [`Error::Payload`] if codes are kept and no lookup is given; [`Error::Length`] if its planes
    /// do not divide the input.
    pub fn gather(&self, slots: &[u32], lookup: Option<&Lookup>, out: &mut Vec<f32>) -> Result<()> {
        out.reserve(slots.len() * self.config.form.input);
        for &slot in slots {
            match (self.input(slot), lookup) {
                (Values::F32(values), _) => out.extend_from_slice(values),
                (Values::U8(codes), Some(lookup)) => lookup.decode(codes, out)?,
                (Values::U8(_), None) => {
                    return Err(Error::Payload {
                        kept: "u8",
                        what: "is gathered without a lookup",
                    });
                }
            }
        }
        Ok(())
    }

    /// Appends the labels of `slots` to `out`.
    pub fn gather_labels(&self, slots: &[u32], out: &mut Vec<u32>) {
        out.extend(
            slots
                .iter()
                .map(|&slot| self.slab.metas[self.slot(slot)].label),
        );
    }

    /// Appends the kept logits of `slots` to `out`, row after row.
    ///
    /// # Errors
    /// [`Error::Sidecar`] if the memory keeps none.
    pub fn gather_logits(&self, slots: &[u32], out: &mut Vec<f32>) -> Result<()> {
        gather_sidecar("logits", slots, |slot| self.logits(slot), out)
    }

    /// Appends the kept features of `slots` to `out`, row after row.
    ///
    /// # Errors
    /// [`Error::Sidecar`] if the memory keeps none.
    pub fn gather_features(&self, slots: &[u32], out: &mut Vec<f32>) -> Result<()> {
        gather_sidecar("features", slots, |slot| self.features(slot), out)
    }

    /// Replaces the sidecars of `slots` by newer ones, written at `step`; `None` leaves a sidecar
    /// as it is.
    ///
    /// # Errors
    /// [`Error::Sidecar`] for a sidecar that the memory does not keep, [`Error::Length`].
    pub fn rewrite(
        &mut self,
        slots: &[u32],
        logits: Option<&[f32]>,
        features: Option<&[f32]>,
        step: u64,
    ) -> Result<()> {
        let form = self.config.form;
        for (what, width, values) in [
            ("logits", form.logits, logits),
            ("features", form.features, features),
        ] {
            if let Some(values) = values {
                let width = width.ok_or(Error::Sidecar {
                    what,
                    why: NOT_KEPT,
                })?;
                length(what, values.len(), slots.len() * width)?;
            }
        }
        for (row, &slot) in slots.iter().enumerate() {
            let slot = self.slot(slot);
            self.slab.metas[slot].step = step;
            for (column, width, values) in [
                (&mut self.slab.logits, form.logits, logits),
                (&mut self.slab.features, form.features, features),
            ] {
                if let (Some(width), Some(values)) = (width, values) {
                    column[slot * width..][..width]
                        .copy_from_slice(&values[row * width..][..width]);
                }
            }
        }
        self.version += 1;
        Ok(())
    }

    /// Deletes one record and overwrites its bytes. Returns whether it was there. No other record
    /// is chosen in its place: the vacancy waits for one that would have been kept without it.
    pub fn delete(&mut self, id: &ExampleId) -> bool {
        let slot = self.find(id);
        if let Some(slot) = slot {
            self.slab.remove(slot as usize);
            self.version += 1;
        }
        slot.is_some()
    }

    /// Deletes every view of a record. Returns how many were kept.
    pub fn delete_base(&mut self, id: &ExampleId) -> usize {
        let before = self.len();
        for slot in (0..before).rev() {
            if self.slab.metas[slot].id.same_base(id) {
                self.slab.remove(slot);
            }
        }
        self.version += u64::from(self.len() < before);
        before - self.len()
    }

    /// Bytes of one record: its input, its sidecars, its [`Meta`], and 16 for the cached digest of
    /// its id and its priority.
    pub fn record_bytes(&self) -> usize {
        slab::record_bytes(&self.config.form)
    }

    /// Bytes that the kept records occupy, exactly: records × [`record_bytes`](Memory::record_bytes).
    pub fn bytes(&self) -> usize {
        self.len() * self.record_bytes()
    }

    /// Bytes that the columns reserve: capacity × [`record_bytes`](Memory::record_bytes). Pages not
    /// yet written to cost no physical memory.
    pub fn reserved_bytes(&self) -> usize {
        self.config.capacity * self.record_bytes()
    }

    fn slot(&self, slot: u32) -> usize {
        let slot = slot as usize;
        assert!(
            slot < self.len(),
            "slot {slot} of {} records: slots hold until the memory changes",
            self.len()
        );
        slot
    }
}

const NOT_KEPT: &str = "this memory does not keep them; name them in its form";

fn gather_sidecar<'a>(
    what: &'static str,
    slots: &[u32],
    of: impl Fn(u32) -> Option<&'a [f32]>,
    out: &mut Vec<f32>,
) -> Result<()> {
    for &slot in slots {
        out.extend_from_slice(of(slot).ok_or(Error::Sidecar {
            what,
            why: NOT_KEPT,
        })?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Payload;

    const FORM: Form = Form {
        input: 3,
        payload: Payload::F32,
        logits: Some(2),
        features: Some(1),
    };

    fn id(n: u64) -> ExampleId {
        ExampleId::of(&n.to_le_bytes(), 0)
    }

    /// Offers records `ns`; every value of record `n` is `1000 + n`.
    fn offer(memory: &mut Memory, ns: &[u64], experience: u32) {
        let ids: Vec<ExampleId> = ns.iter().map(|&n| id(n)).collect();
        let labels = vec![7; ns.len()];
        let offer = Offer {
            ids: &ids,
            labels: &labels,
            experience,
            task: 3,
            step: 5,
        };
        let plan = memory.plan(&offer).unwrap();
        let rows = |width: usize| -> Vec<f32> {
            let admitted = plan
                .admitted()
                .iter()
                .map(|&i| 1000.0 + ns[i as usize] as f32);
            admitted
                .flat_map(|value| std::iter::repeat_n(value, width))
                .collect()
        };
        let (x, logits, features) = (rows(3), rows(2), rows(1));
        let records = Records {
            inputs: Values::F32(&x),
            logits: Some(&logits),
            features: Some(&features),
        };
        memory.commit(plan, &records).unwrap();
    }

    /// Whether any column still holds something of record `n`, in use or not.
    fn traces(memory: &Memory, n: u64) -> bool {
        let Bulk::F32(inputs) = &memory.slab.inputs else {
            unreachable!()
        };
        let slab = &memory.slab;
        let mut values = inputs.iter().chain(&slab.logits).chain(&slab.features);
        values.any(|&value| value == 1000.0 + n as f32)
            || slab.metas.iter().any(|meta| meta.id == id(n))
            || slab.mixes.contains(&id(n).mix())
            || slab
                .priorities
                .contains(&memory.keys.keep.draw(id(n).mix()))
    }

    fn whole(memory: &Memory) {
        for (slot, meta) in memory.metas().iter().enumerate() {
            let Values::F32(x) = memory.input(slot as u32) else {
                unreachable!()
            };
            let value = x[0];
            assert_eq!(meta.id, id((value - 1000.0) as u64));
            assert_eq!(
                (x, memory.logits(slot as u32).unwrap()),
                (&[value; 3][..], &[value; 2][..])
            );
            assert_eq!(memory.features(slot as u32).unwrap(), [value]);
            assert_eq!(memory.slab.mixes[slot], meta.id.mix());
        }
    }

    #[test]
    fn a_deleted_or_evicted_record_leaves_no_byte_behind() {
        for keep in [
            Keep::Reservoir,
            Keep::ExperienceBalanced,
            Keep::ClassBalanced,
            Keep::Ring { per_task: 8 },
        ] {
            let config = Config {
                capacity: 16,
                keep,
                form: FORM,
            };
            let mut memory = Memory::new(config, Key::new(1, "memory")).unwrap();
            offer(&mut memory, &(0..8).collect::<Vec<_>>(), 0);
            offer(&mut memory, &(8..40).collect::<Vec<_>>(), 1);
            whole(&memory);
            for n in 0..40 {
                assert_eq!(
                    traces(&memory, n),
                    memory.find(&id(n)).is_some(),
                    "{keep:?}, record {n}"
                );
            }
            for n in [39, 0, 20, 7, 8] {
                let kept = memory.find(&id(n)).is_some();
                let before = memory.len();
                assert_eq!(memory.delete(&id(n)), kept);
                assert_eq!(memory.len(), before - usize::from(kept));
                assert!(
                    !traces(&memory, n),
                    "{keep:?}: record {n} survives its deletion"
                );
                whole(&memory);
            }
        }
    }

    #[test]
    fn all_views_of_a_record_go_together_and_equal_records_of_others_stay() {
        let config = Config {
            capacity: 16,
            keep: Keep::Reservoir,
            form: FORM,
        };
        let mut memory = Memory::new(config, Key::new(1, "memory")).unwrap();
        let (base, twin) = (id(1), id(1).with_occurrence(1));
        let ids = [base, id(2), base.with_view(1), twin, base.with_view(9)];
        let x: Vec<f32> = (0..15).map(|v| v as f32).collect();
        let offer = Offer {
            ids: &ids,
            labels: &[0; 5],
            experience: 0,
            task: 0,
            step: 0,
        };
        let records = Records {
            inputs: Values::F32(&x),
            logits: Some(&x[..10]),
            features: Some(&x[..5]),
        };
        assert_eq!(memory.offer(&offer, &records).unwrap(), 5);
        assert_eq!(memory.delete_base(&base.with_view(77)), 3);
        let mut left: Vec<ExampleId> = memory.metas().iter().map(|meta| meta.id).collect();
        left.sort_unstable();
        let mut expected = vec![id(2), twin];
        expected.sort_unstable();
        assert_eq!(left, expected);
        assert_eq!(
            memory.input(memory.find(&twin).unwrap()).values(),
            [9.0, 10.0, 11.0]
        );
        assert_eq!(memory.delete_base(&base), 0);
    }

    impl Values<'_> {
        fn values(&self) -> &[f32] {
            match self {
                Values::F32(values) => values,
                Values::U8(_) => unreachable!("the test keeps f32"),
            }
        }
    }

    #[test]
    fn bytes_are_those_of_the_columns() {
        for (form, values) in [
            (FORM, 4 * 6),
            (
                Form {
                    input: 784,
                    payload: Payload::U8,
                    logits: None,
                    features: None,
                },
                784,
            ),
            (
                Form {
                    input: 784,
                    payload: Payload::F32,
                    logits: Some(10),
                    features: None,
                },
                4 * 794,
            ),
        ] {
            let config = Config {
                capacity: 33,
                keep: Keep::Reservoir,
                form,
            };
            let mut memory = Memory::new(config, Key::new(1, "memory")).unwrap();
            let slab = &memory.slab;
            let inputs = match &slab.inputs {
                Bulk::F32(column) => column.capacity() * 4,
                Bulk::U8(column) => column.capacity(),
            };
            let reserved = inputs
                + (slab.logits.capacity() + slab.features.capacity()) * 4
                + slab.metas.capacity() * size_of::<Meta>()
                + (slab.mixes.capacity() + slab.priorities.capacity()) * 8;
            assert_eq!(memory.reserved_bytes(), reserved);
            assert_eq!(memory.record_bytes(), values + size_of::<Meta>() + 16);
            assert_eq!(memory.bytes(), 0);
            let (x, codes) = (vec![0.0; 2 * form.input], vec![0; 2 * form.input]);
            let inputs = if form.payload == Payload::U8 {
                Values::U8(&codes)
            } else {
                Values::F32(&x)
            };
            let sidecar = |width: Option<usize>| width.map(|width| vec![0.0; 2 * width]);
            let (logits, features) = (sidecar(form.logits), sidecar(form.features));
            let records = Records {
                inputs,
                logits: logits.as_deref(),
                features: features.as_deref(),
            };
            let offer = Offer {
                ids: &[id(1), id(2)],
                labels: &[0, 0],
                experience: 0,
                task: 0,
                step: 0,
            };
            memory.offer(&offer, &records).unwrap();
            assert_eq!(memory.bytes(), 2 * memory.record_bytes());
        }
    }
}
