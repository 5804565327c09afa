//! What the host gives a driver for one call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::attach::Attach;
use crate::command::Commands;
use crate::error::Result;
use crate::id::VolumeId;
use crate::secrets::Secrets;
use crate::still::{Held, HoldStill, NotInUse, OfAttached};

/// What the host gives a driver for one call: until when an answer is of use, how to run programs, and the secrets
/// of the request. It will grow; a driver only reads it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Context {
    /// When nobody waits for the answer any more. Work that changes something goes on all the same, to its end or to
    /// an error; a wait (for a device, a login) ends here.
    pub deadline: Instant,
    /// Runs programs.
    pub commands: Arc<dyn Commands>,
    /// The secrets of the request.
    pub secrets: Secrets,
    still: Arc<dyn HoldStill>,
}

impl Context {
    /// A context without secrets whose deadline is `within` from now, on a node where no volume is in use.
    pub fn new(within: Duration, commands: Arc<dyn Commands>) -> Self {
        Self { deadline: Instant::now() + within, commands, secrets: Secrets::default(), still: Arc::new(NotInUse) }
    }

    /// The same context with the secrets of a request.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }
    /// The same context on a node that holds volumes still so.
    #[must_use]
    pub fn with_still(mut self, still: Arc<dyn HoldStill>) -> Self {
        self.still = still;
        self
    }

    /// The same context of a backend whose volumes other nodes use: what is attached and not in use here is
    /// [`Writable`](crate::InUse::Writable) when it is held.
    #[must_use]
    pub fn with_attach(self, attach: Arc<dyn Attach>) -> Self {
        let still = Arc::new(OfAttached { cx: self.clone(), attach });
        self.with_still(still)
    }

    /// Holds volumes of this node still, all at once, for at most `within`, so that what is copied of them is of one
    /// moment. Be quick: their users wait.
    ///
    /// # Errors
    /// As [`HoldStill::hold`].
    pub fn hold(&self, volumes: &[VolumeId], within: Duration) -> Result<Box<dyn Held>> {
        self.still.hold(volumes, within)
    }
}
