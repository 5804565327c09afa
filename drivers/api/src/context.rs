//! What the host gives a driver for one call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::command::Commands;
use crate::secrets::Secrets;

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
}

impl Context {
    /// A context without secrets whose deadline is `within` from now.
    pub fn new(within: Duration, commands: Arc<dyn Commands>) -> Self {
        Self { deadline: Instant::now() + within, commands, secrets: Secrets::default() }
    }

    /// The same context with the secrets of a request.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }
}
