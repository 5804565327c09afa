//! Hard links: a file with several names is copied once, and its copy gets the others.

use std::io;

use rustix::io::Errno;

use super::entry::UNFINISHED;
use super::{Copier, Failed, Pair, to};

impl Copier<'_> {
    /// Gives the copy of a file of which another name was copied already this name too.
    pub(super) fn link_known(&mut self, known: &str, pair: &Pair<'_>) -> Result<bool, Failed> {
        let failed = || to("make the copy of");
        if !self.is_sound(known).map_err(to("look at the copy of"))? {
            return Ok(false);
        }
        let error = match self.beside.link(known, pair.target, pair.name) {
            Ok(()) => return Ok(true),
            Err(error) => error,
        };
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => return Ok(false),
            // With the name beside it has one more than the original, which may have all that there can be.
            Some(Errno::MLINK) => {
                return self.beside.rename(known, pair.target, pair.name).map(|()| true).map_err(failed());
            }
            Some(Errno::EXIST) => {}
            _ => return Err(failed()(error)),
        }
        if self.is_same(known, pair).map_err(to("look at the copy of"))? {
            return Ok(true);
        }
        self.put_aside(pair)?;
        self.link_known(known, pair)
    }

    /// Whether there is a file of this name beside the copy that is whole, or will be. One that an attempt before this one
    /// did not finish goes.
    fn is_sound(&self, known: &str) -> io::Result<bool> {
        let found = match self.beside.stat(known) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found?,
        };
        if found.st_mode & 0o7777 != UNFINISHED || self.is_unsettled(found.st_ino) {
            return Ok(true);
        }
        self.beside.unlink(known)?;
        Ok(false)
    }

    fn is_same(&self, known: &str, pair: &Pair<'_>) -> io::Result<bool> {
        let (kept, found) = (self.beside.stat(known)?, pair.target.stat(pair.name)?);
        Ok((kept.st_dev, kept.st_ino) == (found.st_dev, found.st_ino))
    }

    /// Keeps a whole copy at hand for its other names.
    pub(super) fn make_known(&mut self, known: &str, pair: &Pair<'_>) -> Result<(), Failed> {
        match pair.target.link(pair.name, self.beside, known) {
            // It has all its names already, from an attempt before this one.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MLINK) => Ok(()),
            linked => linked.map_err(to("link the copy of")),
        }
    }
}
