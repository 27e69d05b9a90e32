//! Which watchers a key concerns: an exact map for single keys, an interval tree for ranges.
//!
//! Watchers of equal keys share one entry. The interval tree is a treap: a binary tree ordered by range, balanced by
//! priorities, where each node knows the furthest end below it, so that looking a key up costs O(log ranges + hits).
//! A map cut at every range boundary would be simpler, but nested ranges make it quadratic. The priorities come from a
//! counter through a fixed mix: equal histories make equal trees.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::watcher::WatcherKey;

/// Where a range ends, exclusive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// Before this key.
    Before(Bytes),
    /// Nowhere.
    Never,
}

impl End {
    fn is_after(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => **end > *key,
            Self::Never => true,
        }
    }
}

/// The keys of a watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyRange {
    /// This one.
    Key(Bytes),
    /// From this one on, up to the end.
    Range(Bytes, End),
}

impl KeyRange {
    /// Reads the two fields of a request; `None` for a range that can hold no key.
    pub(super) fn parse(key: &[u8], range_end: &[u8]) -> Option<Self> {
        let start = Bytes::copy_from_slice(if key.is_empty() { &[0] } else { key });
        match range_end {
            [] => Some(Self::Key(start)),
            [0] => Some(Self::Range(start, End::Never)),
            end if *start < *end => {
                Some(Self::Range(start, End::Before(Bytes::copy_from_slice(end))))
            }
            _ => None,
        }
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(only) => **only == *key,
            Self::Range(start, end) => **start <= *key && end.is_after(key),
        }
    }
}

/// Watchers by key.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: BTreeMap<Bytes, BTreeSet<WatcherKey>>,
    ranges: Ranges,
    watchers: usize,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.watchers
    }

    pub(super) fn is_empty(&self) -> bool {
        self.watchers == 0
    }

    pub(super) fn insert(&mut self, keys: &KeyRange, watcher: WatcherKey) {
        let added = match keys {
            KeyRange::Key(key) => self.keys.entry(key.clone()).or_default().insert(watcher),
            KeyRange::Range(start, end) => self.ranges.insert(start, end, watcher),
        };
        assert!(added, "a watcher is indexed once");
        self.watchers += 1;
    }

    pub(super) fn remove(&mut self, keys: &KeyRange, watcher: WatcherKey) {
        let removed = match keys {
            KeyRange::Key(key) => {
                let watchers = self
                    .keys
                    .get_mut(key)
                    .expect("an indexed watcher has its key there");
                let removed = watchers.remove(&watcher);
                if watchers.is_empty() {
                    self.keys.remove(key);
                }
                removed
            }
            KeyRange::Range(start, end) => self.ranges.remove(start, end, watcher),
        };
        assert!(removed, "only an indexed watcher is removed");
        self.watchers -= 1;
    }

    /// Adds the watchers whom a key concerns.
    pub(super) fn find(&self, key: &[u8], found: &mut Vec<WatcherKey>) {
        found.extend(self.keys.get(key).into_iter().flatten());
        self.ranges.find(self.ranges.root, key, found);
    }
}

type Link = Option<u32>;

#[derive(Debug, Default)]
struct Ranges {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: Link,
    /// Nodes ever made: the source of priorities.
    made: u64,
}

#[derive(Debug)]
struct Node {
    start: Bytes,
    end: End,
    /// The furthest end in this subtree.
    reach: End,
    priority: u64,
    left: Link,
    right: Link,
    watchers: BTreeSet<WatcherKey>,
}

