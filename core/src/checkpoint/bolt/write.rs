//! Writes a dense image in one pass, in key order, in bounded memory.
//!
//! Only the page being filled on each level of a tree is in memory, plus [`BUFFER_BYTES`] of finished pages (and
//! a page run for items larger than a page). The meta pages are written last: until then the file starts with
//! zeros, which no reader takes for an image.

use bytes::Bytes;

use super::{
    BUCKET_HEADER, ELEMENT, FLAG_BRANCH, FLAG_FREELIST, FLAG_LEAF, FLAG_META, ITEM_BUCKET,
    KEY_BYTES_MAX, Meta, Seal,
};
use super::{PAGE_HEADER, PAGE_SIZE, TXID};
use crate::disk::{DiskError, DiskErrorKind, DiskFile};

/// Finished pages are handed to the disk in writes of about this size.
const BUFFER_BYTES: usize = 1 << 20;

/// Pages are filled to 90 %, as etcd fills the `key` bucket, so that its later changes in place do not split
/// every page at once.
const FILL_BYTES: usize = PAGE_SIZE * 9 / 10;

/// bbolt puts a small bucket into its parent's page when it takes at most this.
const INLINE_BYTES_MAX: usize = PAGE_SIZE / 4;

/// Page 2; the content follows it.
const FREELIST_PAGE: u64 = 2;

/// Writes an image: buckets in name order, in each its pairs in key order.
#[derive(Debug)]
pub struct Writer<F> {
    pages: PageWriter<F>,
    root: Tree,
    /// The bucket that is being written.
    bucket: Option<(Vec<u8>, Tree)>,
    hash: u32,
    pairs: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The image's length.
    pub bytes: u64,
    /// CRC-32C over each bucket's name, keys and values: what `etcdutl snapshot status` shows.
    pub hash: u32,
    /// Key-value pairs in all buckets.
    pub pairs: u64,
}

impl<F: DiskFile> Writer<F> {
    /// Begins an image in an empty file.
    pub fn new(file: F) -> Result<Self, DiskError> {
        assert_eq!(file.length(), 0, "an image goes into an empty file");
        let mut pages = PageWriter {
            file,
            buffer: Vec::new(),
            buffer_page: FREELIST_PAGE,
            next: FREELIST_PAGE,
            sum: crc32fast::Hasher::new(),
        };
        pages.append(&Node::new(FLAG_FREELIST))?;
        Ok(Self {
            pages,
            root: Tree::new(),
            bucket: None,
            hash: 0,
            pairs: 0,
        })
    }

    /// Ends the bucket before, and begins one whose name is greater.
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), DiskError> {
        check_key(name)?;
        self.end_bucket()?;
        self.hash = crc32c::crc32c_append(self.hash, name);
        self.bucket = Some((name.to_vec(), Tree::new()));
        Ok(())
    }

    /// Adds a pair to the bucket; its key is greater than the one before.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), DiskError> {
        check_key(key)?;
        let (_, tree) = self.bucket.as_mut().expect("pairs belong to a bucket");
        self.hash = crc32c::crc32c_append(crc32c::crc32c_append(self.hash, key), value);
        self.pairs += 1;
        tree.put(&mut self.pages, 0, key, value)
    }

    /// Ends the image and hands the file back, not yet synced.
    pub fn finish(mut self) -> Result<(F, Written), DiskError> {
        self.end_bucket()?;
        let root = self.root.finish(&mut self.pages)?;
        let written = Written {
            bytes: self.pages.next * PAGE_SIZE as u64,
            hash: self.hash,
            pairs: self.pairs,
        };
        Ok((self.pages.finish(root)?, written))
    }

    fn end_bucket(&mut self) -> Result<(), DiskError> {
        let Some((name, tree)) = self.bucket.take() else {
            return Ok(());
        };
        let mut value = vec![0; BUCKET_HEADER];
        if tree.is_inline() {
            tree.leaf.encode(0, 0, &mut value);
        } else {
            let root = tree.finish(&mut self.pages)?;
            value[..8].copy_from_slice(&root.to_le_bytes());
        }
        self.root.put(&mut self.pages, ITEM_BUCKET, &name, &value)
    }
}

/// Keys come from requests (user and role names), so that a key which the format cannot hold is an error of the
/// world and not of the program.
fn check_key(key: &[u8]) -> Result<(), DiskError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(DiskError {
            operation: "write",
            path: "database image".to_owned(),
            kind: DiskErrorKind::Failed,
            message: format!(
                "a key of {} bytes, expected 1 to {KEY_BYTES_MAX}",
                key.len()
            ),
        });
    }
    Ok(())
}

