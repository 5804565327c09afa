//! What LVM reports of the group.

use std::collections::BTreeMap;
use std::str::FromStr;

use dunnage_driver_api::{Error, Result, SnapshotKey, VolumeKey};
use serde::{Deserialize, Deserializer};

use crate::tags::{self, Entry};

/// The columns of the group, its disks and its logical volumes, as `--configreport` takes them.
pub(crate) const COLUMNS: [(&str, &str); 3] = [
    ("vg", "vg_uuid,vg_tags,vg_extent_size,vg_size,vg_free,vg_missing_pv_count,vg_mda_size,vg_mda_free"),
    ("pv", "pv_free,pv_missing"),
    (
        "lv",
        "lv_name,lv_uuid,lv_attr,lv_tags,lv_size,lv_layout,pool_lv,data_percent,metadata_percent,lv_health_status,lv_when_full",
    ),
];

/// The group at one moment. Sizes are in bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Report {
    /// LVM's id of the group, as the kernel's devices have it: without hyphens.
    pub(crate) uuid: String,
    /// The tags of the group itself.
    pub(crate) tags: Vec<String>,
    pub(crate) extent: u64,
    pub(crate) size: u64,
    pub(crate) free: u64,
    /// How many disks are missing.
    pub(crate) missing: u64,
    /// The size of the area for LVM's metadata on a disk, and what is free of it.
    pub(crate) metadata: (u64, u64),
    pub(crate) disks: Vec<Disk>,
    /// The logical volumes by their names, but for LVM's own parts of them.
    pub(crate) logical: BTreeMap<String, Logical>,
    volumes: BTreeMap<VolumeKey, String>,
    snapshots: BTreeMap<SnapshotKey, String>,
}

/// A physical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) free: u64,
    pub(crate) missing: bool,
}

/// A logical volume.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Logical {
    /// The id of the kernel's device; `None` of one that was made since the report.
    pub(crate) uuid: Option<String>,
    pub(crate) size: u64,
    /// `linear`, `raid,raid1`, `thin,pool`, …
    pub(crate) layout: String,
    /// The pool of a thin volume.
    pub(crate) pool: String,
    /// How full a pool is, where it is active.
    pub(crate) data_percent: Option<f64>,
    pub(crate) metadata_percent: Option<f64>,
    /// A word of LVM's where something is wrong.
    pub(crate) health: String,
    /// What a full pool does with writes: `error` or `queue`.
    pub(crate) when_full: String,
    /// Whether a pool zeroes a block before it gives it to a volume.
    pub(crate) zeroes: bool,
    /// What it is to us; `None` where it is somebody else's.
    pub(crate) entry: Option<Entry>,
}

