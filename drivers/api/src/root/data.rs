//! What drivers share whose volumes are entries of one folder: the data of each, named by its key.

use std::ffi::OsStr;
use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Folder, Records, Root, SnapshotRecords};
use crate::error::{Error, Result};

impl Root {
    /// Opens the folder `name`, in which each volume has its data under its key. It is made, for its owner alone, in a
    /// root that has no volume yet.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) where it is missing and there is any record, also
    /// one that cannot be read: made anew it would make every volume look half deleted.
    pub fn data<E: Serialize + DeserializeOwned>(&self, name: &str, records: &Records<E>) -> Result<Folder> {
        self.data_folder(name, "volumes", records.is_empty()?)
    }

    /// The same for the folder in which each snapshot has its data.
    ///
    /// # Errors
    /// As [`data`](Self::data).
    pub fn data_of_snapshots<E>(&self, name: &str, records: &SnapshotRecords<E>) -> Result<Folder>
    where
        E: Serialize + DeserializeOwned,
    {
        self.data_folder(name, "snapshots", records.is_empty()?)
    }

    fn data_folder(&self, name: &str, whose: &str, may_be_made: bool) -> Result<Folder> {
        if !may_be_made && !self.folder.contains(name)? {
            return Err(Error::precondition(format!(
                "{} is missing, and there are {whose} whose data was in it: restore it from a backup",
                self.folder.path().join(name).display()
            )));
        }
        self.folder.folder_or_make(name, 0o700).map_err(self.folder.failed("open", name))
    }
}

impl Folder {
    /// Makes the folder of a new volume, empty, durable and of exactly this mode. An empty one that is there is what a
    /// create left that was cut off: it is made anew.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition), and nothing is changed, where anything else has the
    /// name: it is the data of a volume whose record was lost, never that of the new one.
    pub fn make_empty(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<Self> {
        let name = name.as_ref();
        let make = || self.make_folder(name, mode);
        let made = match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove_folder(name).and_then(|()| make())
            }
            made => made,
        };
        let made = made.map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => Error::precondition(format!(
                "{} has data and no record, so it is nobody's volume: restore the record, or move it away",
                self.path().join(name).display()
            )),
            _ => self.failed("make", name)(error),
        })?;
        self.sync().map_err(self.failed("sync", ""))?;
        Ok(made)
    }

    /// Whether there is an entry of this name, whatever it is. A volume with a record and without data is
    /// [half deleted](crate::Create::is_half_deleted).
    ///
    /// # Errors
    /// Where that cannot be told.
    pub fn contains(&self, name: impl AsRef<OsStr>) -> Result<bool> {
        let name = name.as_ref();
        match self.stat(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            found => found.map(|_| true).map_err(self.failed("look at", name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::error::ErrorKind;

    fn refused<T>(result: Result<T>, words: &str) {
        let error = result.err().expect("it is refused");
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
        assert!(error.report().contains(words), "{error} does not say {words:?}");
    }

    #[test]
    fn the_remainder_of_a_create_is_made_anew_with_its_mode() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::at(temp.path()).unwrap();
        for _ in 0..2 {
            folder.make_empty("a", 0o770).unwrap();
            assert_eq!(fs::metadata(temp.path().join("a")).unwrap().permissions().mode() & 0o7777, 0o770);
            fs::set_permissions(temp.path().join("a"), fs::Permissions::from_mode(0o700)).unwrap();
        }
        assert!(folder.contains("a").unwrap() && !folder.contains("b").unwrap());
    }

    #[test]
    fn what_has_data_is_neither_taken_over_nor_changed() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::at(temp.path()).unwrap();
        fs::create_dir(temp.path().join("folder")).unwrap();
        fs::write(temp.path().join("folder/thesis.tex"), "words").unwrap();
        fs::write(temp.path().join("file"), "words").unwrap();
        symlink("folder", temp.path().join("link")).unwrap();
        for name in ["folder", "file", "link"] {
            refused(folder.make_empty(name, 0o777), "restore the record, or move it away");
            assert!(folder.contains(name).unwrap());
        }
        assert_eq!(fs::read(temp.path().join("link/thesis.tex")).unwrap(), b"words");
        assert!(folder.make_empty("..", 0o777).is_err());
    }

    #[test]
    fn lost_data_is_not_made_anew_where_there_is_any_record() {
        let temp = tempfile::tempdir().unwrap();
        Root::init(temp.path(), "dir").unwrap();
        let record = temp.path().join(".dunnage/volumes/pvc-1");
        fs::write(&record, "broken").unwrap();
        let root = Root::open(temp.path(), "dir").unwrap();
        let records = root.records::<()>().unwrap();
        refused(root.data("data", &records), "data is missing");
        assert!(!temp.path().join("data").exists());
        records.remove(&"pvc-1".parse().unwrap()).unwrap();
        root.data("data", &records).unwrap();
        fs::write(&record, "broken").unwrap();
        root.data("data", &records).unwrap();
    }
}
