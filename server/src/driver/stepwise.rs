//! A disk for work in the background: checkpoints, and segments that are filled with zeros ahead of use.
//!
//! Hundreds of megabytes that reach the device at once hold up every sync of the log behind them. So what is written
//! through this disk becomes durable in small steps. It never changes what is written.

use bytes::Bytes;
use quorate_core::disk::{Disk, DiskError, DiskFile};

/// Bytes of a step: a millisecond or a few of a usual device.
const STEP_BYTES: u64 = 1 << 20;

/// A disk that is written in steps.
#[derive(Clone, Debug)]
pub(crate) struct Stepwise<D>(pub(crate) D);

/// A file of it.
#[derive(Debug)]
pub(crate) struct StepwiseFile<F> {
    file: F,
    /// Bytes written since the last step.
    unsynced: u64,
}

impl<F> StepwiseFile<F> {
    fn new(file: F) -> Self {
        Self { file, unsynced: 0 }
    }

    /// The file as the disk below knows it.
    pub(crate) fn into_inner(self) -> F {
        self.file
    }
}

impl<F: DiskFile> StepwiseFile<F> {
    /// Counts what was written; ends the step when it is large enough.
    fn on_written(&mut self, bytes: u64) -> Result<(), DiskError> {
        self.unsynced += bytes;
        if self.unsynced >= STEP_BYTES {
            self.sync()?;
        }
        Ok(())
    }
}

impl<D: Disk> Disk for Stepwise<D> {
    type File = StepwiseFile<D::File>;

    fn list(&self, directory: &str) -> Result<Vec<String>, DiskError> {
        self.0.list(directory)
    }

    fn make_directory(&mut self, directory: &str) -> Result<(), DiskError> {
        self.0.make_directory(directory)
    }

    fn create(&mut self, path: &str, length: u64) -> Result<Self::File, DiskError> {
        let mut file = StepwiseFile::new(self.0.create(path, 0)?);
        if let Err(error) = file.truncate(length) {
            // Not half a file in the way, least of all on a full disk. It matters little if this fails too.
            let _ = self.0.remove(path);
            return Err(error);
        }
        Ok(file)
    }

    fn open(&mut self, path: &str) -> Result<Self::File, DiskError> {
        self.0.open(path).map(StepwiseFile::new)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        self.0.rename(from, to)
    }

    fn remove(&mut self, path: &str) -> Result<(), DiskError> {
        self.0.remove(path)
    }

    fn sync_directory(&mut self, directory: &str) -> Result<(), DiskError> {
        self.0.sync_directory(directory)
    }
}

impl<F: DiskFile> DiskFile for StepwiseFile<F> {
    fn length(&self) -> u64 {
        self.file.length()
    }

    fn read(&self) -> Result<Bytes, DiskError> {
        self.file.read()
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_at(offset, bytes)?;
        self.on_written(bytes.len() as u64)
    }

    fn truncate(&mut self, length: u64) -> Result<(), DiskError> {
        while self.file.length() < length {
            let step = (length - self.file.length()).min(STEP_BYTES);
            self.file.truncate(self.file.length() + step)?;
            self.on_written(step)?;
        }
        self.file.truncate(length)
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        self.unsynced = 0;
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MmapDisk;

    fn disk() -> (tempfile::TempDir, Stepwise<MmapDisk>) {
        let directory = tempfile::tempdir().unwrap();
        let disk = MmapDisk::open(directory.path().join("data")).unwrap();
        (directory, Stepwise(disk))
    }

    #[test]
    fn what_is_written_in_steps_is_all_there() {
        let (_directory, mut disk) = disk();
        let length = 2 * STEP_BYTES + 17;
        let mut file = disk.create("file", length).unwrap();
        assert_eq!(file.length(), length);
        assert!(file.read().unwrap().iter().all(|byte| *byte == 0));
        let bytes = vec![7; STEP_BYTES as usize + 1];
        file.write_at(STEP_BYTES, &bytes).unwrap();
        file.truncate(2 * STEP_BYTES).unwrap();
        file.sync().unwrap();
        let read = disk.open("file").unwrap().into_inner().read().unwrap();
        assert_eq!(read.len() as u64, 2 * STEP_BYTES);
        let (zeros, sevens) = read.split_at(STEP_BYTES as usize);
        assert!(zeros.iter().all(|byte| *byte == 0));
        assert!(sevens.iter().all(|byte| *byte == 7));
    }
}
