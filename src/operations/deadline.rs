//! Until when a caller waits.

use std::future::Future;
use std::time::{Duration, Instant};

use super::Failure;

/// Until when a caller waits. The answer is given a little before: a client that gives up first learns nothing.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    from: Instant,
    answer_by: Instant,
}

impl Deadline {
    /// How long a client is kept waiting that did not say.
    const UNSAID: Duration = Duration::from_secs(120);
    /// The longest wait: what a client asks beyond it is not waited for in one call.
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    /// The greatest part of the client's time that is kept for the way of the answer.
    const MARGIN: Duration = Duration::from_millis(500);

    /// The deadline of a call that came just now with this `timeout`: a tenth of it, at most half a second, is kept for
    /// the way of the answer. `None`: the client did not say, and has 2 minutes.
    pub fn after(timeout: Option<Duration>) -> Self {
        let timeout = timeout.unwrap_or(Self::UNSAID).min(Self::LONGEST);
        let from = Instant::now();
        Self { from, answer_by: from + (timeout - Self::MARGIN.min(timeout / 10)) }
    }

    /// The same, but at most `limit` after the call came.
    #[must_use]
    pub fn at_most(self, limit: Duration) -> Self {
        Self { answer_by: self.answer_by.min(self.from + limit.min(Self::LONGEST)), ..self }
    }

    /// When the answer is given at the latest.
    pub fn answer_by(&self) -> Instant {
        self.answer_by
    }

    /// Waits for a read of `rpc` until the deadline, then lets go of it. A step on a backend's threads that has begun
    /// runs to its end; one that has not never will. For what changes nothing: the rest is for the table.
    ///
    /// # Errors
    /// [`Failure::Unanswered`] at the deadline, else what the read ends with.
    pub async fn bound<T>(
        self,
        rpc: &'static str,
        read: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.wait(read).await.unwrap_or_else(|| Err(Failure::Unanswered { rpc, waited: self.from.elapsed() }))
    }

    /// Waits until the deadline; `None` when it has come.
    pub(super) async fn wait<T>(self, future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.answer_by.into(), future).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_comes_before_the_client_gives_up() {
        for (timeout, wait) in [(100, 90), (5_000, 4_500), (60_000, 59_500)] {
            let deadline = Deadline::after(Some(Duration::from_millis(timeout)));
            assert_eq!(deadline.answer_by - deadline.from, Duration::from_millis(wait));
        }
    }

    #[test]
    fn without_a_word_of_the_client_it_is_two_minutes_and_the_longest_timeout_of_grpc_does_not_overflow() {
        let unsaid = Deadline::after(None);
        assert_eq!(unsaid.answer_by - unsaid.from, Duration::from_millis(119_500));
        let longest = Deadline::after(Some(Duration::from_secs(99_999_999 * 3600)));
        assert!(longest.answer_by > unsaid.answer_by);
        let bounded = unsaid.at_most(Duration::from_secs(2));
        assert_eq!(bounded.answer_by - bounded.from, Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_read_that_does_not_end_is_let_go_of() {
        let deadline = Deadline::after(Some(Duration::ZERO));
        let answer = deadline.bound("NodeGetVolumeStats", std::future::pending::<Result<(), Failure>>()).await;
        assert!(matches!(answer, Err(Failure::Unanswered { rpc: "NodeGetVolumeStats", .. })));
    }
}
