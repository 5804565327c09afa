//! A job between its record and its first byte.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Jobs;
use crate::copying::TargetKey;
use crate::error::Result;

/// A job that is begun and not started: it holds its source. Dropped, it is no job any more.
#[must_use]
pub struct Begun<'a, E: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> {
    jobs: &'a Jobs<E>,
    key: Option<TargetKey>,
}

impl<'a, E: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Begun<'a, E> {
    pub(super) fn new(jobs: &'a Jobs<E>, key: TargetKey) -> Self {
        Self { jobs, key: Some(key) }
    }

    /// Has it worked on.
    ///
    /// # Errors
    /// Where the system gives no thread; it is a job all the same, and is worked on with the next one.
    pub fn start(mut self) -> Result<()> {
        self.key.take().map_or(Ok(()), |key| self.jobs.go_on(&key))
    }
}

impl<E: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Drop for Begun<'_, E> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take()
            && let Err(error) = self.jobs.remove(&key)
        {
            // It stays a job that nobody works on, until it is begun again, gone on with, or the root is opened anew.
            if let Some(entry) = self.jobs.shared.lock().entries.get_mut(&key) {
                entry.is_left = true;
            }
            tracing::warn!(target = %key, error = error.report(), "cannot remove a job that was not started");
        }
    }
}
