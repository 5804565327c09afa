//! Volumes that were made under `quota: none` and keep no size under `quota: project`: a folder with files in it becomes no
//! project by itself.

use std::path::{Path, PathBuf};

use dunnage_driver_api::root::Root;
use dunnage_driver_api::{Error, Finding, Result};

use crate::store::Extra;

const REMEDY: &str = "copy the files of each into a new volume; until then it can fill the disk, and to expand it changes \
                      only the size that is told";

/// What `check` says of them, where there are any. Where the records cannot be read another finding tells.
pub(crate) fn check(root: &Path) -> Option<Finding> {
    found(root).map(|text| Finding::warning(text, REMEDY))
}

/// Logs how many there are, from a thread of its own: to read every record may take longer than to open the root.
///
/// # Errors
/// Where the system gives no thread.
pub(crate) fn warn(root: PathBuf) -> Result<()> {
    let look = move || {
        if let Some(text) = found(&root) {
            tracing::warn!("{text}: {REMEDY}");
        }
    };
    let thread = std::thread::Builder::new().name("unlimited".into()).spawn(look);
    thread.map(drop).map_err(|error| Error::io("cannot start the thread that looks for volumes without a quota", error))
}

fn found(root: &Path) -> Option<String> {
    let mut count = 0_u64;
    Root::read_records(root, |record| {
        let extra: Extra = record.extra;
        count += u64::from(extra.project.is_none());
    })
    .ok()?;
    let words = if count == 1 { "volume has" } else { "volumes have" };
    (count > 0).then(|| format!("{count} {words} no quota in root {}, since there was none when made", root.display()))
}
