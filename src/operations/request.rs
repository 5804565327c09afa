//! Whether two calls ask the same.

use std::fmt;
use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};

/// What a call asks: the name of its RPC and a digest of its fields. Two calls with equal requests get one answer, so
/// the digest is one for which no two unlike requests can be found.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    rpc: &'static str,
    digest: [u8; 32],
}

impl Request {
    /// The request of `rpc` with `fields`: everything that makes a difference to the answer. Secrets and the
    /// orchestrator's own keys are no part of it, since they may differ between two tries of one call.
    pub fn of(rpc: &'static str, fields: &impl Hash) -> Self {
        let mut hasher = Sha(Sha256::new());
        fields.hash(&mut hasher);
        Self { rpc, digest: hasher.0.finalize().into() }
    }

    /// The name of the RPC.
    pub fn rpc(&self) -> &'static str {
        self.rpc
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Request").field(&self.rpc).finish()
    }
}

/// Feeds what [`Hash`] writes to SHA-256.
struct Sha(Sha256);

impl Hasher for Sha {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The first 64 bits, for the sake of the trait alone.
    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest.iter().take(8).fold(0, |value, byte| (value << 8) | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_equal_only_with_one_rpc_and_equal_fields() {
        let request = Request::of("NodeStageVolume", &("a", "bc"));
        assert_eq!(request, Request::of("NodeStageVolume", &("a", "bc")));
        assert_ne!(request, Request::of("NodeStageVolume", &("ab", "c")));
        assert_ne!(request, Request::of("NodeUnstageVolume", &("a", "bc")));
    }
}