impl Report {
    /// The report that the program wrote for one group.
    ///
    /// # Errors
    /// Where it is not what was asked for: nothing is known then.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let full: Full = serde_json::from_str(text)
            .map_err(|error| Error::internal("cannot read what LVM reports").caused_by(error))?;
        let [section] = <[Section; 1]>::try_from(full.report)
            .map_err(|sections| Error::internal(format!("LVM reports {} groups, not one", sections.len())))?;
        let [group] = <[GroupRow; 1]>::try_from(section.vg)
            .map_err(|rows| Error::internal(format!("LVM reports {} rows of a group, not one", rows.len())))?;
        let mut report = Self {
            uuid: group.vg_uuid.replace('-', ""),
            tags: split(&group.vg_tags),
            extent: group.vg_extent_size,
            size: group.vg_size,
            free: group.vg_free,
            missing: group.vg_missing_pv_count,
            metadata: (group.vg_mda_size, group.vg_mda_free),
            disks: section.pv.into_iter().map(DiskRow::into_disk).collect(),
            ..Self::default()
        };
        for row in section.lv {
            let (name, logical) = row.into_logical(&report.uuid);
            report.put(name, logical);
        }
        Ok(report)
    }

    /// Puts a logical volume in its place, and takes what it takes from what is free.
    pub(crate) fn put(&mut self, name: String, logical: Logical) {
        match &logical.entry {
            Some(Entry::Volume(volume, _)) => drop(self.volumes.insert(volume.key.clone(), name.clone())),
            Some(Entry::Snapshot(snapshot, _)) => drop(self.snapshots.insert(snapshot.key.clone(), name.clone())),
            _ => {}
        }
        self.logical.insert(name, logical);
    }

    /// Forgets a logical volume.
    pub(crate) fn remove(&mut self, name: &str) {
        self.logical.remove(name);
        self.volumes.retain(|_, known| known != name);
        self.snapshots.retain(|_, known| known != name);
    }

    /// The logical volume of this volume.
    pub(crate) fn volume(&self, key: &VolumeKey) -> Option<(&str, &Logical)> {
        self.by_name(self.volumes.get(key)?)
    }

    /// The logical volume of this snapshot.
    pub(crate) fn snapshot(&self, key: &SnapshotKey) -> Option<(&str, &Logical)> {
        self.by_name(self.snapshots.get(key)?)
    }

    /// The logical volumes of volumes in the order of their keys, after one.
    pub(crate) fn volumes_after<'a>(&'a self, after: Option<&VolumeKey>) -> impl Iterator<Item = &'a Logical> {
        beyond(&self.volumes, after).filter_map(|name| self.logical.get(name))
    }

    /// The same of snapshots.
    pub(crate) fn snapshots_after<'a>(&'a self, after: Option<&SnapshotKey>) -> impl Iterator<Item = &'a Logical> {
        beyond(&self.snapshots, after).filter_map(|name| self.logical.get(name))
    }

    /// The thin pool of this name.
    ///
    /// # Errors
    /// `FailedPrecondition` where there is none, or where it gives volumes blocks with what others wrote.
    pub(crate) fn pool(&self, name: &str) -> Result<&Logical> {
        let pool = self.logical.get(name).filter(|logical| logical.layout == "thin,pool").ok_or_else(|| {
            Error::precondition(format!(
                "there is no thin pool {name:?} in the volume group: make it with `lvcreate --type thin-pool`, or correct \
                 the key pool"
            ))
        })?;
        if pool.zeroes {
            return Ok(pool);
        }
        Err(Error::precondition(format!(
            "the thin pool {name:?} does not zero its blocks, so that volumes would show what others wrote: run `lvchange \
             --zero y` on it"
        )))
    }

    /// The sizes of all that takes its room from this pool.
    pub(crate) fn promised(&self, pool: &str) -> u64 {
        let thin = self.logical.values().filter(|logical| logical.pool == pool);
        thin.fold(0, |sum, logical| sum.saturating_add(logical.size))
    }

    fn by_name(&self, name: &String) -> Option<(&str, &Logical)> {
        self.logical.get_key_value(name).map(|(name, logical)| (name.as_str(), logical))
    }
}

fn beyond<'a, K: Ord>(names: &'a BTreeMap<K, String>, after: Option<&K>) -> impl Iterator<Item = &'a String> {
    let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
    names.range((start, std::ops::Bound::Unbounded)).map(|(_, name)| name)
}

