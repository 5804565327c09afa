//! Files and folders in memory. An id is a place in the list of all that were ever made; the root is 1.

use std::collections::BTreeMap;

use rustix::io::Errno;

/// The kind of a folder in `st_mode`.
pub(super) const FOLDER: u32 = 0o040_000;
const KIND: u32 = 0o170_000;

pub(super) struct Tree(Vec<Node>);

pub(super) struct Node {
    pub(super) mode: u32,
    pub(super) links: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    content: Content,
}

enum Content {
    File(Vec<u8>),
    Folder(BTreeMap<Vec<u8>, u64>),
}

impl Default for Tree {
    fn default() -> Self {
        Self(vec![Node::new(FOLDER | 0o755, (0, 0))])
    }
}

impl Node {
    fn new(mode: u32, (uid, gid): (u32, u32)) -> Self {
        let is_folder = mode & KIND == FOLDER;
        let content = if is_folder { Content::Folder(BTreeMap::new()) } else { Content::File(Vec::new()) };
        Self { mode, links: if is_folder { 2 } else { 1 }, uid, gid, content }
    }

    pub(super) fn size(&self) -> u64 {
        match &self.content {
            Content::File(bytes) => bytes.len() as u64,
            Content::Folder(_) => 0,
        }
    }
}

impl Tree {
    pub(super) fn node(&self, id: u64) -> Result<&Node, Errno> {
        self.0.get((id as usize).wrapping_sub(1)).ok_or(Errno::NOENT)
    }

    fn node_mut(&mut self, id: u64) -> Result<&mut Node, Errno> {
        self.0.get_mut((id as usize).wrapping_sub(1)).ok_or(Errno::NOENT)
    }

    pub(super) fn entries(&self, id: u64) -> Result<&BTreeMap<Vec<u8>, u64>, Errno> {
        match &self.node(id)?.content {
            Content::Folder(entries) => Ok(entries),
            Content::File(_) => Err(Errno::NOTDIR),
        }
    }

    fn entries_mut(&mut self, id: u64) -> Result<&mut BTreeMap<Vec<u8>, u64>, Errno> {
        match &mut self.node_mut(id)?.content {
            Content::Folder(entries) => Ok(entries),
            Content::File(_) => Err(Errno::NOTDIR),
        }
    }

    fn file_mut(&mut self, id: u64) -> Result<&mut Vec<u8>, Errno> {
        match &mut self.node_mut(id)?.content {
            Content::File(bytes) => Ok(bytes),
            Content::Folder(_) => Err(Errno::ISDIR),
        }
    }

    pub(super) fn lookup(&self, folder: u64, name: &[u8]) -> Result<u64, Errno> {
        self.entries(folder)?.get(name).copied().ok_or(Errno::NOENT)
    }

    pub(super) fn make(&mut self, folder: u64, name: &[u8], mode: u32, owner: (u32, u32)) -> Result<u64, Errno> {
        let id = self.0.len() as u64 + 1;
        self.add(folder, name, id)?;
        self.0.push(Node::new(mode, owner));
        Ok(id)
    }

    pub(super) fn link(&mut self, id: u64, folder: u64, name: &[u8]) -> Result<(), Errno> {
        self.add(folder, name, id)?;
        self.node_mut(id)?.links += 1;
        Ok(())
    }

    fn add(&mut self, folder: u64, name: &[u8], id: u64) -> Result<(), Errno> {
        match self.lookup(folder, name) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => {
                self.entries_mut(folder)?.insert(name.into(), id).map_or(Ok(()), |_| Err(Errno::EXIST))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn remove(&mut self, folder: u64, name: &[u8]) -> Result<(), Errno> {
        let id = self.lookup(folder, name)?;
        if self.entries(id).is_ok_and(|entries| !entries.is_empty()) {
            return Err(Errno::NOTEMPTY);
        }
        self.entries_mut(folder)?.remove(name);
        self.node_mut(id)?.links -= 1;
        Ok(())
    }

    pub(super) fn rename(&mut self, from: u64, name: &[u8], to: u64, new_name: &[u8]) -> Result<(), Errno> {
        let id = self.lookup(from, name)?;
        if self.lookup(to, new_name).is_ok() {
            self.remove(to, new_name)?;
        }
        self.add(to, new_name, id)?;
        self.entries_mut(from)?.remove(name);
        Ok(())
    }

    pub(super) fn change(
        &mut self,
        id: u64,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
    ) -> Result<(), Errno> {
        if let Some(size) = size {
            self.file_mut(id)?.resize(size as usize, 0);
        }
        let node = self.node_mut(id)?;
        node.mode = mode.map_or(node.mode, |mode| node.mode & KIND | mode & !KIND);
        node.uid = uid.unwrap_or(node.uid);
        node.gid = gid.unwrap_or(node.gid);
        Ok(())
    }

    pub(super) fn read(&mut self, id: u64, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let bytes = self.file_mut(id)?;
        let start = bytes.len().min(offset as usize);
        let end = bytes.len().min(start + size as usize);
        Ok(bytes[start..end].into())
    }

    /// The next byte from `offset` on that is in a block with data in it, or, for `SEEK_HOLE`, in one of zeros alone or
    /// behind the end.
    pub(super) fn seek(&mut self, id: u64, offset: u64, whence: u32) -> Result<u64, Errno> {
        const SEEK_DATA: u32 = 3;
        const BLOCK: usize = 4096;
        let bytes = self.file_mut(id)?;
        let start = offset as usize;
        if start >= bytes.len() {
            return Err(Errno::NXIO);
        }
        let first = start / BLOCK * BLOCK;
        let found =
            bytes[first..].chunks(BLOCK).position(|block| block.iter().any(|byte| *byte != 0) == (whence == SEEK_DATA));
        match found {
            Some(blocks) => Ok((first + blocks * BLOCK).max(start) as u64),
            None if whence == SEEK_DATA => Err(Errno::NXIO),
            None => Ok(bytes.len() as u64),
        }
    }

    pub(super) fn write(&mut self, id: u64, offset: u64, new: &[u8]) -> Result<(), Errno> {
        let (bytes, start) = (self.file_mut(id)?, offset as usize);
        let end = start + new.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(new);
        Ok(())
    }
}
