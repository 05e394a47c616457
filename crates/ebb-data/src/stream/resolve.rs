//! Every default written out, and everything that cannot work refused.

use super::{
    Angles, ClassOrder, CorruptionSpec, Kind, Mixture, NamedScale, Recency, Scale, Scenario,
    SecondHalf, Skew, StreamSpec, TaskOrder,
};
use crate::catalogue::catalogue;
use crate::dataset::Normalise;
use crate::transform::Corruption;
use crate::{Error, Result};

impl StreamSpec {
    /// The kind whose experiences are learned or combined.
    pub(super) fn origin_kind(&self) -> Kind {
        self.base.or(self.kind).unwrap_or(Kind::Split)
    }

    /// The same stream with every default written out and `split` spelled as `kind` and `n`.
    /// Resolving twice changes nothing.
    ///
    /// # Errors
    /// [`Error::BadStream`] for a field that has no meaning here or a value that cannot work;
    /// [`Error::UnknownDataset`].
    pub fn resolved(&self) -> Result<StreamSpec> {
        let mut spec = self.clone();
        spec.resolve_kind()?;
        spec.refuse_meaningless()?;
        let (kind, origin) = (spec.kind.unwrap_or(Kind::Split), spec.origin_kind());

        let scenario = match origin {
            Kind::Split | Kind::Recurring | Kind::SiBlurry => Scenario::Class,
            _ => Scenario::Domain,
        };
        let scenario = *spec.scenario.get_or_insert(scenario);
        if matches!(kind, Kind::Recurring | Kind::SiBlurry) && scenario != Scenario::Class {
            return Err(Error::stream(
                "scenario",
                "classes come in different company in a recurring or si-blurry stream, so there is no task to tell or to count labels within: only \"class\" has a meaning",
            ));
        }
        spec.resolve_number(origin)?;
        spec.resolve_scale()?;
        match origin {
            Kind::Split if spec.groups.is_none() => {
                spec.class_order.get_or_insert(ClassOrder::Fixed);
            }
            Kind::Permuted | Kind::Corrupted | Kind::Recoloured => {
                spec.first_identity.get_or_insert(true);
            }
            Kind::Rotated if spec.degrees.is_none() => {
                let [low, high] = *spec.range.get_or_insert([0.0, 180.0]);
                if !(low.is_finite() && high.is_finite() && low <= high) {
                    return Err(Error::stream(
                        "range",
                        format!("[{low}, {high}] is no range of angles"),
                    ));
                }
                spec.angles.get_or_insert(Angles::Keyed);
            }
            _ => {}
        }
        for (field, value) in [
            ("per_experience", spec.per_experience),
            ("test_per_experience", spec.test_per_experience),
        ] {
            if value == Some(0) {
                return Err(Error::stream(
                    field,
                    "0 examples teach nothing; leave it out to have all",
                ));
            }
        }
        spec.resolve_blurry()?;
        match kind {
            Kind::Recurring => spec.resolve_recurring()?,
            Kind::PowerLaw => spec.resolve_power_law()?,
            Kind::SiBlurry => spec.resolve_si_blurry()?,
            _ => {}
        }
        Ok(spec)
    }

    fn resolve_kind(&mut self) -> Result<()> {
        if let Some(n) = self.split.take() {
            match (self.kind, self.base) {
                (None | Some(Kind::Split), None) => self.kind = Some(Kind::Split),
                (Some(Kind::Joint | Kind::PowerLaw), None | Some(Kind::Split)) => {
                    self.base = Some(Kind::Split);
                }
                (kind, base) => {
                    let name = base.or(kind).unwrap_or(Kind::Split).name();
                    return Err(Error::stream(
                        "split",
                        format!(
                            "`split = {n}` makes a split stream, and this one is \"{name}\"; write n = {n}"
                        ),
                    ));
                }
            }
            if self.n.is_some_and(|other| other != n) {
                return Err(Error::stream(
                    "split",
                    "it says the same as n, and they differ",
                ));
            }
            self.n = Some(n);
        }
        match *self.kind.get_or_insert(Kind::Split) {
            Kind::Joint => drop(self.base.get_or_insert(Kind::Split)),
            Kind::PowerLaw => drop(self.base.get_or_insert(Kind::Permuted)),
            _ => {}
        }
        if let Some(base @ (Kind::Recurring | Kind::PowerLaw | Kind::Joint | Kind::SiBlurry)) =
            self.base
        {
            return Err(Error::stream(
                "base",
                format!(
                    "\"{}\" cannot be combined; take split, permuted, rotated, corrupted or recoloured",
                    base.name()
                ),
            ));
        }
        Ok(())
    }

