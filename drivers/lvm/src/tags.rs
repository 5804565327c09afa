//! What is kept of a volume and of a snapshot: tags of its logical volume.
//!
//! A tag is at most 1024 of `A-Z a-z 0-9 _ + . - / = ! : & #`. Each of ours is `dunnage.<field>=<value>`; what a value
//! cannot have is written as `!` and two hexadecimal digits. Fields that a later release adds are ignored here; a form that
//! this one does not know is refused. The size is not among them: it is the size of the logical volume.

use std::time::Duration;

use dunnage_driver_api::{
    Bytes, Fingerprint, FsType, Generation, Snapshot, SnapshotId, SnapshotKey, SourceId, Volume, VolumeId, VolumeKey,
};
use serde::de::DeserializeOwned;

use crate::layout::Layout;

/// The form of these tags.
const FORM: &str = "1";
/// What every tag of ours begins with.
pub(crate) const OURS: &str = "dunnage.";
/// On a logical volume that is not whole: it is no volume, and may be removed when nobody works on it.
pub(crate) const UNFINISHED: &str = "dunnage.unfinished";

/// What a logical volume is to us.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    /// A volume.
    Volume(Volume, Own),
    /// A snapshot.
    Snapshot(Snapshot, Own),
    /// Something that was not finished.
    Unfinished,
    /// Something with tags of ours that cannot be read: what is wrong.
    Broken(String),
}

/// What is kept beside what the host asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Own {
    /// The file system for a capability that names none.
    pub(crate) fs_type: FsType,
    /// How its extents lie.
    pub(crate) layout: Layout,
}

/// The tags of a volume.
pub(crate) fn of_volume(volume: &Volume, own: Own) -> Vec<String> {
    let mut tags = vec![
        tag("volume", volume.key.as_str()),
        tag("form", FORM),
        tag("generation", volume.generation.as_str()),
        tag("name", &volume.name),
        tag("fingerprint", &volume.fingerprint.to_string()),
        tag("created", &volume.created.to_string()),
        tag("fs_type", own.fs_type.as_str()),
    ];
    if own.layout != Layout::LINEAR {
        tags.push(tag("layout", &own.layout.to_tag()));
    }
    tags.extend(volume.source.as_ref().map(|source| match source {
        SourceId::Snapshot(id) => tag("source", &id.to_string()),
        SourceId::Volume(id) => tag("source", &id.to_string()),
    }));
    tags
}

/// The tags of a snapshot.
pub(crate) fn of_snapshot(snapshot: &Snapshot, own: Own) -> Vec<String> {
    let created = snapshot.created;
    vec![
        tag("snapshot", snapshot.key.as_str()),
        tag("form", FORM),
        tag("generation", snapshot.generation.as_str()),
        tag("name", &snapshot.name),
        tag("fingerprint", &snapshot.fingerprint.to_string()),
        tag("created", &format!("{}.{:09}", created.as_secs(), created.subsec_nanos())),
        tag("fs_type", own.fs_type.as_str()),
        tag("source", &snapshot.source.to_string()),
    ]
}

/// The tag that one generation of a volume or a snapshot has and no other.
pub(crate) fn of_generation(generation: &Generation) -> String {
    tag("generation", generation.as_str())
}

/// A tag of ours.
pub(crate) fn tag(field: &str, value: &str) -> String {
    let mut text = format!("{OURS}{field}=");
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'+' | b'.' | b'-' => text.push(char::from(byte)),
            _ => text.push_str(&format!("!{byte:02x}")),
        }
    }
    text
}

/// The value of a field in tags.
pub(crate) fn value(tags: &[String], field: &str) -> Result<Option<String>, String> {
    let fields = tags.iter().filter_map(|tag| tag.strip_prefix(OURS)?.split_once('='));
    let mut values = fields.filter(|(name, _)| *name == field).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            plain(value).map(Some).ok_or_else(|| format!("the tag {OURS}{field} cannot be read: {value:?}"))
        }
        (Some(_), Some(_)) => Err(format!("there is more than one tag {OURS}{field}")),
    }
}

