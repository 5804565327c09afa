//! The volumes that were deleted and whose files stay in their places: `<export>/retained/<key>.<generation>`.
//!
//! Such a file is what keeps the place from being taken by a new volume. Where the place is empty it means nothing: an admin
//! has taken the files away.

use std::collections::BTreeSet;

use dunnage_driver_api::root::Folder;
use dunnage_driver_api::{Error, Result, Volume};
use serde::{Deserialize, Serialize};

use crate::paths::VolumePath;

/// The folder of those files.
pub(crate) const RETAINED: &str = "retained";
const VERSION: u32 = 1;
const LARGEST: u64 = 16 << 10;
/// How the name of a file ends that is being written.
const NEW: &str = ".new";

#[derive(Serialize, Deserialize)]
struct Retained {
    version: u32,
    path: VolumePath,
}

/// Notes, durably, that the files of a volume stay at `path`.
pub(crate) fn note(folder: &Folder, volume: &Volume, path: &VolumePath) -> Result<()> {
    let name = format!("{}.{}", volume.key, volume.generation);
    let text = serde_json::to_vec(&Retained { version: VERSION, path: path.clone() })
        .map_err(|error| Error::internal("cannot write what is retained as JSON").caused_by(error))?;
    let new = format!("{name}{NEW}");
    let written = folder.write(&new, &text).and_then(|()| folder.rename(&new, folder, &name));
    written.and_then(|()| folder.sync()).map_err(folder.failed("write", &name))
}

/// The places in `data` that are taken so. Notes of places that are empty are removed.
pub(crate) fn places(folder: &Folder, data: &Folder) -> Result<BTreeSet<VolumePath>> {
    let mut places = BTreeSet::new();
    let mut text = Vec::new();
    for entry in folder.entries().map_err(folder.failed("list", ""))? {
        let (name, _) = entry.map_err(folder.failed("list", ""))?;
        if name.as_encoded_bytes().ends_with(NEW.as_bytes()) {
            continue;
        }
        folder.read(&name, &mut text, LARGEST).map_err(folder.failed("read", &name))?;
        let retained: Retained = serde_json::from_slice(&text).map_err(|error| {
            let place = folder.path().join(&name);
            Error::precondition(format!(
                "{} does not say what is retained: remove it, where nothing is to be kept from new volumes",
                place.display()
            ))
            .caused_by(error)
        })?;
        if retained.path.exists(data)? {
            places.insert(retained.path);
        } else {
            folder.unlink(&name).map_err(folder.failed("remove", &name))?;
        }
    }
    Ok(places)
}