    /// A field that the kind does not read would be silently ignored: refuse it instead.
    fn refuse_meaningless(&self) -> Result<()> {
        use Kind::*;
        let plain = &[Split, Permuted, Rotated, Corrupted, Recoloured][..];
        let fields: [(&'static str, bool, &[Kind]); 24] = [
            ("base", self.base.is_some(), &[Joint, PowerLaw]),
            ("class_order", self.class_order.is_some(), &[Split]),
            ("groups", self.groups.is_some(), &[Split, Recurring]),
            (
                "first_identity",
                self.first_identity.is_some(),
                &[Permuted, Corrupted, Recoloured],
            ),
            ("degrees", self.degrees.is_some(), &[Rotated]),
            ("range", self.range.is_some(), &[Rotated]),
            ("angles", self.angles.is_some(), &[Rotated]),
            ("corruptions", self.corruptions.is_some(), &[Corrupted]),
            ("blurry", self.blurry.is_some(), plain),
            ("gradual", self.gradual.is_some(), plain),
            (
                "classes_per_task",
                self.classes_per_task.is_some(),
                &[Recurring],
            ),
            ("skew", self.skew.is_some(), &[Recurring]),
            ("n_groups", self.n_groups.is_some(), &[Recurring]),
            ("order", self.order.is_some(), &[Recurring]),
            (
                "random_fraction",
                self.random_fraction.is_some(),
                &[Recurring],
            ),
            ("second_half", self.second_half.is_some(), &[Recurring]),
            ("mixture", self.mixture.is_some(), &[PowerLaw]),
            ("exponent", self.exponent.is_some(), &[PowerLaw]),
            ("rate", self.rate.is_some(), &[PowerLaw]),
            ("recency", self.recency.is_some(), &[PowerLaw]),
            ("block", self.block.is_some(), &[PowerLaw]),
            ("rehearsal", self.rehearsal.is_some(), &[PowerLaw]),
            ("disjoint", self.disjoint.is_some(), &[SiBlurry]),
            ("strays", self.strays.is_some(), &[SiBlurry]),
        ];
        let kind = self.kind.unwrap_or(Split);
        for (field, given, kinds) in fields {
            let mixing = matches!(field, "blurry" | "gradual");
            let known = kinds.contains(&kind)
                || (!mixing && self.base.is_some_and(|base| kinds.contains(&base)));
            if given && !known {
                let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                return Err(Error::stream(
                    field,
                    format!(
                        "it has no meaning in a stream of kind \"{}\"; it belongs to {}",
                        kind.name(),
                        names.join(", ")
                    ),
                ));
            }
        }
        for (field, given, instead, other) in [
            (
                "class_order",
                self.class_order.is_some(),
                "groups",
                self.groups.is_some(),
            ),
            (
                "range",
                self.range.is_some(),
                "degrees",
                self.degrees.is_some(),
            ),
            (
                "angles",
                self.angles.is_some(),
                "degrees",
                self.degrees.is_some(),
            ),
            (
                "n_groups",
                self.n_groups.is_some(),
                "groups",
                self.groups.is_some(),
            ),
            (
                "gradual",
                self.gradual.is_some(),
                "blurry",
                self.blurry.is_some(),
            ),
            (
                "block",
                self.block.is_some(),
                "recency = \"introduction\"",
                self.recency != Some(Recency::Occurrence),
            ),
            (
                "rate",
                self.rate.is_some(),
                "another mixture than \"exponential\"",
                self.mixture != Some(Mixture::Exponential),
            ),
            (
                "random_fraction",
                self.random_fraction.is_some(),
                "order = \"random\"",
                self.order != Some(TaskOrder::Cycle),
            ),
        ] {
            if given && other {
                return Err(Error::stream(
                    field,
                    format!("it has no meaning together with {instead}; leave one of them out"),
                ));
            }
        }
        Ok(())
    }

    fn resolve_number(&mut self, origin: Kind) -> Result<()> {
        let listed = match origin {
            Kind::Split => self.groups.as_ref().map(|groups| ("groups", groups.len())),
            Kind::Rotated => self
                .degrees
                .as_ref()
                .map(|degrees| ("degrees", degrees.len())),
            Kind::Corrupted => {
                let all = || {
                    Corruption::ALL
                        .map(|kind| CorruptionSpec { kind, severity: 3 })
                        .to_vec()
                };
                let listed = self.corruptions.get_or_insert_with(all).len();
                Some((
                    "corruptions",
                    listed + usize::from(self.first_identity.unwrap_or(true)),
                ))
            }
            _ => None,
        };
        let usual = match origin {
            Kind::Split | Kind::Recoloured | Kind::SiBlurry => 5,
            Kind::Recurring => 100,
            _ => 10,
        };
        let n = *self.n.get_or_insert(listed.map_or(usual, |(_, n)| n));
        if let Some((field, listed)) = listed.filter(|(_, listed)| *listed != n) {
            return Err(Error::stream(
                "n",
                format!(
                    "n = {n} does not agree with the {listed} experiences of {field}; leave n out"
                ),
            ));
        }
        if !(1..=65_535).contains(&n) {
            return Err(Error::stream(
                "n",
                format!("{n} experiences: give 1 to 65535"),
            ));
        }
        Ok(())
    }

    fn resolve_scale(&mut self) -> Result<()> {
        let listing = catalogue()
            .iter()
            .find(|listing| listing.name == self.dataset);
        if listing.is_none() && !self.dataset.ends_with(".safetensors") {
            return Err(crate::catalogue::unknown(&self.dataset));
        }
        let scale = *self
            .normalise
            .get_or_insert(Scale::Named(NamedScale::Dataset));
        self.normalise = Some(match (scale, listing) {
            (Scale::Named(NamedScale::Dataset), Some(listing)) => Scale::Numbers(listing.scale),
            (Scale::Named(NamedScale::Raw), Some(listing)) => {
                Scale::Numbers(Normalise::raw(listing.scale.divisor))
            }
            (scale, _) => scale,
        });
        match scale {
            Scale::Numbers(numbers) => numbers.check(),
            Scale::Named(_) => Ok(()),
        }
    }

    fn resolve_blurry(&mut self) -> Result<()> {
        if let Some(share) = self.blurry
            && !(0.0..1.0).contains(&share)
        {
            return Err(Error::stream(
                "blurry",
                format!("{share} is no share: give 0 or more, below 1"),
            ));
        }
        if let Some(width) = self.gradual
            && !(width >= 0.0 && width.is_finite())
        {
            return Err(Error::stream(
                "gradual",
                format!("{width} is no deviation: give 0 or more, in experiences"),
            ));
        }
        if self.n == Some(1) && self.blurry.is_some_and(|share| share > 0.0) {
            return Err(Error::stream(
                "blurry",
                "one experience has no other to share examples with",
            ));
        }
        Ok(())
    }

    fn resolve_recurring(&mut self) -> Result<()> {
        self.per_experience.get_or_insert(600);
        let size = match self.groups.as_ref().and_then(|groups| groups.first()) {
            Some(first) => first.len(),
            None => 2,
        };
        let classes = *self.classes_per_task.get_or_insert(size);
        if classes == 0 {
            return Err(Error::stream(
                "classes_per_task",
                "a task needs at least one class",
            ));
        }
        if *self.order.get_or_insert(TaskOrder::Random) == TaskOrder::Cycle {
            let share = *self.random_fraction.get_or_insert(0.0);
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::stream(
                    "random_fraction",
                    format!("{share} is no chance: give 0 to 1"),
                ));
            }
        }
        self.second_half.get_or_insert(SecondHalf::Same);
        if let Some(Skew { factor, power }) = self.skew
            && !(factor >= 0.0 && power >= 0.0 && factor.is_finite() && power.is_finite())
        {
            return Err(Error::stream("skew", "factor and power must be 0 or more"));
        }
        Ok(())
    }

    fn resolve_si_blurry(&mut self) -> Result<()> {
        for (field, share) in [
            ("disjoint", *self.disjoint.get_or_insert(0.5)),
            ("strays", *self.strays.get_or_insert(0.1)),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::stream(
                    field,
                    format!("{share} is no share: give 0 to 1"),
                ));
            }
        }
        Ok(())
    }

    fn resolve_power_law(&mut self) -> Result<()> {
        if self.per_experience.is_none() {
            // A default taken from the data would change the draws of all phases with one record.
            return Err(Error::stream(
                "per_experience",
                "a power-law stream needs the number of examples of a phase; the tasks must have as many each",
            ));
        }
        let mixture = *self.mixture.get_or_insert(Mixture::PowerLaw);
        let exponent = *self.exponent.get_or_insert(1.0);
        if !(exponent.is_finite() && exponent >= 0.0) {
            return Err(Error::stream(
                "exponent",
                format!("{exponent}: give 0 or more"),
            ));
        }
        if mixture == Mixture::Exponential {
            let rate = *self.rate.get_or_insert(1.0);
            if !(rate.is_finite() && rate >= 0.0) {
                return Err(Error::stream("rate", format!("{rate}: give 0 or more")));
            }
        }
        if *self.recency.get_or_insert(Recency::Introduction) == Recency::Occurrence
            && *self.block.get_or_insert(10) == 0
        {
            return Err(Error::stream("block", "a block has at least one example"));
        }
        if let Some(share) = self.rehearsal
            && !(0.0..1.0).contains(&share)
        {
            return Err(Error::stream(
                "rehearsal",
                format!("{share} is no share: give 0 or more, below 1"),
            ));
        }
        Ok(())
    }
}
