//! A disk in memory that never fails.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use quorate_core::disk::{Disk, DiskError, DiskErrorKind, DiskFile};

type Content = Rc<RefCell<Vec<u8>>>;

/// Files by path.
#[derive(Clone, Default)]
pub(crate) struct MemoryDisk(Rc<RefCell<BTreeMap<String, Content>>>);

/// One of them.
pub(crate) struct MemoryFile(Content);

fn not_found(operation: &'static str, path: &str) -> DiskError {
    DiskError {
        operation,
        path: path.to_owned(),
        kind: DiskErrorKind::NotFound,
        message: "not found".to_owned(),
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    fn list(&self, directory: &str) -> Result<Vec<String>, DiskError> {
        let files = self.0.borrow();
        let names = files
            .keys()
            .filter_map(|path| path.strip_prefix(directory)?.strip_prefix('/'));
        Ok(names.map(str::to_owned).collect())
    }

    fn make_directory(&mut self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn create(&mut self, path: &str, length: u64) -> Result<MemoryFile, DiskError> {
        let content = Rc::new(RefCell::new(vec![0; length as usize]));
        let file = MemoryFile(Rc::clone(&content));
        self.0.borrow_mut().insert(path.to_owned(), content);
        Ok(file)
    }

    fn open(&mut self, path: &str) -> Result<MemoryFile, DiskError> {
        let files = self.0.borrow();
        let file = files.get(path).ok_or_else(|| not_found("open", path))?;
        Ok(MemoryFile(Rc::clone(file)))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut files = self.0.borrow_mut();
        let file = files
            .remove(from)
            .ok_or_else(|| not_found("rename", from))?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Result<(), DiskError> {
        let removed = self.0.borrow_mut().remove(path);
        removed.map(drop).ok_or_else(|| not_found("remove", path))
    }

    fn sync_directory(&mut self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn length(&self) -> u64 {
        self.0.borrow().len() as u64
    }

    fn read(&self) -> Result<Bytes, DiskError> {
        Ok(Bytes::copy_from_slice(&self.0.borrow()))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut content = self.0.borrow_mut();
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if content.len() < end {
            content.resize(end, 0);
        }
        content[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> Result<(), DiskError> {
        self.0.borrow_mut().resize(length as usize, 0);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}
