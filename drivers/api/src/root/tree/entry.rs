//! Copying one entry, whatever it is and whatever becomes of it meanwhile.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, AtFlags, FileType, Mode, OFlags, Stat, StatxFlags};
use rustix::io::Errno;

use super::attributes::{At, times_of};
use super::level::{Below, Here, Identity, open_folder};
use super::{Copier, Failed, Pair, to};
use crate::root::folder::Folder;

/// How often an entry may change its kind while it is being looked at.
const CHANGES: usize = 100;
/// How long a file may be leased once it was asked for: the kernel gives its holder 45 seconds.
const LEASED: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// The mode of what is not whole: nobody's but root's, and none that a whole file has by any likelihood.
pub(super) const UNFINISHED: u32 = 0o1000;

/// Why an entry was not copied.
pub(super) enum Trouble {
    /// It is not there any more.
    Gone,
    /// It is not what it was when it was looked at.
    Changed,
    /// Somebody holds a lease of it, and was asked to let it go.
    Leased(Failed),
    Failed(Failed),
}

impl From<Failed> for Trouble {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// Says what could not be done to the source, which others may change at any time.
fn seen<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Trouble {
    move |error| {
        let error = error.into();
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::STALE) => Trouble::Gone,
            Some(Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => Trouble::Changed,
            Some(Errno::AGAIN) => Trouble::Leased(to(what)(error)),
            Some(Errno::XDEV) => {
                let mounted =
                    io::Error::other("something is mounted there, which is no part of the volume: unmount it");
                Trouble::Failed(to(what)(mounted))
            }
            _ => Trouble::Failed(to(what)(error)),
        }
    }
}

/// Forgets what this machine has kept of a file on another one. Each mount keeps its own: what was written through another
/// mount of the same machine is not told to this one, where the server has lent the machine the file to read.
fn ask_anew(file: &File) -> rustix::io::Result<()> {
    rustix::fs::statx(file, "", AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS)?;
    rustix::fs::fadvise(file, 0, None, Advice::DontNeed)
}

pub(super) fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::STALE)
}

/// Opens an entry to read it, without a trace in its times where this process may do so, and without waiting for anybody.
pub(super) fn open(folder: &Folder, name: &OsStr, kind: OFlags) -> io::Result<File> {
    let flags = kind | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match folder.open(name, flags | OFlags::NOATIME, 0) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::PERM) => folder.open(name, flags, 0),
        opened => opened,
    }
}

