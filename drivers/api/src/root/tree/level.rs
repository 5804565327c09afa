//! The way from the top of a tree to the folder that is being copied.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, FileType, OFlags, StatxFlags, Timestamps};

use super::{Failed, TreeCopy, to};
use crate::root::folder::Folder;

/// How many of the lowest folders are open: two files and a list of entries each.
const OPEN: usize = 32;
/// A deeper tree is refused: what is known of each folder on the way is in memory.
const DEEPEST: usize = 100_000;
/// How much of a path a message shows at its end.
const SHOWN: usize = 1024;

/// Which file it is, also where its number is given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: (u32, u32),
    inode: u64,
    /// When it was born, where the file system knows that.
    born: Option<(i64, u32)>,
}

impl Identity {
    pub(super) fn of(file: impl AsFd) -> io::Result<Self> {
        Self::by(file, OsStr::new(""), AtFlags::EMPTY_PATH)
    }

    /// The same of an entry that cannot be opened.
    pub(super) fn at(folder: &Folder, name: &OsStr) -> io::Result<Self> {
        Self::by(folder, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn by(file: impl AsFd, name: &OsStr, flags: AtFlags) -> io::Result<Self> {
        let stat = rustix::fs::statx(file, name, flags, StatxFlags::INO | StatxFlags::BTIME)?;
        let born = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        Ok(Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            born: born.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)),
        })
    }

    /// A name that no other file of the tree has. Where nothing else tells a file from the next of its number, the time does
    /// at which it was last written.
    pub(super) fn name(&self, written: &Timestamps) -> String {
        let Self { device: (major, minor), inode, born } = self;
        let written = &written.last_modification;
        let (seconds, nanoseconds) = born.unwrap_or((written.tv_sec, written.tv_nsec as u32));
        format!("{major}.{minor}.{inode}.{seconds}.{nanoseconds}")
    }
}

/// A folder that is entered: what it is known again by, and what is set when all in it is copied.
pub(super) struct Below {
    pub(super) source: Folder,
    pub(super) target: Folder,
    pub(super) mode: u32,
    pub(super) times: Timestamps,
}

/// A folder on the way.
struct Level {
    name: Box<OsStr>,
    identity: Identity,
    /// Where in the list of its entries it goes on.
    after: i64,
    mode: u32,
    times: Timestamps,
    /// Whether it was moved or removed before all of it was seen.
    is_lost: bool,
}

/// What is open of a folder on the way.
struct Open {
    /// Nothing where it is lost.
    source: Option<(Folder, Dir)>,
    target: Folder,
}

#[derive(Default)]
pub(super) struct Levels {
    levels: Vec<Level>,
    /// The lowest of them.
    open: VecDeque<Open>,
}

/// The folder whose entries are being copied.
pub(super) struct Here<'a> {
    pub(super) source: Option<&'a Folder>,
    pub(super) target: &'a Folder,
    pub(super) mode: u32,
    pub(super) times: &'a Timestamps,
}

