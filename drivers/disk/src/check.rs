//! What `check` says of a node, its disks and a root.

use std::collections::BTreeMap;

use dunnage_driver_api::root::{Folder, Root};
use dunnage_driver_api::{Bytes, Finding, FsType};
use serde::Deserialize;

use crate::config::Disk;
use crate::kernel::{DiskId, Kernel};
use crate::rules::{self, Named};
use crate::store::WIPING;
use crate::wiping::Wipings;

/// Looks at everything this configuration needs, and changes nothing.
pub(crate) fn check(config: &Disk, driver: &str) -> Vec<Finding> {
    let mut findings = Root::check(&config.root, driver);
    findings.push(mkfs(config.fs_type));
    let kernel = Kernel::of_node();
    let named = match rules::named(config, &kernel) {
        Ok(named) => named,
        Err(error) => {
            findings
                .push(Finding::error(error.report(), "run this as root, in a container with the node's /dev and /sys"));
            return findings;
        }
    };
    if named.is_empty() {
        let text = format!("no device of this node is named by {}", config.devices.join(", "));
        findings.push(Finding::warning(text, "see to the key `devices`; a container needs the node's /dev"));
    }
    let (volumes, wiping) = (volumes(config), wiping(config));
    findings.extend(named.iter().map(|named| one(named, &kernel, &volumes, &wiping)));
    findings
}

fn mkfs(fs_type: FsType) -> Finding {
    let tool = fs_type.mkfs();
    match tool.find() {
        Some(path) => Finding::ok(format!("new volumes are formatted by {}", path.display())),
        None => Finding::error(
            format!("{} is not installed", tool.program),
            format!("install the package {}", tool.package),
        ),
    }
}

fn one(named: &Named, kernel: &Kernel, volumes: &BTreeMap<DiskId, String>, wiping: &[DiskId]) -> Finding {
    let path = kernel.path(&named.device);
    let shown = format!("{} ({})", path.display(), Bytes::new(named.device.size));
    let disk = match &named.fit {
        Ok(disk) => disk,
        Err(why) => return Finding::ok(format!("{shown} is left alone: {why}")),
    };
    let finding = if let Some(volume) = volumes.get(disk) {
        Finding::ok(format!("{shown} is the volume {volume}"))
    } else if wiping.contains(disk) {
        Finding::ok(format!("{shown} is to be wiped, and is free then"))
    } else {
        match rules::refuse_used(kernel, &named.device, |_| false) {
            Ok(()) => Finding::ok(format!("{shown} is free, and is known by {disk}")),
            Err(why) => Finding::ok(format!("{shown} is left alone: {why}")),
        }
    };
    let clash = Finding::error(
        format!("the disk {} is named by more than one backend", path.display()),
        "give each backend disks of its own by the keys `devices`, `size` and `rotational`",
    );
    finding.claiming(format!("disk {disk}"), clash)
}

/// The disks of volumes, by the records as they lie there: the root may be served at this moment.
fn volumes(config: &Disk) -> BTreeMap<DiskId, String> {
    #[derive(Deserialize)]
    struct Stored {
        extra: Extra,
    }
    #[derive(Deserialize)]
    struct Extra {
        disk: DiskId,
    }
    let mut found = BTreeMap::new();
    let folder = config.root.join(".dunnage/volumes");
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let stored = std::fs::read(entry.path()).ok().and_then(|text| serde_json::from_slice::<Stored>(&text).ok());
        if let Some(stored) = stored {
            found.insert(stored.extra.disk, entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

fn wiping(config: &Disk) -> Vec<DiskId> {
    Folder::at(&config.root)
        .and_then(|root| root.folder(WIPING))
        .ok()
        .and_then(|folder| Wipings::read(&folder).ok())
        .unwrap_or_default()
        .into_keys()
        .collect()
}
