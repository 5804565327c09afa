//! A sync that failed is not forgotten: what it was for can be seen, and a power cut may take it away again.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::folder::Folder;

/// The syncs of one folder.
#[derive(Default)]
pub(super) struct Syncs {
    /// How many failed.
    failed: AtomicU64,
    /// How many of those a later one made up for.
    settled: AtomicU64,
}

impl Syncs {
    /// Makes the names in the folder durable.
    pub(super) fn sync(&self, folder: &Folder) -> io::Result<()> {
        folder.sync().inspect_err(|_| self.doubt())
    }

    /// Names in the folder may have changed and were not made durable.
    pub(super) fn doubt(&self) {
        self.failed.fetch_add(1, Ordering::SeqCst);
    }

    /// Makes up for what failed before, so that what is seen is durable.
    pub(super) fn settle(&self, folder: &Folder) -> io::Result<()> {
        let failed = self.failed.load(Ordering::SeqCst);
        if self.settled.load(Ordering::SeqCst) < failed {
            folder.sync()?;
            // Only those from before this sync: one that failed meanwhile is for something newer.
            self.settled.fetch_max(failed, Ordering::SeqCst);
        }
        Ok(())
    }
}