/// One bucket's tree, built from its leaves up.
#[derive(Debug)]
struct Tree {
    leaf: Node,
    /// The branch being filled on each level above the leaves.
    branches: Vec<Node>,
}

impl Tree {
    fn new() -> Self {
        Self {
            leaf: Node::new(FLAG_LEAF),
            branches: Vec::new(),
        }
    }

    fn is_inline(&self) -> bool {
        self.branches.is_empty() && self.leaf.size() <= INLINE_BYTES_MAX
    }

    fn put<F: DiskFile>(
        &mut self,
        pages: &mut PageWriter<F>,
        flags: u32,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), DiskError> {
        assert!(self.leaf.last_key() < key, "keys come in order");
        // Two items at least, so that a value a little over half a page does not waste the other half.
        if self.leaf.elements.len() >= 2 && !self.leaf.has_room(key.len() + value.len()) {
            let page = pages.append(&self.leaf)?;
            let first = self.leaf.first_key().to_vec();
            self.leaf.clear();
            self.add_child(pages, 0, &first, page)?;
        }
        self.leaf.push(u64::from(flags), key, value);
        Ok(())
    }

    /// Adds a finished page to the branch on `level`.
    fn add_child<F: DiskFile>(
        &mut self,
        pages: &mut PageWriter<F>,
        level: usize,
        key: &[u8],
        page: u64,
    ) -> Result<(), DiskError> {
        if level == self.branches.len() {
            self.branches.push(Node::new(FLAG_BRANCH));
        }
        let branch = &mut self.branches[level];
        if branch.elements.len() >= 3 && !branch.has_room(key.len()) {
            // The last child moves on, so that no branch ends up with a single one.
            let (moved_key, moved_page) = branch.pop();
            let full = pages.append(branch)?;
            let first = branch.first_key().to_vec();
            branch.clear();
            branch.push(moved_page, &moved_key, &[]);
            branch.push(page, key, &[]);
            return self.add_child(pages, level + 1, &first, full);
        }
        branch.push(page, key, &[]);
        Ok(())
    }

    /// Writes what is left, and gives the root's page.
    fn finish<F: DiskFile>(mut self, pages: &mut PageWriter<F>) -> Result<u64, DiskError> {
        let mut page = pages.append(&self.leaf)?;
        let mut first = self.leaf.first_key().to_vec();
        let mut level = 0;
        while level < self.branches.len() {
            self.add_child(pages, level, &first, page)?;
            let branch = &self.branches[level];
            page = pages.append(branch)?;
            first = branch.first_key().to_vec();
            level += 1;
        }
        Ok(page)
    }
}

/// A page in the making.
#[derive(Debug)]
struct Node {
    flags: u16,
    elements: Vec<Element>,
    /// Keys and values, one after the other.
    content: Vec<u8>,
    /// The last key of the page before; empty when there is none.
    previous: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Element {
    /// A leaf item's flags; a branch's child page.
    number: u64,
    key_length: usize,
    value_length: usize,
}

impl Node {
    fn new(flags: u16) -> Self {
        Self {
            flags,
            elements: Vec::new(),
            content: Vec::new(),
            previous: Vec::new(),
        }
    }

    fn size(&self) -> usize {
        PAGE_HEADER + self.elements.len() * ELEMENT + self.content.len()
    }

    fn has_room(&self, content_bytes: usize) -> bool {
        self.size() + ELEMENT + content_bytes <= FILL_BYTES
    }

    fn first_key(&self) -> &[u8] {
        self.elements
            .first()
            .map_or(&[], |element| &self.content[..element.key_length])
    }

    /// The last key written to this level of the tree; empty when there is none.
    fn last_key(&self) -> &[u8] {
        let Some(last) = self.elements.last() else {
            return &self.previous;
        };
        let start = self.content.len() - last.value_length - last.key_length;
        &self.content[start..start + last.key_length]
    }

    fn push(&mut self, number: u64, key: &[u8], value: &[u8]) {
        self.elements.push(Element {
            number,
            key_length: key.len(),
            value_length: value.len(),
        });
        self.content.extend_from_slice(key);
        self.content.extend_from_slice(value);
    }

