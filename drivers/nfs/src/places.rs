//! Which folders are taken: no volume may lie in another one.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dunnage_driver_api::{Error, Result};

use crate::paths::VolumePath;

/// The paths of all volumes. Those from before this process are read when one is first to be taken or removed: any name of
/// a volume may be the folder of another.
#[derive(Default)]
pub(crate) struct Places(Mutex<State>);

#[derive(Default)]
struct State {
    taken: BTreeSet<VolumePath>,
    is_loaded: bool,
    /// Whether there are volumes of which nobody can say where they are.
    has_unknown: bool,
}

/// What is taken, as far as that can be read.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) paths: BTreeSet<VolumePath>,
    /// Whether there are volumes of which nobody can say where they are.
    pub(crate) has_unknown: bool,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads those from before this process by `load`, where that was not done yet.
    ///
    /// # Errors
    /// Those of `load`.
    pub(crate) fn know(&self, load: impl FnOnce() -> Result<Taken>) -> Result<()> {
        let mut state = self.lock();
        if !state.is_loaded {
            let Taken { paths, has_unknown } = load()?;
            state.taken.extend(paths);
            (state.is_loaded, state.has_unknown) = (true, has_unknown);
        }
        Ok(())
    }

    /// Whether there are volumes of which nobody can say where they are: what is there may be theirs.
    pub(crate) fn has_unknown(&self) -> bool {
        self.lock().has_unknown
    }

    /// Takes a path for a volume.
    ///
    /// # Errors
    /// FailedPrecondition where it is another volume's, lies in one, or has one in it.
    pub(crate) fn take(&self, path: &VolumePath) -> Result<()> {
        let mut state = self.lock();
        let above = path.above().chain([path.clone()]).find(|above| state.taken.contains(above));
        if let Some(other) = above.or_else(|| state.first_below(path).cloned()) {
            return Err(Error::precondition(format!(
                "the folder {path} cannot be a new volume's: {other} is one, or is what was retained of one; use another \
                 name, or a class with another `folder`"
            )));
        }
        state.taken.insert(path.clone());
        Ok(())
    }

    /// Takes a path that was taken before this process.
    pub(crate) fn hold(&self, path: VolumePath) {
        self.lock().taken.insert(path);
    }

    /// Does something to a path that is nobody's, and of which none is below it; nobody takes it meanwhile. All that is
    /// taken is to be [known](Self::know) before.
    pub(crate) fn unless_taken(&self, path: &VolumePath, work: impl FnOnce()) {
        let state = self.lock();
        if !state.has_unknown && !state.taken.contains(path) && state.first_below(path).is_none() {
            work();
        }
    }

    /// Gives a path back.
    pub(crate) fn free(&self, path: &VolumePath) {
        self.lock().taken.remove(path);
    }

    /// Has what is taken read again before it is asked for next.
    pub(crate) fn read_again(&self) {
        self.lock().is_loaded = false;
    }

    /// Has it read again whether a path is taken, of which that is not known: a record of it may have been written.
    pub(crate) fn doubt(&self, path: &VolumePath) {
        let mut state = self.lock();
        state.taken.remove(path);
        state.is_loaded = false;
    }

    /// Whether a volume lies below this path, other than the one at `new`.
    pub(crate) fn has_below_other(&self, path: &VolumePath, new: &VolumePath) -> bool {
        let state = self.lock();
        state.taken.range(path.clone()..).take_while(|one| one.is_in(path)).any(|one| one != path && one != new)
    }
}

impl State {
    /// What lies below a path comes right after it.
    fn first_below(&self, path: &VolumePath) -> Option<&VolumePath> {
        self.taken.range(path.clone()..).find(|one| *one != path).filter(|one| one.is_in(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> VolumePath {
        VolumePath::new(text).unwrap()
    }

    #[test]
    fn no_volume_lies_in_another_or_takes_its_place() {
        let places = Places::default();
        places.take(&path("cc/d")).unwrap();
        let taken = Taken { paths: [path("a/b"), path("a.x"), path("c")].into(), has_unknown: false };
        places.know(|| Ok(taken)).unwrap();
        places.know(|| panic!("it knows")).unwrap();
        for refused in ["a", "a/b", "a/b/c", "c", "c/d", "c/d/e", "cc", "cc/d"] {
            let error = places.take(&path(refused)).unwrap_err().to_string();
            assert!(error.contains("cannot be a new volume's"), "{error}");
        }
        for fits in ["a/b.x", "a/bb", "b", "cc/e"] {
            places.take(&path(fits)).unwrap();
            assert!(places.take(&path(fits)).is_err());
            places.free(&path(fits));
            places.take(&path(fits)).unwrap();
        }
        for (above, new, others) in
            [("a", "a/b", true), ("a", "a/new", true), ("cc", "cc/d", true), ("c", "c/x", false)]
        {
            assert_eq!(places.has_below_other(&path(above), &path(new)), others, "{above} {new}");
        }
        places.hold(path("h/i"));
        for (free, expected) in [("h", false), ("h/i", false), ("cc/e", false), ("h/ij", true)] {
            let mut done = false;
            places.unless_taken(&path(free), || done = true);
            assert_eq!(done, expected, "{free}");
        }
        places.doubt(&path("cc/e"));
        assert!(places.know(|| Err(Error::internal("the server is silent"))).is_err());
        places.know(|| Ok(Taken { paths: [path("cc/e")].into(), has_unknown: true })).unwrap();
        assert!(places.take(&path("cc/e")).is_err() && places.has_unknown());
        places.unless_taken(&path("h/ij"), || panic!("it may be a volume's of which nothing can be read"));
        places.free(&path("cc/e"));
        assert!(!places.has_below_other(&path("cc"), &path("cc/d")));
    }
}
