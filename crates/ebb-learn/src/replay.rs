//! The memory as the loop uses it: offers, named draws, and batches of what is remembered.

use crate::batch::{Batch, Collect};
use crate::error::Result;
use crate::seen::{ClassSets, column};
use crate::spec::{DrawSpec, KeepSpec, MemorySpec, SelectSpec};
use ebb_data::{Item, Part, Stream};
use ebb_memory::{Config, Fill, Form, Keep, Memory, Offer, Payload, Plan, Records, Select, Values};
use ebb_net::Model;
use ebb_space::{ExampleId, Key};
use std::collections::BTreeMap;
use std::path::Path;

/// The memory, its draws, and what competes in remembered rows.
pub struct Replay {
    /// The store.
    pub memory: Memory,
    draws: BTreeMap<String, DrawSpec>,
    /// Class sets of the experience under way.
    pub class_sets: ClassSets,
    /// The first step of the experience under way.
    pub since: u64,
    outputs: usize,
}

/// Examples offered to the memory.
pub struct Offered<'a> {
    /// Where their inputs come from.
    pub stream: &'a Stream,
    /// The examples.
    pub items: &'a [Item],
    /// The logits the network gave them, a row each; read only if the memory stores them.
    pub logits: &'a [f32],
    /// Their features, a row each; read only if the memory stores them.
    pub features: &'a [f32],
    /// Which experience they belong to.
    pub experience: usize,
    /// Step of the run.
    pub step: u64,
}

impl Replay {
    /// An empty memory whose inputs have so many values of such a kind. `experiences` divides a
    /// ring's capacity; logits are stored when a term asks for them, and so are features, of the
    /// width given.
    ///
    /// # Errors
    /// When the capacity cannot be divided.
    pub fn new(
        spec: &MemorySpec,
        draws: &BTreeMap<String, DrawSpec>,
        (inputs, payload): (usize, Payload),
        outputs: usize,
        stores_logits: bool,
        features: Option<usize>,
        experiences: usize,
        class_sets: ClassSets,
        key: Key,
    ) -> Result<Self> {
        let keep = match spec.keep {
            KeepSpec::Reservoir => Keep::Reservoir,
            KeepSpec::ClassBalanced => Keep::ClassBalanced,
            KeepSpec::ExperienceBalanced => Keep::ExperienceBalanced,
            KeepSpec::Chosen => Keep::Chosen,
            KeepSpec::Ring => Keep::Ring {
                per_task: (spec.capacity / experiences.max(1)).max(1),
            },
        };
        let config = Config {
            capacity: spec.capacity,
            keep,
            form: Form {
                input: inputs,
                payload,
                logits: stores_logits.then_some(outputs),
                features,
            },
        };
        Ok(Self {
            memory: Memory::new(config, key)?,
            draws: draws.clone(),
            class_sets,
            since: 0,
            outputs,
        })
    }

    /// Whether the memory is filled at each step (or at the end of each experience).
    pub fn fills_each_step(&self) -> bool {
        self.memory.fill() == Fill::Step
    }

    /// Offers examples; the policy decides which stay, and only those are gathered.
    ///
    /// # Errors
    /// When the rows do not fit the store.
    pub fn offer(&mut self, offered: &Offered) -> Result<()> {
        let mut start = 0;
        // An offer has one task; where boundaries blur, a batch has several.
        for items in offered.items.chunk_by(|a, b| a.task == b.task) {
            let ids: Vec<ExampleId> = items.iter().map(|i| i.id).collect();
            let labels: Vec<u32> = items.iter().map(|i| column(offered.stream, i)).collect();
            let plan = self.memory.plan(&Offer {
                ids: &ids,
                labels: &labels,
                experience: offered.experience as u32,
                task: items[0].task,
                step: offered.step,
            })?;
            self.enter(plan, offered, start)?;
            start += items.len();
        }
        Ok(())
    }

    /// Whether the memory is filled at the end of each experience.
    pub fn fills_after_experience(&self) -> bool {
        self.memory.fill() == Fill::Experience
    }

    /// Takes in the examples of `offered` with the indices `admit`, in the place of the records
    /// in the slots `evict`; all of them of one task.
    ///
    /// # Errors
    /// When the memory has a policy of its own or the choice does not fit.
    pub fn take_in(&mut self, offered: &Offered, admit: &[u32], evict: &[u32]) -> Result<()> {
        let ids: Vec<ExampleId> = offered.items.iter().map(|i| i.id).collect();
        let label = |i: &Item| column(offered.stream, i);
        let labels: Vec<u32> = offered.items.iter().map(label).collect();
        let offer = Offer {
            ids: &ids,
            labels: &labels,
            experience: offered.experience as u32,
            task: offered.items.first().map_or(0, |i| i.task),
            step: offered.step,
        };
        let plan = self.memory.plan_chosen(&offer, admit, evict)?;
        self.enter(plan, offered, 0)
    }

    fn enter(&mut self, plan: Plan, offered: &Offered, start: usize) -> Result<()> {
        let item = |i: &u32| offered.items[start + *i as usize];
        let admitted: Vec<Item> = plan.admitted().iter().map(item).collect();
        let mut x = Vec::new();
        offered.stream.gather(Part::Train, &admitted, &mut x);
        let form = self.memory.config().form;
        let sidecar = |width: Option<usize>, values: &[f32]| {
            // What an offer lacks is missed, and named, where the records enter.
            let width = width.filter(|w| values.len() >= offered.items.len() * w)?;
            let row = |i: &u32| (start + *i as usize) * width;
            let rows = (plan.admitted().iter()).flat_map(|i| &values[row(i)..row(i) + width]);
            Some(rows.copied().collect::<Vec<f32>>())
        };
        let logits = sidecar(form.logits, offered.logits);
        let features = sidecar(form.features, offered.features);
        let rows = Records {
            inputs: Values::F32(&x),
            logits: logits.as_deref(),
            features: features.as_deref(),
        };
        self.memory.commit(plan, &rows)?;
        Ok(())
    }

