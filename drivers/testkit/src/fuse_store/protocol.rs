//! The kernel's side of FUSE (linux/fuse.h): requests as bytes, and what they ask of the tree.

use rustix::io::Errno;

use super::tree::{self, Node, Tree};
use crate::faults::Effect;

pub(super) const INIT: u32 = 26;
pub(super) const STATFS: u32 = 17;
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const MKNOD: u32 = 8;
const MKDIR: u32 = 9;
const UNLINK: u32 = 10;
const RMDIR: u32 = 11;
const RENAME: u32 = 12;
const LINK: u32 = 13;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const FSYNCDIR: u32 = 30;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const RENAME2: u32 = 45;
const LSEEK: u32 = 46;

/// `struct fuse_in_header`.
const HEADER: usize = 40;
/// What is asked for as `max_write`.
const MAX_WRITE: u32 = 128 << 10;
/// Room for the greatest request.
pub(super) const BUFFER: usize = MAX_WRITE as usize + 4096;
const BLOCK: u32 = 4096;
/// 4 GiB.
const BLOCKS: u64 = 1 << 20;

/// A request as the kernel wrote it.
pub(super) struct Request(Vec<u8>);

/// Bytes in the order of the machine.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    /// `struct fuse_attr`, without times.
    fn attributes(self, id: u64, node: &Node) -> Self {
        let size = node.size();
        let sizes = self.u64(id).u64(size).u64(size.div_ceil(512)).zeros(36);
        sizes.u32(node.mode).u32(node.links).u32(node.uid).u32(node.gid).u32(0).u32(BLOCK).u32(0)
    }
}

impl Request {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub(super) fn opcode(&self) -> u32 {
        self.header(4)
    }

    pub(super) fn is_folder_sync(&self) -> bool {
        self.opcode() == FSYNCDIR
    }

    /// The system call that it is of, and what it does; `None` where it is of none that could tell an error.
    pub(super) fn effect(&self) -> Option<(&'static str, Effect)> {
        Some(match self.opcode() {
            LOOKUP => ("lookup", Effect::Reads),
            GETATTR => ("stat", Effect::Reads),
            OPEN | OPENDIR => ("open", Effect::Reads),
            READ => ("read", Effect::Reads),
            READDIR => ("readdir", Effect::Reads),
            LSEEK => ("lseek", Effect::Reads),
            STATFS => ("statfs", Effect::Reads),
            SETATTR => ("chmod, chown or truncate", Effect::Changes),
            MKNOD => ("creat", Effect::TakesRoom),
            MKDIR => ("mkdir", Effect::TakesRoom),
            UNLINK => ("unlink", Effect::Changes),
            RMDIR => ("rmdir", Effect::Changes),
            RENAME | RENAME2 => ("rename", Effect::TakesRoom),
            LINK => ("link", Effect::TakesRoom),
            WRITE => ("write", Effect::TakesRoom),
            FSYNC => ("fsync", Effect::TakesRoom),
            FSYNCDIR => ("fsync of a folder", Effect::TakesRoom),
            _ => return None,
        })
    }

    pub(super) fn wants_an_answer(&self) -> bool {
        !matches!(self.opcode(), FORGET | BATCH_FORGET | INTERRUPT)
    }

    /// Whether it reads a byte of this file at `from` or behind it.
    pub(super) fn reads(&self, inode: u64, from: u64) -> bool {
        self.opcode() == READ && self.header_u64(16) == inode && self.u64(8) + u64::from(self.u32(16)) > from
    }