fn split(tags: &str) -> Vec<String> {
    tags.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

#[derive(Deserialize)]
struct Full {
    report: Vec<Section>,
}

#[derive(Deserialize)]
struct Section {
    vg: Vec<GroupRow>,
    pv: Vec<DiskRow>,
    lv: Vec<LogicalRow>,
}

#[derive(Deserialize)]
struct GroupRow {
    vg_uuid: String,
    vg_tags: String,
    #[serde(deserialize_with = "number")]
    vg_extent_size: u64,
    #[serde(deserialize_with = "number")]
    vg_size: u64,
    #[serde(deserialize_with = "number")]
    vg_free: u64,
    #[serde(deserialize_with = "number")]
    vg_missing_pv_count: u64,
    #[serde(deserialize_with = "number")]
    vg_mda_size: u64,
    #[serde(deserialize_with = "number")]
    vg_mda_free: u64,
}

#[derive(Deserialize)]
struct DiskRow {
    #[serde(deserialize_with = "number")]
    pv_free: u64,
    pv_missing: String,
}

#[derive(Deserialize)]
struct LogicalRow {
    lv_name: String,
    lv_uuid: String,
    lv_attr: String,
    lv_tags: String,
    #[serde(deserialize_with = "number")]
    lv_size: u64,
    lv_layout: String,
    pool_lv: String,
    data_percent: String,
    metadata_percent: String,
    lv_health_status: String,
    lv_when_full: String,
}

impl DiskRow {
    fn into_disk(self) -> Disk {
        Disk { free: self.pv_free, missing: !self.pv_missing.is_empty() }
    }
}

impl LogicalRow {
    fn into_logical(self, group: &str) -> (String, Logical) {
        let logical = Logical {
            uuid: Some(format!("LVM-{group}{}", self.lv_uuid.replace('-', ""))),
            size: self.lv_size,
            layout: self.lv_layout,
            pool: self.pool_lv,
            data_percent: self.data_percent.parse().ok(),
            metadata_percent: self.metadata_percent.parse().ok(),
            health: self.lv_health_status,
            when_full: self.lv_when_full,
            zeroes: self.lv_attr.as_bytes().get(7) == Some(&b'z'),
            entry: tags::read(&split(&self.lv_tags), self.lv_size),
        };
        (self.lv_name, logical)
    }
}

/// LVM writes numbers as text.
fn number<'de, T: FromStr, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom(format_args!("{text:?} is no number")))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What LVM 2.03.16 writes, with these rows of logical volumes.
    pub(crate) fn text(group_tags: &str, missing: u64, rows: &[String]) -> String {
        format!(
            r#"  {{
      "report": [
          {{
              "vg": [
                  {{"vg_uuid":"fRFJeX-5bXQ-VLRj", "vg_tags":"{group_tags}", "vg_extent_size":"4194304", "vg_size":"2130706432", "vg_free":"1073741824", "vg_missing_pv_count":"{missing}", "vg_mda_size":"1044480", "vg_mda_free":"520192"}}
              ]
              ,
              "pv": [
                  {{"pv_free":"536870912", "pv_missing":""}},
                  {{"pv_free":"536870912", "pv_missing":"missing"}}
              ]
              ,
              "lv": [
                  {}
              ]
              ,
              "pvseg": [
              ]
              ,
              "seg": [
              ]
          }}
      ]
  }}
"#,
            rows.join(",\n")
        )
    }

    /// A group that has as much room.
    pub(crate) fn with_room(size: u64, free: u64, extent: u64, disks: Vec<Disk>) -> Report {
        Report { size, free, extent, disks, ..Report::default() }
    }

    /// The row of a logical volume.
    pub(crate) fn row(name: &str, tags: &str, size: u64, layout: &str, pool: &str, percents: [&str; 2]) -> String {
        let [data, metadata] = percents;
        format!(
            r#"{{"lv_name":"{name}", "lv_uuid":"06TIbf-{name}", "lv_attr":"twi-aotz--", "lv_tags":"{tags}", "lv_size":"{size}", "lv_layout":"{layout}", "pool_lv":"{pool}", "data_percent":"{data}", "metadata_percent":"{metadata}", "lv_health_status":"", "lv_when_full":""}}"#
        )
    }

    #[test]
    fn what_lvm_writes_is_read() {
        let rows = [
            row("pool", "", 104_857_600, "thin,pool", "", ["33.34", "11.91"]),
            row("theirs", "a,b", 8_388_608, "linear", "", ["", ""]),
            row("thin", "", 50, "thin,sparse", "pool", ["1.00", ""]),
        ];
        let report = Report::parse(&text("dunnage.form=1,x", 1, &rows)).unwrap();
        assert_eq!((report.uuid.as_str(), report.missing, report.extent), ("fRFJeX5bXQVLRj", 1, 4 << 20));
        assert_eq!(report.tags, ["dunnage.form=1", "x"]);
        assert_eq!(report.disks.iter().map(|disk| disk.missing).collect::<Vec<_>>(), [false, true]);
        let pool = report.pool("pool").unwrap();
        assert_eq!((pool.data_percent, pool.metadata_percent), (Some(33.34), Some(11.91)));
        assert_eq!(report.promised("pool"), 50);
        assert_eq!(report.logical["theirs"].uuid.as_deref(), Some("LVM-fRFJeX5bXQVLRj06TIbftheirs"));
        assert!(report.pool("theirs").is_err());
        let unsafe_pool = Report::parse(&text("", 0, &rows).replace("twi-aotz--", "twi-aot---")).unwrap();
        assert!(unsafe_pool.pool("pool").unwrap_err().to_string().contains("--zero y"));
    }

    #[test]
    fn what_is_not_a_whole_report_of_one_group_is_an_error() {
        let whole = text("", 0, &[]);
        assert!(Report::parse(&whole).is_ok());
        for broken in [
            &whole[..whole.len() / 2],
            "",
            r#"{"report": []}"#,
            &whole.replace("\"vg_free\":\"1073741824\"", "\"vg_free\":\"many\""),
            &whole.replace("\"vg_tags\"", "\"other\""),
        ] {
            assert!(Report::parse(broken).is_err(), "{broken}");
        }
    }
}
