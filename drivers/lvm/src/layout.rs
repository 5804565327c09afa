//! How the extents of a thick volume lie on the disks: the parameters of a class.

use dunnage_driver_api::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::report::Report;

/// The class parameters of a thick backend.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ThickClass {
    /// How the extents lie: `linear` unless said.
    #[serde(rename = "type", default)]
    layout: LayoutType,
    /// Over how many disks the data is striped. For `striped` and `raid10`: 2 unless said.
    stripes: Option<u32>,
    /// How many copies there are beside the first. For `raid1` and `raid10`: 1 unless said.
    mirrors: Option<u32>,
}

/// A type of LVM's segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum LayoutType {
    /// One after the other, on any disk.
    #[default]
    Linear,
    /// Spread over several disks for speed: lost with any of them.
    Striped,
    /// Copied to several disks.
    Raid1,
    /// Copied and spread.
    Raid10,
}

/// How the extents of one volume lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Over how many disks the data is spread: 1 where it is not.
    pub(crate) stripes: u32,
    /// How many copies of each byte there are.
    pub(crate) copies: u32,
}

/// More are not asked for by anybody, and LVM has limits of its own.
const MOST: u32 = 16;

impl ThickClass {
    /// The layout that these parameters ask for.
    ///
    /// # Errors
    /// `InvalidArgument` where they do not go together.
    pub(crate) fn layout(self) -> Result<Layout> {
        let (spreads, copies) = match self.layout {
            LayoutType::Linear => (false, false),
            LayoutType::Striped => (true, false),
            LayoutType::Raid1 => (false, true),
            LayoutType::Raid10 => (true, true),
        };
        let stripes = count("stripes", spreads, 2, self.stripes)?.unwrap_or(1);
        let mirrors = count("mirrors", copies, 1, self.mirrors)?.unwrap_or(0);
        Ok(Layout { stripes, copies: mirrors + 1 })
    }
}

fn count(name: &str, applies: bool, least: u32, value: Option<u32>) -> Result<Option<u32>> {
    match value {
        None => Ok(applies.then_some(least)),
        Some(_) if !applies => {
            Err(Error::invalid(format!("class parameter `{name}` has no meaning with this `type`: leave it out")))
        }
        Some(value) if (least..=MOST).contains(&value) => Ok(Some(value)),
        Some(value) => {
            Err(Error::invalid(format!("class parameter `{name}` is {value}, which is not from {least} to {MOST}")))
        }
    }
}

impl Layout {
    pub(crate) const LINEAR: Self = Self { stripes: 1, copies: 1 };

    /// The arguments of lvcreate(8). A RAID is not synchronised where `wiped` says that both copies will be written.
    pub(crate) fn arguments(self, wiped: bool) -> Vec<String> {
        let kind = match (self.stripes, self.copies) {
            (1, 1) => "linear",
            (_, 1) => "striped",
            (1, _) => "raid1",
            _ => "raid10",
        };
        let mut arguments = vec!["--type".into(), kind.into()];
        if self.stripes > 1 {
            arguments.extend(["--stripes".into(), self.stripes.to_string()]);
        }
        if self.copies > 1 {
            arguments.extend(["--mirrors".into(), (self.copies - 1).to_string()]);
            arguments.extend(wiped.then(|| "--nosync".into()));
        }
        arguments
    }

    /// What every size is a multiple of.
    pub(crate) fn unit(self, extent: u64) -> u64 {
        extent.saturating_mul(self.stripes.into())
    }

    /// What a volume of this size takes of the group: a RAID has an extent of its own on each disk.
    pub(crate) fn takes(self, bytes: u64, extent: u64) -> u64 {
        let own = if self.copies > 1 { u64::from(self.disks()).saturating_mul(extent) } else { 0 };
        bytes.saturating_mul(self.copies.into()).saturating_add(own)
    }

    /// How large a volume can be now: where it needs several disks, as many must have the room.
    pub(crate) fn largest(self, report: &Report) -> u64 {
        let unit = self.unit(report.extent).max(1);
        if self.disks() == 1 {
            return report.free / unit * unit;
        }
        let mut free: Vec<u64> = report.disks.iter().filter(|disk| !disk.missing).map(|disk| disk.free).collect();
        free.sort_unstable_by(|one, other| other.cmp(one));
        let narrowest = free.get(self.disks() as usize - 1).copied().unwrap_or(0);
        let own = if self.copies > 1 { report.extent } else { 0 };
        let data = (narrowest.saturating_sub(own)).saturating_mul(self.stripes.into());
        data / unit * unit
    }

    fn disks(self) -> u32 {
        self.stripes * self.copies
    }

    /// As a tag has it.
    pub(crate) fn to_tag(self) -> String {
        format!("{}x{}", self.stripes, self.copies)
    }

    /// What [`to_tag`](Self::to_tag) has written.
    pub(crate) fn of_tag(text: &str) -> Option<Self> {
        let (stripes, copies) = text.split_once('x')?;
        let layout = Self { stripes: stripes.parse().ok()?, copies: copies.parse().ok()? };
        (layout.stripes > 0 && layout.copies > 0).then_some(layout)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dunnage_driver_api::Parameters;

    use super::*;
    use crate::report::Disk;
    use crate::report::tests::with_room;

    fn layout(pairs: &[(&str, &str)]) -> Result<Layout> {
        let pairs: BTreeMap<_, _> = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Parameters::new(pairs).parse::<ThickClass>()?.layout()
    }

    #[test]
    fn parameters_become_arguments() {
        for (pairs, arguments) in [
            (&[][..], "--type linear"),
            (&[("type", "striped"), ("stripes", "3")], "--type striped --stripes 3"),
            (&[("type", "raid1")], "--type raid1 --mirrors 1 --nosync"),
            (&[("type", "raid10"), ("mirrors", "2")], "--type raid10 --stripes 2 --mirrors 2 --nosync"),
        ] {
            let layout = layout(pairs).unwrap();
            assert_eq!(layout.arguments(true).join(" "), arguments);
            assert_eq!(Layout::of_tag(&layout.to_tag()), Some(layout));
        }
        assert_eq!(layout(&[("type", "raid1")]).unwrap().arguments(false).join(" "), "--type raid1 --mirrors 1");
    }

    #[test]
    fn parameters_that_mean_nothing_together_are_refused() {
        for (pairs, said) in [
            (&[("stripes", "2")][..], "`stripes` has no meaning"),
            (&[("type", "striped"), ("mirrors", "1")], "`mirrors` has no meaning"),
            (&[("type", "striped"), ("stripes", "1")], "from 2 to 16"),
            (&[("type", "raid1"), ("mirrors", "0")], "from 1 to 16"),
            (&[("type", "raid7")], "`raid10`"),
            (&[("colour", "red")], "unknown parameter `colour`"),
        ] {
            let error = layout(pairs).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_mirror_is_as_large_as_the_second_largest_room() {
        let disk = |free| Disk { free, missing: false };
        let report = with_room(200, 180, 4, vec![disk(100), disk(48), disk(32)]);
        for (pairs, size) in [
            (&[][..], 180),
            (&[("type", "striped")], 96),
            (&[("type", "raid1")], 44),
            (&[("type", "raid1"), ("mirrors", "2")], 28),
            (&[("type", "raid10")], 0),
        ] {
            assert_eq!(layout(pairs).unwrap().largest(&report), size, "{pairs:?}");
        }
    }
}