    /// The answer with its header; `None` where none is wanted.
    pub(super) fn reply(&self, answer: Result<Vec<u8>, Errno>) -> Option<Vec<u8>> {
        if !self.wants_an_answer() {
            return None;
        }
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => (-error.raw_os_error(), Vec::new()),
        };
        let header = Bytes::default().u32(16 + body.len() as u32).u32(error.cast_unsigned()).u64(self.header_u64(8));
        Some([header.0, body].concat())
    }

    /// Does what is asked.
    pub(super) fn run(&self, tree: &mut Tree) -> Result<Vec<u8>, Errno> {
        let (id, owner) = (self.header_u64(16), (self.header(24), self.header(28)));
        match self.opcode() {
            INIT => Ok(self.init()),
            LOOKUP => entry(tree, tree.lookup(id, self.name(0))?),
            GETATTR => attributes(tree, id),
            SETATTR => {
                let valid = self.u32(0);
                let if_set = |bit: u32, at: usize| (valid & bit != 0).then(|| self.u32(at));
                let size = (valid & 8 != 0).then(|| self.u64(16));
                tree.change(id, if_set(1, 68), if_set(2, 76), if_set(4, 80), size)?;
                attributes(tree, id)
            }
            MKNOD => {
                let made = tree.make(id, self.name(16), self.u32(0), owner)?;
                entry(tree, made)
            }
            MKDIR => {
                let made = tree.make(id, self.name(8), self.u32(0) & 0o7777 | tree::FOLDER, owner)?;
                entry(tree, made)
            }
            UNLINK | RMDIR => tree.remove(id, self.name(0)).map(|()| Vec::new()),
            RENAME => self.rename(tree, id, 8),
            RENAME2 if self.u32(8) == 0 => self.rename(tree, id, 16),
            LINK => {
                tree.link(self.u64(0), id, self.name(8))?;
                entry(tree, self.u64(0))
            }
            READ => tree.read(id, self.u64(8), self.u32(16)),
            LSEEK => tree.seek(id, self.u64(8), self.u32(16)).map(|offset| Bytes::default().u64(offset).0),
            WRITE => {
                let bytes = self.body().get(40..).unwrap_or_default();
                tree.write(id, self.u64(8), bytes)?;
                Ok(Bytes::default().u32(bytes.len() as u32).u32(0).0)
            }
            READDIR => entries(tree, id, self.u64(8), self.u32(16) as usize),
            STATFS => {
                let sizes = Bytes::default().u64(BLOCKS).u64(BLOCKS).u64(BLOCKS).u64(BLOCKS).u64(BLOCKS);
                Ok(sizes.u32(BLOCK).u32(255).u32(BLOCK).zeros(28).0)
            }
            // A handle of 0, without flags.
            OPEN | OPENDIR => Ok(vec![0; 16]),
            RELEASE | RELEASEDIR | FSYNC | FSYNCDIR | FLUSH => Ok(Vec::new()),
            _ => Err(Errno::NOSYS),
        }
    }

    fn rename(&self, tree: &mut Tree, id: u64, names: usize) -> Result<Vec<u8>, Errno> {
        let name = self.name(names);
        tree.rename(id, name, self.u64(0), self.name(names + name.len() + 1)).map(|()| Vec::new())
    }

    /// The kernel's own version of the protocol, and no features.
    fn init(&self) -> Vec<u8> {
        let version = Bytes::default().u32(self.u32(0)).u32(self.u32(4));
        version.zeros(12).u32(MAX_WRITE).zeros(40).0
    }

    fn body(&self) -> &[u8] {
        self.0.get(HEADER..).unwrap_or_default()
    }

    fn header(&self, at: usize) -> u32 {
        self.0.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes).unwrap_or_default()
    }

    fn header_u64(&self, at: usize) -> u64 {
        self.0.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes).unwrap_or_default()
    }

    fn u32(&self, at: usize) -> u32 {
        self.header(HEADER + at)
    }

    fn u64(&self, at: usize) -> u64 {
        self.header_u64(HEADER + at)
    }

    /// The name that ends with the next NUL.
    fn name(&self, at: usize) -> &[u8] {
        self.body().get(at..).and_then(|rest| rest.split(|byte| *byte == 0).next()).unwrap_or_default()
    }
}

/// `struct fuse_entry_out`, good for no time: everything is asked for again.
fn entry(tree: &Tree, id: u64) -> Result<Vec<u8>, Errno> {
    Ok(Bytes::default().u64(id).u64(0).u64(0).u64(0).u64(0).attributes(id, tree.node(id)?).0)
}

/// `struct fuse_attr_out`.
fn attributes(tree: &Tree, id: u64) -> Result<Vec<u8>, Errno> {
    Ok(Bytes::default().u64(0).u64(0).attributes(id, tree.node(id)?).0)
}

/// As many `struct fuse_dirent` as fit, from the one after `offset`.
fn entries(tree: &Tree, id: u64, offset: u64, size: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = Bytes::default();
    for (offset, (name, id)) in (1..).zip(tree.entries(id)?).skip(offset as usize) {
        if bytes.0.len() + 24 + name.len().next_multiple_of(8) > size {
            break;
        }
        let kind = tree.node(*id)?.mode >> 12;
        bytes = bytes.u64(*id).u64(offset).u32(name.len() as u32).u32(kind);
        bytes.0.extend(name);
        bytes = bytes.zeros(name.len().next_multiple_of(8) - name.len());
    }
    Ok(bytes.0)
}
