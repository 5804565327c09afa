//! Which instances are open in this process, and by which backend.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use dunnage_driver_api::{BackendName, Error, InstanceId, Result};

/// Which instances are open in this process, and by which backend. A clone is the same list.
#[derive(Clone, Default)]
pub(super) struct Instances(Arc<Mutex<BTreeMap<InstanceId, BackendName>>>);

impl Instances {
    /// Takes an instance for a backend, for as long as the process lives.
    ///
    /// # Errors
    /// [`FailedPrecondition`](dunnage_driver_api::ErrorKind::FailedPrecondition) where another backend has it: a copy of
    /// a store has the ids of all its volumes, and one id must never name two.
    pub(super) fn claim(&self, instance: &InstanceId, backend: &BackendName) -> Result<()> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match open.entry(instance.clone()) {
            Entry::Vacant(free) => {
                free.insert(backend.clone());
                Ok(())
            }
            Entry::Occupied(taken) if taken.get() == backend => Ok(()),
            Entry::Occupied(taken) => Err(is_copy(instance, backend, taken.get())),
        }
    }

    /// Gives an instance back that was not opened after all.
    pub(super) fn give_back(&self, instance: &InstanceId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(instance);
    }
}

/// The refusal of a backend whose store is a copy of another one's.
pub(super) fn is_copy(instance: &InstanceId, backend: &BackendName, owner: &BackendName) -> Error {
    Error::precondition(format!(
        "instance {instance} is served by backend {owner} already, so the place of {backend} is a copy of that one's: two \
         volumes would have one id. Serve one of them"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_one_backends_until_it_is_given_back() {
        let (open, instance) = (Instances::default(), InstanceId::random().unwrap());
        let (a, b): (BackendName, BackendName) = ("a".parse().unwrap(), "b".parse().unwrap());
        open.claim(&instance, &a).unwrap();
        open.claim(&instance, &a).unwrap();
        assert!(open.claim(&instance, &b).unwrap_err().to_string().contains("backend a"));
        open.give_back(&instance);
        open.claim(&instance, &b).unwrap();
    }
}