impl Levels {
    /// The folder that is lowest, if there is one.
    pub(super) fn here(&self) -> Option<Here<'_>> {
        let (level, open) = (self.levels.last()?, self.open.back()?);
        let source = open.source.as_ref().map(|(source, _)| source);
        Some(Here { source, target: &open.target, mode: level.mode, times: &level.times })
    }

    /// Its next entry.
    pub(super) fn next(&mut self) -> Result<Option<(OsString, FileType)>, Failed> {
        let (Some(level), Some(open)) = (self.levels.last_mut(), self.open.back_mut()) else { return Ok(None) };
        let Some((_, entries)) = &mut open.source else { return Ok(None) };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                // It was removed meanwhile.
                Err(error) if super::entry::is_gone(error) => return Ok(None),
                Err(error) => return Err(to("list")(error)),
            };
            level.after = entry.offset();
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                return Ok(Some((OsString::from_vec(name.into()), entry.file_type())));
            }
        }
        Ok(None)
    }

    /// Goes down into a folder.
    pub(super) fn down(&mut self, name: OsString, below: Below) -> Result<(), Failed> {
        if self.levels.len() >= DEEPEST {
            let deep = io::Error::other(format!("it lies more than {DEEPEST} folders deep"));
            return Err(Failed { name: Some(name), ..to("copy")(deep) });
        }
        let Below { source, target, mode, times } = below;
        let identity = Identity::of(&source).map_err(to("look at"))?;
        let entries = Dir::read_from(&source).map_err(to("list"))?;
        self.levels.push(Level { name: name.into(), identity, after: 0, mode, times, is_lost: false });
        self.open.push_back(Open { source: Some((source, entries)), target });
        if self.open.len() > OPEN {
            self.open.pop_front();
        }
        Ok(())
    }

    /// Goes up from a folder that is done.
    pub(super) fn up(&mut self, copy: &TreeCopy<'_>) -> Result<(), Failed> {
        self.levels.pop();
        let (Some(child), Some(level)) = (self.open.pop_back(), self.levels.last()) else { return Ok(()) };
        if !self.open.is_empty() {
            return Ok(());
        }
        let target = child.target.parent().map_err(to("open the copy of"))?;
        let source =
            if level.is_lost { None } else { self.again(copy, child.source.as_ref().map(|(source, _)| source))? };
        self.open.push_back(Open { source, target });
        Ok(())
    }

    /// Opens the source of the lowest level again: from the one that was below it, or, where that was moved elsewhere in the
    /// meantime, from the top.
    fn again(&mut self, copy: &TreeCopy<'_>, child: Option<&Folder>) -> Result<Option<(Folder, Dir)>, Failed> {
        let above = child.and_then(|child| child.parent().ok());
        let source = match above.filter(|above| self.levels.last().is_some_and(|level| level.is(above))) {
            Some(source) => Some(source),
            None => self.down_again(copy)?,
        };
        let (Some(source), Some(level)) = (source, self.levels.last()) else { return Ok(None) };
        let mut entries = Dir::read_from(&source).map_err(to("list"))?;
        // Where it cannot go on it begins again: what is copied is found whole.
        if entries.seek(level.after).is_err() {
            entries.seek(0).map_err(to("list"))?;
        }
        Ok(Some((source, entries)))
    }

    /// Goes down again by the names of all levels. Those below the first that is not found are lost.
    fn down_again(&mut self, copy: &TreeCopy<'_>) -> Result<Option<Folder>, Failed> {
        let mut found = copy.source.reopen().map_err(to("open"))?;
        for depth in 1..self.levels.len() {
            let next = open_folder(&found, &self.levels[depth].name).ok();
            match next.filter(|next| self.levels[depth].is(next)) {
                Some(next) => found = next,
                None => {
                    self.levels[depth..].iter_mut().for_each(|level| level.is_lost = true);
                    return Ok(None);
                }
            }
        }
        Ok(Some(found))
    }

    /// The path of the lowest folder, for a message.
    pub(super) fn path(&self, source: &Folder, name: Option<&OsStr>) -> PathBuf {
        let mut names: Vec<&OsStr> = Vec::new();
        let mut length = 0;
        let mut left = self.levels.iter().skip(1).map(|level| &*level.name).chain(name).rev();
        for name in left.by_ref() {
            length += name.len() + 1;
            if length > SHOWN && !names.is_empty() {
                names.push(OsStr::new("..."));
                break;
            }
            names.push(name);
        }
        let mut path = source.path().to_owned();
        path.extend(names.into_iter().rev());
        path
    }
}

impl Level {
    fn is(&self, folder: &Folder) -> bool {
        Identity::of(folder).is_ok_and(|identity| identity == self.identity)
    }
}

/// Opens a folder without a trace in its times.
pub(super) fn open_folder(parent: &Folder, name: &OsStr) -> io::Result<Folder> {
    Ok(parent.seen_through(super::entry::open(parent, name, OFlags::DIRECTORY)?.into()))
}
