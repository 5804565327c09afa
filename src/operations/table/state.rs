//! What the table knows: who holds which key.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Answer;
use crate::operations::{Failure, Key, Keys, Request};

/// A running operation, as diagnostics show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The RPC.
    pub rpc: &'static str,
    /// What it holds.
    pub keys: Arc<[Key]>,
    /// Since how long.
    pub running_for: Duration,
}

/// How the table was used since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OperationsCount {
    /// Operations that run now.
    pub running: usize,
    /// Operations that were started.
    pub started: u64,
    /// Calls that joined a running one.
    pub joined: u64,
    /// Calls that found another one at work.
    pub busy: u64,
}

/// What becomes of a call.
pub(super) enum Admission<T> {
    /// It is entered and holds its keys.
    Started { id: u64, since: Instant },
    /// The same request runs already.
    Joined { since: Instant, answer: Answer<T> },
    /// Another request holds one of its keys.
    Busy(Failure),
    /// Nothing is started any more.
    Stopping,
}

#[derive(Default)]
pub(super) struct State {
    stopping: bool,
    entries: HashMap<u64, Entry>,
    held: HashMap<Key, Holders>,
    count: OperationsCount,
}

/// Which operations hold a key.
enum Holders {
    Alone(u64),
    /// At least one.
    Shared(Vec<u64>),
}

impl Holders {
    fn first(&self) -> Option<u64> {
        match self {
            Self::Alone(id) => Some(*id),
            Self::Shared(ids) => ids.first().copied(),
        }
    }
}

struct Entry {
    request: Request,
    keys: Keys,
    since: Instant,
    /// An [`Answer`] of the type that the first caller wants.
    answer: Box<dyn Any + Send>,
}

impl State {
    /// Decides on a call.
    pub(super) fn admit<T>(&mut self, keys: Keys, request: Request, answer: Answer<T>) -> Admission<T>
    where
        T: Clone + Send + Sync + 'static,
    {
        let holder = self.in_the_way(&keys).and_then(|(key, id)| Some((key, self.entries.get(&id)?)));
        if let Some((key, entry)) = holder {
            if entry.request == request
                && entry.keys == keys
                && let Some(answer) = entry.answer.downcast_ref::<Answer<T>>()
            {
                self.count.joined += 1;
                return Admission::Joined { since: entry.since, answer: answer.clone() };
            }
            self.count.busy += 1;
            let (running, running_for) = (entry.request.rpc(), entry.since.elapsed());
            return Admission::Busy(Failure::Busy { key: key.clone(), running, running_for });
        }
        if self.stopping {
            return Admission::Stopping;
        }
        let (id, since) = (self.count.started, Instant::now());
        self.count.started += 1;
        self.held.extend(keys.alone().iter().map(|key| (key.clone(), Holders::Alone(id))));
        for key in keys.shared() {
            match self.held.entry(key.clone()).or_insert_with(|| Holders::Shared(Vec::new())) {
                Holders::Shared(ids) => ids.push(id),
                // Nobody holds it alone: that was looked at above.
                alone @ Holders::Alone(_) => *alone = Holders::Shared(vec![id]),
            }
        }
        self.entries.insert(id, Entry { request, keys, since, answer: Box::new(answer) });
        Admission::Started { id, since }
    }

    /// A key that these cannot have now, and who has it.
    fn in_the_way<'a>(&self, keys: &'a Keys) -> Option<(&'a Key, u64)> {
        let alone = keys.alone().iter().find_map(|key| Some((key, self.held.get(key)?.first()?)));
        alone.or_else(|| {
            keys.shared().iter().find_map(|key| match self.held.get(key)? {
                Holders::Alone(id) => Some((key, *id)),
                Holders::Shared(_) => None,
            })
        })
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some(entry) = self.entries.remove(&id) else { return };
        for key in entry.keys.all().iter() {
            let others = match self.held.get_mut(key) {
                Some(Holders::Shared(ids)) => {
                    ids.retain(|holder| *holder != id);
                    !ids.is_empty()
                }
                _ => false,
            };
            if !others {
                self.held.remove(key);
            }
        }
    }

    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn running(&self) -> Vec<Running> {
        let mut running: Vec<(&u64, &Entry)> = self.entries.iter().collect();
        running.sort_unstable_by_key(|(id, _)| **id);
        let show = |entry: &Entry| Running {
            rpc: entry.request.rpc(),
            keys: Arc::clone(entry.keys.all()),
            running_for: entry.since.elapsed(),
        };
        running.into_iter().map(|(_, entry)| show(entry)).collect()
    }

    pub(super) fn count(&self) -> OperationsCount {
        OperationsCount { running: self.entries.len(), ..self.count }
    }
}
