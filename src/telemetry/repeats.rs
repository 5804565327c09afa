//! Errors that repeat: orchestrators retry for ever, some without a pause.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tonic::Code;

use super::code;

/// How many objects are told apart. Beyond it, errors count for their RPC and code alone.
const LIMIT: usize = 512;

/// What makes two errors the same. The message does not: it may hold a figure that changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) plugin: Arc<str>,
    pub(super) rpc: String,
    pub(super) code: Code,
    /// The volume's name or id; empty where none is known.
    pub(super) object: String,
}

/// What to do with an error.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Log it, with the number of those that were only counted since the last line.
    Log {
        /// How many were counted.
        repeated: u64,
    },
    /// It was counted.
    Count,
}

#[derive(Debug)]
struct Entry {
    /// When its interval ends.
    until: Instant,
    repeated: u64,
    /// The last one's message.
    message: String,
}

/// Errors that were logged lately.
#[derive(Debug)]
pub(super) struct Repeats {
    interval: Duration,
    entries: Mutex<HashMap<Key, Entry>>,
}

impl Repeats {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, entries: Mutex::default() }
    }

    /// Says what to do with an error that happened `now`.
    pub(super) fn observe(&self, mut key: Key, message: &str, now: Instant) -> Verdict {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= LIMIT && !entries.contains_key(&key) {
            key.object.clear();
        }
        let until = now + self.interval;
        let Some(entry) = entries.get_mut(&key) else {
            entries.insert(key, Entry { until, repeated: 0, message: String::new() });
            return Verdict::Log { repeated: 0 };
        };
        if now < entry.until {
            entry.repeated += 1;
            message.clone_into(&mut entry.message);
            return Verdict::Count;
        }
        entry.until = until;
        Verdict::Log { repeated: std::mem::take(&mut entry.repeated) }
    }

    /// Forgets the errors whose interval has ended, and logs those that were counted in it.
    pub(super) fn log_ended(&self, now: Instant) {
        for (key, entry) in self.take_ended(now) {
            if entry.repeated > 0 {
                tracing::warn!(
                    plugin = &*key.plugin,
                    rpc = key.rpc,
                    volume = key.object,
                    code = code::name(key.code),
                    repeated = entry.repeated,
                    error = entry.message,
                    "failed again"
                );
            }
        }
    }

    fn take_ended(&self, now: Instant) -> Vec<(Key, Entry)> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.extract_if(|_, entry| entry.until <= now).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);

    fn key(object: &str) -> Key {
        Key { plugin: "p".into(), rpc: "NodeStageVolume".into(), code: Code::Internal, object: object.into() }
    }

    #[test]
    fn the_first_is_logged_and_the_next_carries_the_count() {
        let (repeats, now) = (Repeats::new(INTERVAL), Instant::now());
        assert_eq!(repeats.observe(key("a"), "x", now), Verdict::Log { repeated: 0 });
        for _ in 0..337 {
            assert_eq!(repeats.observe(key("a"), "x", now), Verdict::Count);
        }
        assert_eq!(repeats.observe(key("b"), "x", now), Verdict::Log { repeated: 0 });
        assert_eq!(repeats.observe(key("a"), "x", now + INTERVAL), Verdict::Log { repeated: 337 });
    }

    #[test]
    fn what_was_counted_is_summed_up_when_the_error_stops() {
        let (repeats, now) = (Repeats::new(INTERVAL), Instant::now());
        repeats.observe(key("a"), "1 left", now);
        repeats.observe(key("a"), "0 left", now);
        assert!(repeats.take_ended(now).is_empty());
        let ended = repeats.take_ended(now + INTERVAL);
        assert_eq!((ended[0].1.repeated, ended[0].1.message.as_str()), (1, "0 left"));
        assert!(repeats.take_ended(now + INTERVAL).is_empty());
    }

    #[test]
    fn a_flood_of_objects_is_bounded() {
        let (repeats, now) = (Repeats::new(INTERVAL), Instant::now());
        let logged = (0..10_000).filter(|n| repeats.observe(key(&n.to_string()), "x", now) != Verdict::Count).count();
        assert_eq!(logged, LIMIT + 1);
    }
}