fn plain(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(place) = rest.find('!') {
        bytes.extend_from_slice(&rest.as_bytes()[..place]);
        bytes.push(u8::from_str_radix(rest.get(place + 1..place + 3)?, 16).ok()?);
        rest = &rest[place + 3..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

/// What a logical volume of this size is to us by its tags; `None` where it is somebody else's.
pub(crate) fn read(tags: &[String], size: u64) -> Option<Entry> {
    if !tags.iter().any(|tag| tag.starts_with(OURS)) {
        return None;
    }
    if tags.iter().any(|tag| tag == UNFINISHED) {
        return Some(Entry::Unfinished);
    }
    Some(entry(tags, Bytes::new(size)).unwrap_or_else(Entry::Broken))
}

fn entry(tags: &[String], size: Bytes) -> Result<Entry, String> {
    let form: String = field(tags, "form")?;
    if form != FORM {
        return Err(format!("its tags have form {form}, this release knows {FORM}: use a later release"));
    }
    let (generation, name): (Generation, String) = (field(tags, "generation")?, field(tags, "name")?);
    let fingerprint: Fingerprint = field(tags, "fingerprint")?;
    let layout = match value(tags, "layout")? {
        Some(text) => Layout::of_tag(&text).ok_or_else(|| format!("the tag {OURS}layout cannot be read: {text:?}"))?,
        None => Layout::LINEAR,
    };
    let own = Own { fs_type: field(tags, "fs_type")?, layout };
    if let Some(key) = value(tags, "volume")? {
        let mut volume = Volume::new(parsed::<VolumeKey>("volume", &key)?, generation, size);
        volume.created = parsed("created", &field::<String>(tags, "created")?)?;
        (volume.name, volume.fingerprint) = (name, fingerprint);
        volume.source = value(tags, "source")?.map(|text| source(&text)).transpose()?;
        return Ok(Entry::Volume(volume, own));
    }
    let key: SnapshotKey = parsed("snapshot", &field::<String>(tags, "snapshot")?)?;
    let source: VolumeId = parsed("source", &field::<String>(tags, "source")?)?;
    let mut snapshot = Snapshot::new(key, generation, source, size);
    snapshot.created = moment(&field::<String>(tags, "created")?)?;
    (snapshot.name, snapshot.fingerprint) = (name, fingerprint);
    Ok(Entry::Snapshot(snapshot, own))
}

fn field<T: DeserializeOwned>(tags: &[String], field: &str) -> Result<T, String> {
    let text = value(tags, field)?.ok_or_else(|| format!("the tag {OURS}{field} is missing"))?;
    T::deserialize(serde_json::Value::from(text)).map_err(|error| format!("the tag {OURS}{field}: {error}"))
}

fn parsed<T: std::str::FromStr>(field: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("the tag {OURS}{field} cannot be read: {text:?}"))
}

fn source(text: &str) -> Result<SourceId, String> {
    match text.parse::<SnapshotId>() {
        Ok(id) => Ok(SourceId::Snapshot(id)),
        Err(_) => parsed("source", text).map(SourceId::Volume),
    }
}

fn moment(text: &str) -> Result<Duration, String> {
    let (seconds, nanos) = text.split_once('.').ok_or_else(|| format!("the tag {OURS}created is {text:?}"))?;
    let (seconds, nanos): (u64, u32) = (parsed("created", seconds)?, parsed("created", nanos)?);
    if nanos > 999_999_999 {
        return Err(format!("the tag {OURS}created is {text:?}"));
    }
    Ok(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::{CapacityRange, CreateSnapshot, CreateVolume, InstanceId};
    use proptest::prelude::*;

    use super::*;

    fn volume(name: &str) -> Volume {
        let range = CapacityRange::new(1 << 20, 0).unwrap();
        let fingerprint = Fingerprint::of(&Default::default());
        CreateVolume::new(name, range, Vec::new(), Default::default(), fingerprint).volume(Bytes::new(1 << 20)).unwrap()
    }

    fn id(volume: &Volume) -> VolumeId {
        let instance = InstanceId::random().unwrap();
        VolumeId { instance, key: volume.key.clone(), generation: volume.generation.clone() }
    }

    const OWN: Own = Own { fs_type: FsType::Xfs, layout: Layout { stripes: 2, copies: 3 } };

    #[test]
    fn the_text_is_frozen() {
        let mut volume = Volume::new(VolumeKey::of_name("pvc-1"), "abc".parse().unwrap(), Bytes::new(4));
        (volume.name, volume.created) = ("Ä b".into(), 7);
        let fingerprint = volume.fingerprint.to_string();
        assert_eq!(
            of_volume(&volume, OWN).join(","),
            format!(
                "dunnage.volume=pvc-1,dunnage.form=1,dunnage.generation=abc,dunnage.name=!c3!84!20b,\
                 dunnage.fingerprint={fingerprint},dunnage.created=7,dunnage.fs_type=xfs,dunnage.layout=2x3"
            )
        );
    }

    proptest! {
        #[test]
        fn a_volume_comes_back_from_its_tags(name in "\\PC{0,128}", copied in 0..3) {
            let mut volume = volume(&name);
            volume.source = match copied {
                0 => None,
                1 => Some(SourceId::Volume(id(&volume))),
                _ => Some(SourceId::Snapshot(SnapshotId {
                    instance: InstanceId::random().unwrap(),
                    key: SnapshotKey::of_name(&name),
                    generation: volume.generation.clone(),
                })),
            };
            let tags = of_volume(&volume, OWN);
            for tag in &tags {
                let allowed = |c: char| c.is_ascii_alphanumeric() || "_+.-/=!:&#".contains(c);
                prop_assert!(tag.len() <= 1024 && tag.chars().all(allowed), "{}", tag);
            }
            prop_assert_eq!(read(&tags, 1 << 20), Some(Entry::Volume(volume, OWN)));
        }

        #[test]
        fn a_snapshot_comes_back_from_its_tags(name in "\\PC{0,128}") {
            let volume = volume("v");
            let fingerprint = Fingerprint::of(&Default::default());
            let request = CreateSnapshot::new(name, id(&volume), volume, Default::default(), fingerprint);
            let snapshot = request.snapshot().unwrap();
            let own = Own { layout: Layout::LINEAR, ..OWN };
            prop_assert_eq!(read(&of_snapshot(&snapshot, own), 1 << 20), Some(Entry::Snapshot(snapshot, own)));
        }
    }

    #[test]
    fn what_cannot_be_read_is_broken_and_never_somebody_elses() {
        let whole = of_volume(&volume("a"), OWN);
        assert_eq!(read(&["their.tag".into()], 4), None);
        for index in 0..whole.len() {
            let mut tags = whole.clone();
            let removed = tags.remove(index);
            let optional = removed.starts_with("dunnage.layout");
            let broken = matches!(read(&tags, 4), Some(Entry::Broken(_)));
            assert_eq!(broken, !optional, "without {removed}");
            tags.push(format!("{removed}!zz"));
            assert!(matches!(read(&tags, 4), Some(Entry::Broken(_))), "{removed}!zz");
        }
        let later: Vec<_> = whole.iter().map(|tag| tag.replace("form=1", "form=2")).collect();
        assert!(matches!(read(&later, 4), Some(Entry::Broken(error)) if error.contains("later release")));
        let twice = [whole.clone(), vec!["dunnage.name=b".into()]].concat();
        assert!(matches!(read(&twice, 4), Some(Entry::Broken(error)) if error.contains("more than one")));
    }

    #[test]
    fn what_is_unfinished_is_no_volume() {
        let mut tags = of_volume(&volume("a"), OWN);
        tags.push(UNFINISHED.into());
        assert_eq!(read(&tags, 4), Some(Entry::Unfinished));
    }
}