    /// Takes a branch's last child away.
    fn pop(&mut self) -> (Vec<u8>, u64) {
        let last = self.elements.pop().expect("the caller counted");
        let key = self.content.split_off(self.content.len() - last.key_length);
        (key, last.number)
    }

    fn clear(&mut self) {
        self.previous = self.last_key().to_vec();
        self.elements.clear();
        self.content.clear();
        // One huge value must not hold its memory until the end.
        self.content.shrink_to(BUFFER_BYTES);
    }

    /// Appends the page's bytes, without the padding at its end.
    fn encode(&self, id: u64, overflow: u32, out: &mut Vec<u8>) {
        let count = u16::try_from(self.elements.len()).expect("elements of 16 bytes in one page");
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&overflow.to_le_bytes());
        let length = |bytes: usize| {
            u32::try_from(bytes).expect("values are below 2 GiB, and a page holds two large ones")
        };
        let mut content_at = 0;
        for (index, element) in self.elements.iter().enumerate() {
            let position =
                length((self.elements.len() - index) * ELEMENT + content_at).to_le_bytes();
            let key_length = length(element.key_length).to_le_bytes();
            if self.flags == FLAG_LEAF {
                let flags = u32::try_from(element.number).expect("pushed as a u32");
                let value_length = length(element.value_length).to_le_bytes();
                for field in [flags.to_le_bytes(), position, key_length, value_length] {
                    out.extend_from_slice(&field);
                }
            } else {
                out.extend_from_slice(&position);
                out.extend_from_slice(&key_length);
                out.extend_from_slice(&element.number.to_le_bytes());
            }
            content_at += element.key_length + element.value_length;
        }
        out.extend_from_slice(&self.content);
    }
}

/// Hands out page numbers and writes pages in their order.
#[derive(Debug)]
struct PageWriter<F> {
    file: F,
    /// Finished pages that the file does not have yet.
    buffer: Vec<u8>,
    /// The first page in the buffer.
    buffer_page: u64,
    /// The next free page.
    next: u64,
    /// CRC-32C of all pages that the file has.
    sum: crc32fast::Hasher,
}

impl<F: DiskFile> PageWriter<F> {
    fn append(&mut self, node: &Node) -> Result<u64, DiskError> {
        let id = self.next;
        let pages = node.size().div_ceil(PAGE_SIZE);
        let overflow = u32::try_from(pages - 1).expect("values are below 2 GiB");
        let end = self.buffer.len() + pages * PAGE_SIZE;
        node.encode(id, overflow, &mut self.buffer);
        self.buffer.resize(end, 0);
        self.next += pages as u64;
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_buffer()?;
        }
        Ok(id)
    }

    fn write_buffer(&mut self) -> Result<(), DiskError> {
        self.file
            .write_at(self.buffer_page * PAGE_SIZE as u64, &self.buffer)?;
        self.sum.update(&self.buffer);
        self.buffer_page = self.next;
        self.buffer.clear();
        self.buffer.shrink_to(2 * BUFFER_BYTES);
        Ok(())
    }

    fn finish(mut self, root: u64) -> Result<F, DiskError> {
        self.write_buffer()?;
        let meta = Meta {
            page_size: PAGE_SIZE as u32,
            root,
            freelist: FREELIST_PAGE,
            high_water: self.next,
            txid: TXID,
        };
        let seal = Seal {
            sum: self.sum.finalize(),
        };
        let mut both = Vec::with_capacity(2 * PAGE_SIZE);
        for (page, txid) in [(0, TXID), (1, TXID - 1)] {
            Node::new(FLAG_META).encode(page, 0, &mut both);
            both.extend_from_slice(
                &Meta {
                    txid,
                    ..meta.clone()
                }
                .encode(),
            );
            both.extend_from_slice(&seal.encode());
            both.resize((page as usize + 1) * PAGE_SIZE, 0);
        }
        self.file.write_at(0, &both)?;
        Ok(self.file)
    }
}

/// A file that is a buffer: for images that are sent or tested rather than stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryFile(pub Vec<u8>);

impl DiskFile for MemoryFile {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self) -> Result<Bytes, DiskError> {
        Ok(Bytes::copy_from_slice(&self.0))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let start = usize::try_from(offset).expect("a buffer's offsets fit");
        let end = start + bytes.len();
        if self.0.len() < end {
            self.0.resize(end, 0);
        }
        self.0[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> Result<(), DiskError> {
        self.0
            .resize(usize::try_from(length).expect("a buffer's offsets fit"), 0);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}