impl Ranges {
    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at as usize]
    }

    fn insert(&mut self, start: &Bytes, end: &End, watcher: WatcherKey) -> bool {
        if let Some(at) = self.locate(start, end) {
            return self.node_mut(at).watchers.insert(watcher);
        }
        let new = self.make(start, end, watcher);
        let (left, right) = self.split(self.root, start, end);
        let left = self.join(left, Some(new));
        self.root = self.join(left, right);
        true
    }

    fn remove(&mut self, start: &Bytes, end: &End, watcher: WatcherKey) -> bool {
        let Some(at) = self.locate(start, end) else {
            return false;
        };
        let removed = self.node_mut(at).watchers.remove(&watcher);
        if self.node(at).watchers.is_empty() {
            self.root = self.cut(self.root, start, end);
            self.free.push(at);
        }
        removed
    }

    fn find(&self, at: Link, key: &[u8], found: &mut Vec<WatcherKey>) {
        let Some(at) = at else { return };
        let node = self.node(at);
        if !node.reach.is_after(key) {
            return;
        }
        self.find(node.left, key, found);
        if *node.start <= *key {
            if node.end.is_after(key) {
                found.extend(&node.watchers);
            }
            self.find(node.right, key, found);
        }
    }

    fn locate(&self, start: &Bytes, end: &End) -> Link {
        let mut at = self.root;
        while let Some(here) = at {
            let node = self.node(here);
            at = match (start, end).cmp(&(&node.start, &node.end)) {
                std::cmp::Ordering::Equal => return at,
                std::cmp::Ordering::Less => node.left,
                std::cmp::Ordering::Greater => node.right,
            };
        }
        None
    }

    fn make(&mut self, start: &Bytes, end: &End, watcher: WatcherKey) -> u32 {
        self.made += 1;
        let node = Node {
            start: start.clone(),
            end: end.clone(),
            reach: end.clone(),
            priority: super::mix(self.made),
            left: None,
            right: None,
            watchers: BTreeSet::from([watcher]),
        };
        if let Some(at) = self.free.pop() {
            self.nodes[at as usize] = node;
            return at;
        }
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).expect("ranges of one hub fit 32 bits")
    }

    /// Parts a subtree into what is below a range and what is above it.
    fn split(&mut self, at: Link, start: &Bytes, end: &End) -> (Link, Link) {
        let Some(here) = at else { return (None, None) };
        let node = self.node(here);
        if (&node.start, &node.end) < (start, end) {
            let (below, above) = self.split(node.right, start, end);
            self.node_mut(here).right = below;
            self.measure(here);
            (at, above)
        } else {
            let (below, above) = self.split(node.left, start, end);
            self.node_mut(here).left = above;
            self.measure(here);
            (below, at)
        }
    }

    /// Joins two subtrees, all of `left` being below all of `right`.
    fn join(&mut self, left: Link, right: Link) -> Link {
        let (Some(low), Some(high)) = (left, right) else {
            return left.or(right);
        };
        if self.node(low).priority >= self.node(high).priority {
            self.node_mut(low).right = self.join(self.node(low).right, right);
            self.measure(low);
            left
        } else {
            self.node_mut(high).left = self.join(left, self.node(high).left);
            self.measure(high);
            right
        }
    }

    /// Takes one node out of a subtree.
    fn cut(&mut self, at: Link, start: &Bytes, end: &End) -> Link {
        let here = at.expect("the range was located");
        let node = self.node(here);
        match (start, end).cmp(&(&node.start, &node.end)) {
            std::cmp::Ordering::Equal => return self.join(node.left, node.right),
            std::cmp::Ordering::Less => self.node_mut(here).left = self.cut(node.left, start, end),
            std::cmp::Ordering::Greater => {
                self.node_mut(here).right = self.cut(node.right, start, end)
            }
        }
        self.measure(here);
        at
    }

    fn measure(&mut self, at: u32) {
        let node = self.node(at);
        let below = [node.left, node.right]
            .into_iter()
            .flatten()
            .map(|child| &self.node(child).reach);
        let reach = below
            .fold(&node.end, |furthest, reach| furthest.max(reach))
            .clone();
        self.node_mut(at).reach = reach;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u8, end: Option<u8>) -> KeyRange {
        match end {
            None => KeyRange::parse(&[start], &[]).unwrap(),
            Some(end) if end > start => KeyRange::parse(&[start], &[end]).unwrap(),
            Some(_) => KeyRange::parse(&[start], &[0]).unwrap(),
        }
    }

    proptest! {
        #[test]
        fn index_finds_exactly_the_ranges_that_hold_the_key(
            ranges in prop::collection::vec((1..20u8, prop::option::of(1..20u8), any::<bool>()), 0..60),
            keys in prop::collection::vec(0..22u8, 1..20),
        ) {
            let mut index = Index::default();
            let all: Vec<_> = ranges.iter().map(|(start, end, _)| range(*start, *end)).collect();
            for (number, keys) in all.iter().enumerate() {
                index.insert(keys, WatcherKey(number as u64));
            }
            let mut staying = Vec::new();
            for (number, (_, _, removed)) in ranges.iter().enumerate() {
                if *removed {
                    index.remove(&all[number], WatcherKey(number as u64));
                } else {
                    staying.push(number);
                }
            }
            for key in keys {
                let mut found = Vec::new();
                index.find(&[key], &mut found);
                found.sort_unstable();
                let expected = staying.iter().filter(|number| all[**number].contains(&[key]));
                prop_assert_eq!(found, expected.map(|number| WatcherKey(*number as u64)).collect::<Vec<_>>());
            }
            for number in staying {
                index.remove(&all[number], WatcherKey(number as u64));
            }
            prop_assert!(index.is_empty() && index.ranges.root.is_none() && index.keys.is_empty());
        }
    }

    #[test]
    fn tree_of_ten_thousand_nested_ranges_is_shallow() {
        let mut ranges = Ranges::default();
        for number in 0..10_000u32 {
            ranges.insert(
                &Bytes::copy_from_slice(&number.to_be_bytes()),
                &End::Never,
                WatcherKey(number.into()),
            );
        }
        fn depth(ranges: &Ranges, at: Link) -> usize {
            at.map_or(0, |at| {
                1 + depth(ranges, ranges.node(at).left).max(depth(ranges, ranges.node(at).right))
            })
        }
        let depth = depth(&ranges, ranges.root);
        assert!(depth < 60, "{depth}");
    }

    #[test]
    fn ranges_read_as_etcd_reads_them() {
        assert_eq!(
            KeyRange::parse(b"", b""),
            Some(KeyRange::Key(Bytes::from_static(&[0])))
        );
        assert_eq!(KeyRange::parse(b"a", b"a"), None);
        assert_eq!(KeyRange::parse(b"b", b"a"), None);
        assert_eq!(
            KeyRange::parse(b"b", &[0]),
            Some(KeyRange::Range(Bytes::from_static(b"b"), End::Never))
        );
        assert_eq!(
            KeyRange::parse(b"", &[0]),
            Some(KeyRange::Range(Bytes::from_static(&[0]), End::Never))
        );
        assert_eq!(
            KeyRange::parse(&[0], &[0, 0]).map(|keys| keys.contains(&[0])),
            Some(true)
        );
        assert_eq!(
            KeyRange::parse(b"", &[1]).map(|keys| keys.contains(&[0, 9])),
            Some(true)
        );
    }
}
