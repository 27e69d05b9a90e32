//! The names on a disk: directories, and which of their changes a power loss may undo.
//!
//! A change of names (create, rename, remove) is atomic and becomes durable when every directory it touches has
//! been synced. Until then each change survives a power loss or does not, independently of the others.

use std::collections::{BTreeMap, BTreeSet};

use super::content::{Content, Survival};
use crate::random::Stream;

/// A file or directory, whatever its name.
pub(super) type Inode = u64;

/// The directory that all paths begin in.
const ROOT: Inode = 0;

#[derive(Clone, Debug)]
enum Item {
    File(Content),
    Directory(Directory),
}

#[derive(Clone, Debug, Default)]
struct Directory {
    current: BTreeMap<String, Inode>,
    durable: BTreeMap<String, Inode>,
}

/// One change of names: all of it survives, or nothing.
#[derive(Clone, Debug)]
struct Change {
    /// (directory, name, what it names from now on).
    entries: Vec<(Inode, String, Option<Inode>)>,
    /// The directories that were not synced since.
    unsynced: BTreeSet<Inode>,
}

/// A tree of names with their files.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    items: BTreeMap<Inode, Item>,
    next: Inode,
    /// Changes that are not durable yet, oldest first.
    pending: Vec<Change>,
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Item::Directory(Directory::default());
        Self {
            items: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            pending: Vec::new(),
        }
    }

    /// The inode at `path`.
    pub(super) fn find(&self, path: &str) -> Option<Inode> {
        let mut inode = ROOT;
        for part in parts(path) {
            inode = *self.directory(inode)?.current.get(part)?;
        }
        Some(inode)
    }

    pub(super) fn list(&self, path: &str) -> Option<Vec<String>> {
        let directory = self.directory(self.find(path)?)?;
        Some(directory.current.keys().cloned().collect())
    }

    pub(super) fn file(&self, inode: Inode) -> Option<&Content> {
        match self.items.get(&inode)? {
            Item::File(content) => Some(content),
            Item::Directory(_) => None,
        }
    }

    pub(super) fn file_mut(&mut self, inode: Inode) -> Option<&mut Content> {
        match self.items.get_mut(&inode)? {
            Item::File(content) => Some(content),
            Item::Directory(_) => None,
        }
    }

    /// Bytes of the files that have a name now.
    pub(super) fn bytes_used(&self) -> usize {
        let files = self.reachable().into_iter();
        files
            .filter_map(|inode| Some(self.file(inode)?.current().len()))
            .sum()
    }

    fn directory(&self, inode: Inode) -> Option<&Directory> {
        match self.items.get(&inode)? {
            Item::Directory(directory) => Some(directory),
            Item::File(_) => None,
        }
    }

    pub(super) fn make_directory(&mut self, path: &str) -> Option<()> {
        let mut parent = ROOT;
        for part in parts(path) {
            let found = self.directory(parent)?.current.get(part).copied();
            parent = match found {
                Some(inode) => inode,
                None => {
                    let inode = self.add(Item::Directory(Directory::default()));
                    self.change(vec![(parent, part.to_owned(), Some(inode))]);
                    inode
                }
            };
        }
        self.directory(parent).map(|_| ())
    }

    pub(super) fn create(&mut self, path: &str, content: Content) -> Option<Inode> {
        let (parent, name) = self.place(path)?;
        let inode = self.add(Item::File(content));
        self.change(vec![(parent, name.to_owned(), Some(inode))]);
        Some(inode)
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> Option<()> {
        let inode = self.find(from)?;
        let (old_parent, old_name) = self.place(from)?;
        let (new_parent, new_name) = self.place(to)?;
        self.change(vec![
            (old_parent, old_name.to_owned(), None),
            (new_parent, new_name.to_owned(), Some(inode)),
        ]);
        Some(())
    }

    pub(super) fn remove(&mut self, path: &str) -> Option<()> {
        let inode = self.find(path)?;
        if self
            .directory(inode)
            .is_some_and(|it| !it.current.is_empty())
        {
            return None;
        }
        let (parent, name) = self.place(path)?;
        self.change(vec![(parent, name.to_owned(), None)]);
        Some(())
    }

    pub(super) fn sync_directory(&mut self, path: &str) -> Option<()> {
        let inode = self.find(path)?;
        self.directory(inode)?;
        for change in &mut self.pending {
            change.unsynced.remove(&inode);
        }
        let pending = std::mem::take(&mut self.pending);
        let (done, waiting) = pending
            .into_iter()
            .partition(|change| change.unsynced.is_empty());
        self.pending = waiting;
        self.make_durable(done);
        Some(())
    }

    /// The power goes: of the pending changes some survive, of each file what its sectors allow.
    /// Returns how many sectors were torn.
    pub(super) fn lose_power(&mut self, stream: &mut Stream, torn_ppm: u32) -> u64 {
        let pending = std::mem::take(&mut self.pending);
        let survival = Survival::draw(stream, pending.len() as u64);
        let mut survivors = Vec::new();
        for (position, change) in (0..).zip(pending) {
            if survival.keeps(stream, position) {
                survivors.push(change);
            }
        }
        self.make_durable(survivors);
        let mut torn = 0;
        for item in self.items.values_mut() {
            match item {
                Item::File(content) => torn += content.lose_power(stream, torn_ppm),
                Item::Directory(directory) => directory.current.clone_from(&directory.durable),
            }
        }
        self.drop_unreachable();
        torn
    }

    /// Files whose names are durable, in order.
    pub(super) fn durable_files(&self) -> Vec<(String, Inode)> {
        let mut files = Vec::new();
        let mut open = vec![(String::new(), ROOT)];
        while let Some((path, inode)) = open.pop() {
            match self.items.get(&inode) {
                Some(Item::File(_)) => files.push((path, inode)),
                Some(Item::Directory(directory)) => {
                    let join = |name: &String| match path.as_str() {
                        "" => name.clone(),
                        path => format!("{path}/{name}"),
                    };
                    let entries = directory.durable.iter();
                    open.extend(entries.map(|(name, &inode)| (join(name), inode)));
                }
                None => {}
            }
        }
        files.sort();
        files
    }

    /// All files, with a name or without.
    pub(super) fn contents(&self) -> impl Iterator<Item = &Content> {
        self.items.values().filter_map(|item| match item {
            Item::File(content) => Some(content),
            Item::Directory(_) => None,
        })
    }

    pub(super) fn contents_mut(&mut self) -> impl Iterator<Item = &mut Content> {
        self.items.values_mut().filter_map(|item| match item {
            Item::File(content) => Some(content),
            Item::Directory(_) => None,
        })
    }

    /// The tree as only what is synced makes it, with the content of the files whose paths begin with `prefix`.
    pub(super) fn durable_only(&self, prefix: &str) -> Self {
        let mut items = BTreeMap::new();
        for (&inode, item) in &self.items {
            if let Item::Directory(directory) = item {
                let directory = Directory {
                    current: directory.durable.clone(),
                    durable: directory.durable.clone(),
                };
                items.insert(inode, Item::Directory(directory));
            }
        }
        for (path, inode) in self.durable_files() {
            let content = match self.file(inode) {
                Some(content) if path.starts_with(prefix) => content.durable_only(),
                _ => Content::default(),
            };
            items.insert(inode, Item::File(content));
        }
        Self {
            items,
            next: self.next,
            pending: Vec::new(),
        }
    }

    /// Nobody has a file open: those that no name leads to now, nor would after a power loss, are gone.
    pub(super) fn forget_removed(&mut self) {
        let mut named = BTreeSet::from([ROOT]);
        for item in self.items.values() {
            if let Item::Directory(directory) = item {
                named.extend(directory.current.values());
                named.extend(directory.durable.values());
            }
        }
        let changes = self.pending.iter().flat_map(|change| &change.entries);
        named.extend(changes.filter_map(|(_, _, inode)| *inode));
        self.items.retain(|inode, _| named.contains(inode));
    }

    /// The directory and last name of a path.
    fn place<'a>(&self, path: &'a str) -> Option<(Inode, &'a str)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.find(parent)?;
        self.directory(parent)?;
        (!name.is_empty()).then_some((parent, name))
    }

    fn add(&mut self, item: Item) -> Inode {
        let inode = self.next;
        self.next += 1;
        self.items.insert(inode, item);
        inode
    }

    fn change(&mut self, entries: Vec<(Inode, String, Option<Inode>)>) {
        for (parent, name, inode) in &entries {
            if let Some(Item::Directory(directory)) = self.items.get_mut(parent) {
                set(&mut directory.current, name, *inode);
            }
        }
        let unsynced = entries.iter().map(|(parent, ..)| *parent).collect();
        self.pending.push(Change { entries, unsynced });
    }

    fn make_durable(&mut self, changes: Vec<Change>) {
        for (parent, name, inode) in changes.into_iter().flat_map(|change| change.entries) {
            if let Some(Item::Directory(directory)) = self.items.get_mut(&parent) {
                set(&mut directory.durable, &name, inode);
            }
        }
    }

    fn drop_unreachable(&mut self) {
        let reachable = self.reachable();
        self.items.retain(|inode, _| reachable.contains(inode));
    }

    /// What the current names lead to.
    fn reachable(&self) -> BTreeSet<Inode> {
        let mut reached = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(inode) = open.pop() {
            let Some(directory) = self.directory(inode) else {
                continue;
            };
            for &child in directory.current.values() {
                if reached.insert(child) {
                    open.push(child);
                }
            }
        }
        reached
    }
}

fn set(names: &mut BTreeMap<String, Inode>, name: &str, inode: Option<Inode>) {
    match inode {
        Some(inode) => names.insert(name.to_owned(), inode),
        None => names.remove(name),
    };
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
}
