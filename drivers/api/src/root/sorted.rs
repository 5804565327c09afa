//! A sorted map that takes little more memory than what is in it.
//!
//! A `BTreeMap` that grew entry by entry is between half and two thirds full, and its leaves are all of one size. Here the
//! entries lie in runs that are as large as what is in them, so that a map is as small as one that was made at once,
//! whatever the order in which it grew.

use std::iter;
use std::mem;

/// How many entries a run has at the most: a change moves no more than these.
const MOST: usize = 128;
/// By how many entries a run grows.
const STEP: usize = 8;

#[derive(Debug)]
pub(super) struct Sorted<K, V> {
    /// In order, none of them empty.
    runs: Vec<Vec<(K, V)>>,
    len: usize,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self { runs: Vec::new(), len: 0 }
    }
}

impl<K: Ord, V> Sorted<K, V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.find(key).is_ok()
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (run, place) = self.find(key).ok()?;
        Some(&mut self.runs[run][place].1)
    }

    /// Puts a value in the place of the one that is there, which is answered.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (at, place) = match self.find(&key) {
            Ok((run, place)) => return Some(mem::replace(&mut self.runs[run][place].1, value)),
            Err(free) => free,
        };
        self.len += 1;
        let Some(run) = self.runs.get_mut(at) else {
            self.runs.push(vec![(key, value)]);
            return None;
        };
        if run.len() == run.capacity() {
            run.reserve_exact(STEP);
        }
        run.insert(place, (key, value));
        if run.len() > MOST {
            let second = run.split_off(MOST / 2);
            run.shrink_to_fit();
            self.runs.insert(at + 1, second);
        }
        None
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (at, place) = self.find(key).ok()?;
        self.len -= 1;
        let (_, value) = self.runs[at].remove(place);
        let are_small = |first: &usize| {
            self.runs.get(first + 1).is_some_and(|second| self.runs[*first].len() + second.len() <= MOST / 2)
        };
        if let Some(first) = at.checked_sub(1).filter(are_small).or(Some(at).filter(are_small)) {
            let second = self.runs.remove(first + 1);
            self.runs[first].reserve_exact(second.len());
            self.runs[first].extend(second);
        } else if self.runs[at].is_empty() {
            self.runs.remove(at);
        } else if self.runs[at].capacity() - self.runs[at].len() > 2 * STEP {
            let kept = self.runs[at].len() + STEP;
            self.runs[at].shrink_to(kept);
        }
        Some(value)
    }

    /// The entries in order, from the first one after `after`.
    pub(super) fn after(&self, after: Option<&K>) -> impl Iterator<Item = (&K, &V)> {
        let (run, place) = match after.map(|key| self.find(key)) {
            Some(Ok((run, place))) => (run, place + 1),
            Some(Err(free)) => free,
            None => (0, 0),
        };
        self.runs.iter().skip(run).flatten().skip(place).map(|(key, value)| (key, value))
    }

    /// Where the key is, or where it would be put: a run and a place in it.
    fn find(&self, key: &K) -> Result<(usize, usize), (usize, usize)> {
        let begins_before = |run: &Vec<(K, V)>| run.first().is_some_and(|(first, _)| first <= key);
        let run = self.runs.partition_point(begins_before).saturating_sub(1);
        let place = self.runs.get(run).map_or(Err(0), |run| run.binary_search_by(|(known, _)| known.cmp(key)));
        place.map(|place| (run, place)).map_err(|place| (run, place))
    }
}

impl<K, V> IntoIterator for Sorted<K, V> {
    type Item = (K, V);
    type IntoIter = iter::Flatten<std::vec::IntoIter<Vec<(K, V)>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.runs.into_iter().flatten()
    }
}

