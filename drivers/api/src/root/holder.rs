//! Who serves a root that several machines can reach: `<root>/.dunnage/holder.json`.
//!
//! The lock on the marker keeps all but one out. But a lock over a network can be lost: a machine that was cut off for long
//! enough finds that another one took it, and may have given it back. So whoever takes the lock writes here who it is, with
//! a word that nobody has twice, and before each change reads whether that is still so.

use std::io;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::{Lock, Root, nonce};
use crate::error::{Error, Result};
use crate::name::NodeName;

const NAME: &str = "holder.json";
const NEW: &str = "holder.json.new";
const VERSION: u32 = 1;
const LARGEST: u64 = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    version: u32,
    node: NodeName,
    word: String,
}

/// That this process has a root which several machines can reach.
pub struct Tenure {
    meta: Folder,
    lock: Lock,
    holder: Holder,
}

impl Root {
    /// Writes that the process on `node` serves this root, once for each opened root.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn hold(&self, node: &NodeName) -> Result<Tenure> {
        let holder = Holder { version: VERSION, node: node.clone(), word: nonce()? };
        let text = serde_json::to_vec(&holder)
            .map_err(|error| Error::internal("cannot write the holder of a root as JSON").caused_by(error))?;
        let written = self.meta.write(NEW, &text).and_then(|()| self.meta.rename(NEW, &self.meta, NAME));
        written.and_then(|()| self.meta.sync()).map_err(self.meta.failed("write", NAME))?;
        let meta = self.folder.folder(super::META).map_err(self.folder.failed("open", super::META))?;
        Ok(Tenure { meta, lock: self.lock.clone(), holder })
    }
}

impl Tenure {
    /// Whether this process still has the root, and nobody had it meanwhile: to be asked before each change. `false` means
    /// that what was read of the root before is worth nothing: it must be opened anew.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub fn is_ours(&self) -> Result<bool> {
        match rustix::fs::flock(&*self.lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(self.meta.failed("lock", "")(error.into())),
        }
        Ok(holder(&self.meta)?.is_some_and(|holder| holder == self.holder))
    }
}

/// The node that a root says it is served by.
pub(super) fn node(meta: &Folder) -> Option<NodeName> {
    Some(holder(meta).ok()??.node)
}

fn holder(meta: &Folder) -> Result<Option<Holder>> {
    let mut text = Vec::new();
    match meta.read(NAME, &mut text, LARGEST) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(meta.failed("read", NAME))?,
    }
    // One of a later release is somebody else.
    Ok(serde_json::from_slice(&text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_ours_until_somebody_else_has_held_it() {
        let temp = tempfile::tempdir().unwrap();
        Root::init(temp.path(), "nfs").unwrap();
        let (one, other) = ("node-1".parse().unwrap(), "node-2".parse().unwrap());
        let root = Root::open(temp.path(), "nfs").unwrap();
        let held = root.hold(&one).unwrap();
        assert!(held.is_ours().unwrap());
        let refused = Root::open(temp.path(), "nfs").err().unwrap().to_string();
        assert!(refused.contains("by node node-1"), "{refused}");
        // As a server does with the lock of a machine that it has not heard of for long.
        rustix::fs::flock(&*root.lock, FlockOperation::Unlock).unwrap();
        let taken = Root::open(temp.path(), "nfs").unwrap();
        let newer = taken.hold(&other).unwrap();
        assert!(!held.is_ours().unwrap() && newer.is_ours().unwrap());
        drop((taken, newer));
        assert!(!held.is_ours().unwrap(), "the lock is free again, and what this process knows is old");
    }
}
