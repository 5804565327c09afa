//! What room there is, and what of it is spoken for.
//!
//! With enforced sizes it is what is free less what every limited subvolume of the file system may still take. What is
//! deleted is not free before the kernel has freed it, and what snapshots keep is not free either.

use dunnage_driver_api::root::Reservation;
use dunnage_driver_api::{Bytes, Capacity, Context, Error, ErrorKind, Parameters, Result, Room};

use crate::store::{Store, UNIT};

impl Room for Store {
    fn capacity(&self, _: &Context, _: &Parameters) -> Result<Capacity> {
        let available = self.unpromised()?.minus(self.records.reserved());
        Ok(Capacity::new(available).at_least(UNIT))
    }
}

impl Store {
    /// Speaks for `size`, where that fits now.
    ///
    /// # Errors
    /// OutOfRange for what the empty disk could not hold, ResourceExhausted for what it cannot hold now.
    pub(crate) fn reserve(&self, size: Bytes) -> Result<Reservation> {
        let place = self.root.folder().path().display();
        if size > self.root.sizes()?.total {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!("{size} are more than the whole disk of {place} has"),
            ));
        }
        self.records.reserve_unpromised(size, |reserved| {
            // Looked at in here, so that no volume is between its reservation and its limit.
            let room = self.unpromised()?.minus(reserved);
            if size <= room {
                return Ok(());
            }
            Err(Error::new(
                ErrorKind::ResourceExhausted,
                format!(
                    "{place} has room for {room}, and {size} are needed: free some, delete snapshots, or grow it; what \
                     was just deleted or written counts some seconds later"
                ),
            ))
        })
    }

    fn unpromised(&self) -> Result<Bytes> {
        let available = self.root.sizes()?.available;
        match &self.groups {
            Some(groups) => Ok(available.minus(groups.unused(self.root.folder())?)),
            None => Ok(available),
        }
    }
}
