//! Which folders are taken: no volume may lie in another one.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dunnage_driver_api::{Error, Result};

use crate::paths::VolumePath;

/// The paths of all volumes. Those from before this process are read when they are first needed: only a class with
/// `folder` can make two meet.
#[derive(Default)]
pub(crate) struct Places(Mutex<State>);

#[derive(Default)]
struct State {
    taken: BTreeSet<VolumePath>,
    is_loaded: bool,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads those from before this process by `load`, where that was not done yet.
    ///
    /// # Errors
    /// Those of `load`.
    pub(crate) fn know(&self, load: impl FnOnce() -> Result<BTreeSet<VolumePath>>) -> Result<()> {
        let mut state = self.lock();
        if !state.is_loaded {
            state.taken.extend(load()?);
            state.is_loaded = true;
        }
        Ok(())
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

    /// Does something to a path that is nobody's, and of which none is below it; nobody takes it meanwhile.
    pub(crate) fn unless_taken(&self, path: &VolumePath, work: impl FnOnce()) {
        let state = self.lock();
        if !state.taken.contains(path) && state.first_below(path).is_none() {
            work();
        }
    }

    /// Gives a path back.
    pub(crate) fn free(&self, path: &VolumePath) {
        self.lock().taken.remove(path);
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
        places.know(|| Ok([path("a/b"), path("a.x"), path("c")].into())).unwrap();
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
        places.free(&path("cc/e"));
        assert!(!places.has_below_other(&path("cc"), &path("cc/d")));
    }
}
