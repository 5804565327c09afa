//! What is written on disk, frozen for each release: this one reads what it and the one before wrote, writes what its
//! fixtures say, and refuses what a later one wrote. A fixture is never changed once its release is out (0.1 is not yet): a
//! new form gets a folder of its own, and the oldest one goes when it is two releases old.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod later;
mod read;
mod write;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dunnage_test_common::{Host, MIB, Need, Setup, can_run};
use serde_json::Value;

const DUNNAGE: &str = env!("CARGO_BIN_EXE_dunnage");
const FILES: &str = "files.csi.dunnage.dev";
const DISKS: &str = "disks.csi.dunnage.dev";
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/formats/0.1");
/// What stands in fixtures for the folder of a test.
const SCRATCH: &str = "/scratch";
/// The handle and the target of the ephemeral volume in the fixtures. The handle gives its mark its name.
const POD: (&str, &str) = ("csi-1", "/run/dunnage-formats/target");
const MARK: &str = "5i2kkihqteo73kbpydcwowohwq";

fn needs_root(test: &str) -> Result<bool> {
    can_run(test, &[Need::Root])
}

/// Both drivers, each with a root of its own.
fn setup() -> Result<Setup> {
    let rest = "quota: none\nephemeral: {max_size: 64Mi}";
    Setup::new()?.backend("files", "dir", rest)?.backend("disks", "image", "")
}

/// A fixture, with the folder of the test in it.
fn fixture(name: &str, scratch: &Path) -> Result<Value> {
    let text = fs::read_to_string(Path::new(FOLDER).join(name)).with_context(|| format!("no fixture {name}"))?;
    let text = text.replace(SCRATCH, scratch.to_str().context("not UTF-8")?);
    serde_json::from_str(&text).with_context(|| format!("fixture {name} is no JSON"))
}

/// The folder of this boot's records of what is mounted.
fn boot(host: &Host) -> Result<PathBuf> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(host.setup().scratch().path().join("state/node").join(format!("boot-{}", boot.trim())))
}

/// The id of a volume, as its record and its marker tell.
fn id(marker: &Value, record: &Value) -> String {
    let part = |value: &Value| value.as_str().expect("no text").to_owned();
    [&marker["instance"], &record["volume"]["key"], &record["volume"]["generation"]].map(part).join(".")
}

/// A store and a state as a host of this release left them, with a volume of each kind that is not mounted any more.
struct Left {
    host: Host,
    ids: BTreeMap<&'static str, String>,
}

impl Left {
    fn new() -> Result<Self> {
        let host = setup()?.prepare(DUNNAGE)?;
        let scratch = host.setup().scratch().path().to_owned();
        let read = |name: &str| fixture(name, &scratch);
        let (dir, image) = (read("dir/instance.json")?, read("image/instance.json")?);
        let mut left = Self { ids: BTreeMap::new(), host };
        left.put("roots/files/.dunnage/instance.json", &dir)?;
        left.put("roots/disks/.dunnage/instance.json", &image)?;
        for (backend, marker, folder, names) in [
            ("files", &dir, "dir", &["notes", "pod", "limited"][..]),
            ("disks", &image, "image", &["database", "raw", "half"]),
        ] {
            for name in names {
                let record = read(&format!("{folder}/{name}.json"))?;
                let key = record["volume"]["key"].as_str().context("no key")?;
                left.put(&format!("roots/{backend}/.dunnage/volumes/{key}"), &record)?;
                left.ids.insert(name, id(marker, &record));
                if backend == "files" {
                    left.host.setup().scratch().folder(&format!("roots/files/volumes/{key}"))?;
                } else {
                    let image = left.host.setup().scratch().folder("roots/disks/images")?.join(key);
                    fs::File::create(image)?.set_len((16 * MIB).cast_unsigned())?;
                }
            }
        }
        let node = boot(&left.host)?.strip_prefix(&scratch)?.display().to_string();
        for name in ["notes", "database", "raw"] {
            let record = read(&format!("node/{name}.json"))?;
            left.put(&format!("{node}/{}.json", left.ids[name]), &record)?;
        }
        left.put(&format!("state/node/{}.formatting", left.ids["half"]), &read("node/half.formatting.json")?)?;
        left.put("state/backends/disks.json", &read("node/disks.backend.json")?)?;
        left.put(&format!("state/ephemeral/{MARK}"), &read("node/pod.ephemeral.json")?)?;
        Ok(left)
    }

    /// Adds a snapshot of the volume `raw` of which 8 MiB are copied.
    fn add_copy(&self) -> Result<()> {
        let scratch = self.host.setup().scratch();
        self.put("roots/disks/.dunnage/snapshots/nightly", &fixture("image/nightly.snapshot.json", scratch.path())?)?;
        self.put("roots/disks/.dunnage/jobs/snapshot.nightly", &fixture("image/nightly.job.json", scratch.path())?)?;
        scratch.folder("roots/disks/snapshots")?;
        let copy = fs::File::create(scratch.folder("roots/disks/unfinished")?.join("snapshots.nightly"))?;
        std::os::unix::fs::FileExt::write_all_at(&copy, b"done", 0)?;
        Ok(copy.set_len(8 << 20)?)
    }

    fn put(&self, path: &str, value: &Value) -> Result<()> {
        let path = self.path(path);
        fs::create_dir_all(path.parent().context("no folder")?)?;
        fs::write(&path, serde_json::to_vec(value)?).with_context(|| format!("cannot write {}", path.display()))
    }

    fn path(&self, path: &str) -> PathBuf {
        self.host.setup().scratch().path().join(path)
    }
}
