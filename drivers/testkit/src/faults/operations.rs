//! A file system on which one operation goes wrong.

use std::path::Path;

use rustix::io::Errno;

use super::{Fault, Faults, for_each};
use crate::fuse_store::FuseStore;

const FAULTS: [Fault; 4] = [Fault::Io, Fault::NoSpace, Fault::DoneAndFails, Fault::AllFail];

/// What an operation of a file system does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It only looks.
    Reads,
    /// It changes something, or makes it durable.
    Changes,
    /// It does so, and may need room for it.
    TakesRoom,
}

/// What becomes of an operation.
pub(crate) enum Outcome {
    /// This error, and nothing is done.
    Not(Errno),
    /// All is done, and it is this error.
    Done(Errno),
}

impl Faults {
    /// What becomes of an operation, where it is not what it should be.
    pub(crate) fn of_operation(&self, name: &str, effect: Effect) -> Option<Outcome> {
        let is_about = |fault| match fault {
            Fault::Io => true,
            Fault::NoSpace => effect == Effect::TakesRoom,
            Fault::DoneAndFails | Fault::AllFail => effect != Effect::Reads,
            _ => false,
        };
        Some(match self.meet(name, None, is_about)? {
            Fault::NoSpace => Outcome::Not(Errno::NOSPC),
            Fault::DoneAndFails => Outcome::Done(Errno::IO),
            Fault::AllFail => Outcome::Not(Errno::ROFS),
            _ => Outcome::Not(Errno::IO),
        })
    }
}

/// Goes through a scenario again and again, each time in a new, empty folder on a file system of its own ([`FuseStore`]),
/// and with another of the operations on it going wrong in another way: an error of the disk at each system call that
/// reads or writes it, no room, an error although it was done, and a file system that turns read-only.
///
/// So what a driver does by system calls fails at each step, with no seam in the driver: for one whose store is a folder,
/// or files in one. The scenario makes its calls by [`Faults::repeated`] or within [`Faults::during`]: operations outside
/// these do not fail. It asserts that a repeated call ends right, and that nothing is left in the end. Gives how many
/// operations went wrong. Needs root, see [`crate::needs_root`].
///
/// # Panics
/// Where the scenario does, where none of its calls touches the folder, and where there is no FUSE.
#[expect(clippy::expect_used, reason = "it is how a test fails")]
pub fn for_each_operation(mut scenario: impl FnMut(&Faults, &Path)) -> usize {
    for_each(&FAULTS, |faults| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = FuseStore::mount(folder.path()).expect("a FUSE file system can be mounted");
        store.fail_by(faults);
        scenario(faults, folder.path());
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::io::Write;

    use super::*;

    /// As a careful program replaces a file.
    fn replace(folder: &Path) -> std::io::Result<()> {
        let mut file = fs::File::create(folder.join("new"))?;
        file.write_all(b"text")?;
        file.sync_all()?;
        fs::rename(folder.join("new"), folder.join("file"))?;
        fs::File::open(folder)?.sync_all()
    }

    #[test]
    fn each_step_goes_wrong_and_nothing_else_does() {
        if !crate::needs_root("each_step_goes_wrong_and_nothing_else_does") {
            return;
        }
        let mut seen = BTreeSet::new();
        let hits = for_each_operation(|faults, folder| {
            fs::write(folder.join("file"), "old").unwrap();
            let replaced = faults.during(|| replace(folder));
            let error = replaced.err().and_then(|error| error.raw_os_error());
            let text = fs::read_to_string(folder.join("file")).unwrap();
            assert!(text == "old" || text == "text", "{text}");
            seen.insert((error, text));
            replace(folder).unwrap();
            assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "text");
            assert_eq!(fs::read_dir(folder).unwrap().count(), 1);
        });
        assert!(hits > 20, "{hits}");
        let of = |errno: Errno, text: &str| (Some(errno.raw_os_error()), text.to_owned());
        for one in [(None, "text".into()), of(Errno::IO, "old"), of(Errno::IO, "text"), of(Errno::NOSPC, "old")] {
            assert!(seen.contains(&one), "{one:?} is not in {seen:?}");
        }
        assert!(seen.contains(&of(Errno::ROFS, "old")), "{seen:?}");
    }

    #[test]
    #[should_panic(expected = "fails when it is repeated")]
    fn a_call_that_leaves_something_in_its_own_way_is_told() {
        if !crate::needs_root("a_call_that_leaves_something_in_its_own_way_is_told") {
            panic!("fails when it is repeated: not run");
        }
        for_each_operation(|faults, folder| {
            let call = || fs::create_dir(folder.join("a")).and_then(|()| fs::write(folder.join("a/file"), ""));
            faults.repeated(call);
        });
    }
}
