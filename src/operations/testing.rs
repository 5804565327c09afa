//! What the tests of this module share.

use std::future::Future;
use std::time::Duration;

use super::Failure;

/// Waits until it is so; a minute without it is a hang.
pub(super) async fn until(mut so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !so() {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    });
    waited.await.expect("what the test waits for has not come within a minute");
}

/// Work that would never end, where none may be started.
pub(super) fn hung<T>() -> impl Future<Output = Result<T, Failure>> {
    std::future::pending()
}