impl Copier<'_> {
    /// Copies an entry; a folder is made and to be gone into.
    pub(super) fn entry(&mut self, pair: &Pair<'_>, listed: FileType) -> Result<Option<Below>, Failed> {
        let (mut kind, mut changes, mut late) = (listed, 0, None);
        loop {
            let done = match kind {
                FileType::RegularFile => self.file(pair).map(|()| None),
                FileType::Directory => self.folder(pair).map(Some),
                FileType::Unknown => Err(Trouble::Changed),
                _ => self.special(pair, kind).map(|()| None),
            };
            match done {
                Ok(Some(below)) => return Ok(Some(below)),
                Ok(None) => {
                    self.copied.files += 1;
                    return Ok(None);
                }
                Err(Trouble::Gone) => return Ok(None),
                Err(Trouble::Failed(failed)) => return Err(failed),
                Err(Trouble::Leased(failed)) => {
                    if Instant::now() >= *late.get_or_insert_with(|| Instant::now() + LEASED) {
                        return Err(failed);
                    }
                    self.between_steps()?;
                    std::thread::sleep(LOOK);
                }
                Err(Trouble::Changed) if changes == CHANGES => {
                    return Err(to("copy")(io::Error::other("it changes its kind again and again")));
                }
                Err(Trouble::Changed) => {
                    changes += 1;
                    match pair.source.stat(pair.name) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                        stat => kind = FileType::from_raw_mode(stat.map_err(to("look at"))?.st_mode),
                    }
                }
            }
        }
    }

    fn file(&mut self, pair: &Pair<'_>) -> Result<(), Trouble> {
        let source = open(pair.source, pair.name, OFlags::empty()).map_err(seen("open"))?;
        if self.over_network {
            ask_anew(&source).map_err(seen("look at"))?;
        }
        let stat = rustix::fs::fstat(&source).map_err(seen("look at"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Trouble::Changed);
        }
        if stat.st_nlink < 2 {
            return self.whole_file(pair, &source, &stat);
        }
        let known = Identity::of(&source).map_err(seen("look at"))?.name(&times_of(&stat));
        if !self.link_known(&known, pair)? {
            self.whole_file(pair, &source, &stat)?;
            self.make_known(&known, pair)?;
        }
        Ok(())
    }

    /// Copies a file with its data.
    fn whole_file(&mut self, pair: &Pair<'_>, source: &File, stat: &Stat) -> Result<(), Trouble> {
        let make = |target: &Folder| {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            target.open(pair.name, flags, UNFINISHED)
        };
        let Some(copy) = self.make(pair, stat, make)? else {
            self.copied.bytes += stat.st_size.cast_unsigned().min(stat.st_blocks.cast_unsigned().saturating_mul(512));
            return Ok(());
        };
        match self.fill(source, copy, stat) {
            // A server has forgotten the file, since somebody removed it: so it is where this is not of the copy.
            Err(failed) if Errno::from_io_error(&failed.error) == Some(Errno::STALE) => {
                self.put_aside(pair)?;
                Err(Trouble::Gone)
            }
            filled => Ok(filled?),
        }
    }

    fn fill(&mut self, source: &File, copy: File, stat: &Stat) -> Result<(), Failed> {
        self.flags(source, &copy)?;
        self.data(source, &copy, stat.st_size.cast_unsigned())?;
        self.attributes(At::File(source), At::File(&copy), stat)?;
        self.finish_later(copy, stat)
    }

    /// Copies what has no data: a symlink, a pipe, a socket, a device.
    fn special(&mut self, pair: &Pair<'_>, kind: FileType) -> Result<(), Trouble> {
        let Pair { source, target, name } = *pair;
        let stat = source.stat(name).map_err(seen("look at"))?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            return Err(Trouble::Changed);
        }
        let written = times_of(&stat);
        let link = match kind {
            FileType::Symlink => match rustix::fs::readlinkat(source, name, Vec::new()) {
                Err(Errno::INVAL) => return Err(Trouble::Changed),
                read => Some(read.map_err(seen("read"))?),
            },
            _ => None,
        };
        let known = (stat.st_nlink > 1)
            .then(|| Identity::at(source, name).map(|identity| identity.name(&written)))
            .transpose()
            .map_err(seen("look at"))?;
        if let Some(known) = &known
            && self.link_known(known, pair)?
        {
            return Ok(());
        }
        let make = |target: &Folder| {
            match &link {
                Some(link) => rustix::fs::symlinkat(link.as_c_str(), target, name)?,
                None => rustix::fs::mknodat(target, name, kind, Mode::from_raw_mode(UNFINISHED), stat.st_rdev)?,
            }
            Ok(())
        };
        if self.make(pair, &stat, make)?.is_some() {
            let (from, copy) = (At::Entry(source, name), At::Entry(target, name));
            self.attributes(from, copy, &stat)?;
            self.finish(copy, stat.st_mode, &written)?;
        }
        known.map_or(Ok(()), |known| self.make_known(&known, pair)).map_err(Trouble::Failed)
    }

    fn folder(&mut self, pair: &Pair<'_>) -> Result<Below, Trouble> {
        let source = open_folder(pair.source, pair.name).map_err(seen("open"))?;
        let target = match make_folder(pair) {
            // What an attempt before this one saw there was no folder.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOTDIR | Errno::LOOP)) => {
                self.put_aside(pair)?;
                make_folder(pair)
            }
            made => made,
        };
        Ok(self.enter(source, target.map_err(to("make the copy of"))?)?)
    }

    /// Gets a folder and its copy ready for what is in them.
    pub(super) fn enter(&mut self, source: Folder, target: Folder) -> Result<Below, Failed> {
        let stat = rustix::fs::fstat(&source).map_err(to("look at"))?;
        // The copy may be that of an attempt before this one, or have got an ACL from the folder it was made in: what is
        // made in it gets its owner, mode and ACLs from nobody.
        rustix::fs::fchmod(&target, Mode::RWXU).map_err(to("set the mode of the copy of"))?;
        self.without_acls(&target)?;
        self.flags(&source, &target)?;
        self.attributes(At::Folder(&source), At::Folder(&target), &stat)?;
        Ok(Below { source, target, mode: stat.st_mode, times: times_of(&stat) })
    }

    /// Sets what may be set only when all in the folder is copied.
    pub(super) fn leave(&mut self, here: &Here<'_>) -> Result<(), Failed> {
        if let Some(source) = here.source {
            self.default_acl(source, here.target)?;
        }
        self.finish(At::Folder(here.target), here.mode, here.times)
    }

    /// Makes the copy of an entry; nothing where it is whole already. What else is in its way goes.
    fn make<T>(
        &mut self,
        pair: &Pair<'_>,
        stat: &Stat,
        make: impl Fn(&Folder) -> io::Result<T>,
    ) -> Result<Option<T>, Failed> {
        match make(pair.target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(Some).map_err(to("make the copy of")),
        }
        let found = pair.target.stat(pair.name).map_err(to("look at the copy of"))?;
        if is_whole(&found, stat) && same_link(pair).map_err(to("look at the copy of"))? {
            return Ok(None);
        }
        self.put_aside(pair)?;
        make(pair.target).map(Some).map_err(to("make the copy of"))
    }

    /// Takes away what has the name of a copy that is to be made.
    pub(super) fn put_aside(&mut self, pair: &Pair<'_>) -> Result<(), Failed> {
        let put = match pair.target.unlink(pair.name) {
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                pair.target.rename(pair.name, self.beside, self.names.next())
            }
            unlinked => unlinked,
        };
        put.map_err(to("remove what is in the place of the copy of"))
    }
}

/// Makes the copy of a folder, or opens it where it is there.
fn make_folder(pair: &Pair<'_>) -> io::Result<Folder> {
    match rustix::fs::mkdirat(pair.target, pair.name, Mode::RWXU) {
        Err(Errno::EXIST) => {}
        made => made?,
    }
    open_folder(pair.target, pair.name)
}

/// Whether a copy was finished, and its original has not changed since.
fn is_whole(copy: &Stat, original: &Stat) -> bool {
    let key = |stat: &Stat| {
        let (size, time) = (stat.st_size, (stat.st_mtime, stat.st_mtime_nsec));
        (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev, size, time)
    };
    key(copy) == key(original)
}

/// Whether the copy, where it is a symlink, names what the original names.
fn same_link(pair: &Pair<'_>) -> io::Result<bool> {
    let read = |folder: &Folder| match rustix::fs::readlinkat(folder, pair.name, Vec::new()) {
        Err(Errno::INVAL | Errno::NOENT) => Ok(None),
        read => read.map(Some),
    };
    Ok(read(pair.source)? == read(pair.target)?)
}