    /// Whether anything of `experience` is kept.
    pub fn holds(&self, experience: usize) -> bool {
        self.memory
            .metas()
            .iter()
            .any(|m| m.experience as usize == experience)
    }

    /// Adds every named draw of this step to a batch.
    ///
    /// # Errors
    /// When the memory cannot be read.
    pub fn add_draws(&self, collect: &mut Collect, step: u64, batch: usize) -> Result<()> {
        if self.memory.is_empty() {
            return Ok(());
        }
        for (name, draw) in &self.draws {
            let size = draw.size.unwrap_or(batch);
            let weights: Vec<f64>;
            let select = match draw.select {
                SelectSpec::Uniform => Select::Uniform,
                SelectSpec::Cycle => Select::Cycle { since: self.since },
                SelectSpec::Oldest => {
                    weights = self
                        .memory
                        .metas()
                        .iter()
                        .map(|m| (step.saturating_sub(m.step) + 1) as f64)
                        .collect();
                    Select::Weighted(&weights)
                }
                // Mixed in by the loader.
                SelectSpec::Concatenate | SelectSpec::Union => continue,
            };
            let name = format!("replay:{name}");
            let drawn = self.memory.draw(&name, select, size, step)?;
            self.add_slots(collect, &name, &drawn.slots)?;
        }
        Ok(())
    }

    /// Adds the records in `slots` as the support `name`.
    ///
    /// # Errors
    /// When the memory cannot be read.
    pub fn add_slots(&self, collect: &mut Collect, name: &str, slots: &[u32]) -> Result<()> {
        if slots.is_empty() {
            return Ok(());
        }
        collect.support(name);
        self.add_rows(collect, slots)
    }

    /// Adds the records in `slots` to the support that was last begun.
    ///
    /// # Errors
    /// When the memory cannot be read.
    pub fn add_rows(&self, collect: &mut Collect, slots: &[u32]) -> Result<()> {
        let before = collect.len();
        for slot in slots {
            let m = &self.memory.metas()[*slot as usize];
            collect.row(m.id, m.label, self.class_sets.of(usize::from(m.task)));
        }
        self.memory.gather(slots, None, &mut collect.x)?;
        if self.memory.config().form.logits.is_some() {
            collect.stored_logits.resize(before * self.outputs, 0.0);
            self.memory
                .gather_logits(slots, &mut collect.stored_logits)?;
        }
        if let Some(width) = self.memory.config().form.features {
            collect.stored_features.resize(before * width, 0.0);
            self.memory
                .gather_features(slots, &mut collect.stored_features)?;
        }
        Ok(())
    }

    /// Everything kept of `experience`.
    ///
    /// # Errors
    /// When the memory cannot be read.
    pub fn batch_of(&self, experience: usize, model: &Model) -> Result<Batch> {
        let slots = self
            .memory
            .slots_where(|m| m.experience as usize == experience);
        self.batch("memory", &slots, model)
    }

    /// `size` records of experiences before `experience`, drawn by `name` at `step`.
    ///
    /// # Errors
    /// When the memory cannot be read.
    pub fn sample(
        &self,
        name: &str,
        size: usize,
        step: u64,
        experience: usize,
        model: &Model,
    ) -> Result<Option<Batch>> {
        let weights: Vec<f64> = self
            .memory
            .metas()
            .iter()
            .map(|m| f64::from(u8::from((m.experience as usize) < experience)))
            .collect();
        let earlier = weights.iter().filter(|w| **w > 0.0).count();
        if earlier == 0 {
            return Ok(None);
        }
        let drawn = self
            .memory
            .draw(name, Select::Weighted(&weights), size.min(earlier), step)?;
        Ok(Some(self.batch("memory", &drawn.slots, model)?))
    }

    fn batch(&self, name: &str, slots: &[u32], model: &Model) -> Result<Batch> {
        let mut collect = Collect::default();
        self.add_slots(&mut collect, name, slots)?;
        Ok(collect.finish(model, &self.class_sets.sets, self.outputs))
    }

    /// The draw that is mixed into the new data by the loader, if the recipe has one.
    pub fn concatenated(&self) -> Option<&str> {
        self.draws
            .iter()
            .find(|(_, d)| d.select.mixes_in())
            .map(|(n, _)| n.as_str())
    }

    /// How often the memory is repeated beside `rows` new ones that it is mixed into: once, or as
    /// in the code of Hsu et al. 2018, by its capacity and rounded down.
    pub fn repeats(&self, rows: usize) -> usize {
        let once = |d: &DrawSpec| d.select == SelectSpec::Union;
        match self.draws.values().any(once) {
            true => 1,
            false => (rows / self.memory.config().capacity.max(1)).max(1),
        }
    }

    /// Writes the memory under `dir`.
    ///
    /// # Errors
    /// When writing fails.
    pub fn save(&self, dir: &Path) -> Result<()> {
        self.memory.save(dir)?;
        Ok(())
    }
}