/// Of two entries of one key the first one stays.
impl<K: Ord, V> FromIterator<(K, V)> for Sorted<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by(|(one, _), (other, _)| other.cmp(one));
        entries.dedup_by(|(next, _), (kept, _)| next == kept);
        let len = entries.len();
        // From the end, so that what was taken needs no memory any more.
        let runs = iter::from_fn(|| {
            let mut run = Vec::with_capacity(entries.len().min(MOST));
            run.extend(iter::from_fn(|| entries.pop()).take(MOST));
            (!run.is_empty()).then_some(run)
        });
        let runs = runs.collect();
        Self { runs, len }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::Bound;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What holds of the runs at any time.
    fn check(map: &Sorted<u16, u32>) {
        assert_eq!(map.len(), map.after(None).count());
        for run in &map.runs {
            assert!(!run.is_empty() && run.len() <= MOST, "a run of {}", run.len());
            assert!(run.capacity() <= run.len() + 2 * STEP, "{} entries in room for {}", run.len(), run.capacity());
        }
        for pair in map.runs.windows(2) {
            assert!(pair[0].last().unwrap().0 < pair[1].first().unwrap().0, "runs out of order");
        }
    }

    #[derive(Debug, Clone)]
    enum Change {
        Insert(u16, u32),
        Remove(u16),
        /// All keys from the first on, so many: what a property seldom does one by one.
        Fill(u16, u16),
        Clear(u16, u16),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            4 => (0_u16..2000, any::<u32>()).prop_map(|(key, value)| Change::Insert(key, value)),
            4 => (0_u16..2000).prop_map(Change::Remove),
            1 => (0_u16..2000, 0_u16..600).prop_map(|(first, count)| Change::Fill(first, count)),
            1 => (0_u16..2000, 0_u16..600).prop_map(|(first, count)| Change::Clear(first, count)),
        ]
    }

    proptest! {
        #[test]
        fn it_is_what_a_btree_map_is(made in vec((0_u16..2000, any::<u32>()), 0..600), changes in vec(change(), 0..60)) {
            let mut map: Sorted<_, _> = made.iter().copied().collect();
            let mut model: BTreeMap<_, _> = BTreeMap::new();
            for (key, value) in made {
                model.entry(key).or_insert(value);
            }
            check(&map);
            for change in changes {
                match change {
                    Change::Insert(key, value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    Change::Remove(key) => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    Change::Fill(first, count) => {
                        (first..first + count).for_each(|key| assert_eq!(map.insert(key, 1), model.insert(key, 1)));
                    }
                    Change::Clear(first, count) => {
                        (first..first + count).for_each(|key| assert_eq!(map.remove(&key), model.remove(&key)));
                    }
                }
                check(&map);
            }
            prop_assert!(map.after(None).eq(&model));
            for key in (0..2700).step_by(37) {
                prop_assert_eq!(map.contains(&key), model.contains_key(&key));
                prop_assert_eq!(map.get_mut(&key), model.get_mut(&key));
                prop_assert!(map.after(Some(&key)).eq(model.range((Bound::Excluded(key), Bound::Unbounded))));
            }
        }
    }

    #[test]
    fn it_grows_in_any_order_into_hardly_more_than_its_entries_take() {
        const COUNT: usize = 50_000;
        let scattered = (0..COUNT).map(|number| (number * 7919) % COUNT);
        let orders: [Box<dyn Iterator<Item = usize>>; 3] =
            [Box::new(0..COUNT), Box::new((0..COUNT).rev()), Box::new(scattered)];
        for order in orders {
            let mut map = Sorted::default();
            order.for_each(|key| assert_eq!(map.insert(key, ()), None));
            let room: usize = map.runs.iter().map(Vec::capacity).sum();
            assert!(map.len() == COUNT && room < COUNT + COUNT / 8, "room for {room}");
            assert!(map.runs.len() <= COUNT / (MOST / 2) + 1, "{} runs", map.runs.len());
        }
    }

    #[test]
    fn what_is_removed_takes_no_room() {
        let mut map: Sorted<_, _> = (0..50_000).map(|key| (key, ())).collect();
        (0..50_000).filter(|key| key % 100 != 0).for_each(|key| assert_eq!(map.remove(&key), Some(())));
        let room: usize = map.runs.iter().map(Vec::capacity).sum();
        assert!(map.len() == 500 && room <= 500 * 2, "room for {room}");
    }
}
