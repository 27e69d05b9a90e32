//! A log file that makes way for a new one when it is full, with the file names that etcd's library gives.
//!
//! Owns the file, the names beside it, and their removal and compression, which happens on a thread of its own.
//! A line is never split between two files, and never lost because a file cannot be renamed: then the old one grows.
//!
//! ```text
//! etcd.log                                 the current one
//! etcd-2026-11-23T22-43-05.978.log         one that was full at that time, by UTC unless `localtime` is set
//! etcd-2026-11-23T20-01-44.120.log.gz      the same, compressed
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan, Zoned};

use crate::config::Rotation;

/// Of a first file; later ones have the mode of the one before.
const FILE_MODE: u32 = 0o600;
const TIME_FORMAT: &str = "%Y-%m-%dT%H-%M-%S%.3f";
const COMPRESSED: &str = ".gz";

/// The current file.
pub(super) struct RotatingFile {
    place: Place,
    file: File,
    /// How long the file is.
    bytes: u64,
    /// Wakes the thread that looks after the old files, which ends with this.
    tidier: SyncSender<()>,
}

/// What both threads know.
#[derive(Clone)]
struct Place {
    path: PathBuf,
    rotation: Rotation,
}

impl RotatingFile {
    /// Goes on with the file at `path`, or makes it.
    pub(super) fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let place = Place {
            path: path.to_owned(),
            rotation,
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(FILE_MODE)
            .open(path)?;
        let bytes = file.metadata()?.len();
        // One waiting call is enough: the thread looks at everything each time.
        let (tidier, calls) = sync_channel(1);
        let tidied = place.clone();
        std::thread::Builder::new()
            .name("log-files".to_owned())
            .spawn(move || {
                while calls.recv().is_ok() {
                    // Where would one say so? The next call tries again.
                    let _ = tidied.tidy(&tidied.now());
                }
            })?;
        let _first_look = tidier.try_send(());
        Ok(Self {
            place,
            file,
            bytes,
            tidier,
        })
    }

    /// Appends a line, to a new file if it would not fit.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let bytes = line.len() as u64;
        if self.bytes > 0 && self.bytes + bytes > self.place.rotation.bytes_max {
            // If that fails there is still the old file.
            let _ = self.rotate();
        }
        self.file.write_all(line)?;
        self.bytes += bytes;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let old = self.file.metadata()?;
        let kept = self.place.free_name(self.place.now())?;
        match fs::rename(&self.place.path, &kept) {
            // Somebody else has moved it away.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        match create_like(&self.place.path, &old) {
            Ok(file) => self.file = file,
            Err(error) => {
                let _ = fs::rename(&kept, &self.place.path);
                return Err(error);
            }
        }
        self.bytes = 0;
        // If a call waits already, it has not looked yet.
        let _ = self.tidier.try_send(());
        Ok(())
    }
}

/// A new file with mode and, as far as that is permitted, owner of another.
fn create_like(path: &Path, other: &Metadata) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        // Behind the end wherever that is: somebody else may cut the file.
        .append(true)
        .mode(other.permissions().mode() & 0o777)
        .open(path)?;
    file.set_len(0)?;
    let _ = std::os::unix::fs::fchown(&file, Some(other.uid()), Some(other.gid()));
    Ok(file)
}

/// A file that was full.
#[derive(Debug)]
struct Kept {
    time: DateTime,
    path: PathBuf,
    is_compressed: bool,
}

impl Place {
    fn now(&self) -> Zoned {
        let now = Zoned::now();
        if self.rotation.local_time {
            now
        } else {
            now.with_time_zone(TimeZone::UTC)
        }
    }

    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        }
    }

    /// What stands before and after the time in the name of a kept file.
    fn around_time(&self) -> (String, String) {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let dot = name.rfind('.').unwrap_or(name.len());
        (format!("{}-", &name[..dot]), name[dot..].to_owned())
    }

    /// A name for the current file from now on; never that of another file.
    fn free_name(&self, mut time: Zoned) -> io::Result<PathBuf> {
        let (before, after) = self.around_time();
        loop {
            let name = format!("{before}{}{after}", time.strftime(TIME_FORMAT));
            let path = self.directory().join(name);
            if !path.try_exists()? {
                return Ok(path);
            }
            time = time
                .checked_add(1.millisecond())
                .map_err(io::Error::other)?;
        }
    }

    /// The kept files, newest first.
    fn kept(&self) -> io::Result<Vec<Kept>> {
        let (before, after) = self.around_time();
        let mut kept = Vec::new();
        for entry in fs::read_dir(self.directory())? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(&before)) else {
                continue;
            };
            let (rest, is_compressed) = match rest.strip_suffix(COMPRESSED) {
                Some(rest) => (rest, true),
                None => (rest, false),
            };
            let time = rest
                .strip_suffix(after.as_str())
                .and_then(|time| DateTime::strptime(TIME_FORMAT, time).ok());
            if let Some(time) = time
                && entry.file_type()?.is_file()
            {
                kept.push(Kept {
                    time,
                    path: entry.path(),
                    is_compressed,
                });
            }
        }
        kept.sort_by_key(|kept| std::cmp::Reverse(kept.time));
        Ok(kept)
    }

    /// Removes what is too old or too many, and compresses the rest if that is asked for. Goes on after a failure and
    /// gives the first one.
    fn tidy(&self, now: &Zoned) -> io::Result<()> {
        let Rotation {
            age_days_max,
            backups_max,
            compress,
            ..
        } = self.rotation;
        if age_days_max == 0 && backups_max == 0 && !compress {
            return Ok(());
        }
        let hours = i64::try_from(age_days_max.saturating_mul(24)).unwrap_or(i64::MAX);
        let oldest = (age_days_max > 0)
            .then(|| {
                now.datetime()
                    .checked_sub(SignedDuration::from_hours(hours.min(i64::from(u32::MAX))))
            })
            .and_then(Result::ok);
        let mut result = Ok(());
        let mut times = BTreeSet::new();
        for kept in self.kept()? {
            // One that is being compressed is there twice.
            times.insert(kept.time);
            let is_one_too_many = backups_max > 0 && times.len() > backups_max;
            let is_too_old = oldest.is_some_and(|oldest| kept.time < oldest);
            let done = if is_one_too_many || is_too_old {
                fs::remove_file(&kept.path)
            } else if compress && !kept.is_compressed {
                compress_file(&kept.path)
            } else {
                Ok(())
            };
            result = result.and(done);
        }
        result
    }
}

/// Puts a compressed file in the place of one. What an attempt before has left of it is overwritten.
fn compress_file(path: &Path) -> io::Result<()> {
    let mut target = path.as_os_str().to_owned();
    target.push(COMPRESSED);
    let mut source = File::open(path)?;
    let compressed = create_like(Path::new(&target), &source.metadata()?).and_then(|file| {
        let mut encoder = GzEncoder::new(file, Compression::default());
        io::copy(&mut source, &mut encoder)?;
        encoder.finish()?;
        Ok(())
    });
    match compressed {
        Ok(()) => fs::remove_file(path),
        Err(error) => {
            let _ = fs::remove_file(&target);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const ROTATION: Rotation = Rotation {
        bytes_max: 10,
        age_days_max: 0,
        backups_max: 0,
        local_time: false,
        compress: false,
    };

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn every_line_is_in_one_file_and_no_file_grows_beyond_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/here/etcd.log");
        let mut file = RotatingFile::open(&path, ROTATION).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let lines = ["12345\n", "123\n", "a\n", "longer than a file\n", "b\n"];
        for line in lines {
            file.write(line.as_bytes()).unwrap();
        }
        let place = file.place.clone();
        let mut kept = place.kept().unwrap();
        kept.reverse();
        let mut texts: Vec<_> = kept.iter().map(|kept| text(&kept.path)).collect();
        texts.push(text(&path));
        assert_eq!(
            texts,
            ["12345\n123\n", "a\n", "longer than a file\n", "b\n"]
        );
        // Cut by somebody else, as after a logrotate that copies: lines go on from there.
        fs::write(&path, "").unwrap();
        file.write(b"c\n").unwrap();
        assert_eq!(text(&path), "c\n");
        drop(file);
        fs::write(&path, "b\n").unwrap();
        // What a process before has written counts.
        let mut file = RotatingFile::open(&path, ROTATION).unwrap();
        file.write(b"12345678\n").unwrap();
        assert_eq!(place.kept().unwrap().len(), 4);
        assert_eq!(text(&path), "12345678\n");
    }

    #[test]
    fn lines_go_on_into_the_old_file_when_there_can_be_no_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gone/log");
        let mut file = RotatingFile::open(&path, ROTATION).unwrap();
        file.write(b"12345678\n").unwrap();
        let aside = directory.path().join("aside");
        fs::rename(directory.path().join("gone"), &aside).unwrap();
        file.write(b"12345678\n").unwrap();
        assert_eq!(text(&aside.join("log")), "12345678\n12345678\n");
        fs::rename(&aside, directory.path().join("gone")).unwrap();
        file.write(b"1\n").unwrap();
        assert_eq!(text(&path), "1\n");
        // Without its name, as after a logrotate of the system.
        fs::remove_file(&path).unwrap();
        file.write(b"12345678\n").unwrap();
        assert_eq!(text(&path), "12345678\n");
    }

    /// A directory with a current file, three kept ones and two that only look so.
    fn kept_files(rotation: Rotation) -> (tempfile::TempDir, Place) {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "etcd.log",
            "etcd-2026-11-20T01-02-03.004.log.gz",
            "etcd-2026-11-21T01-02-03.004.log",
            "etcd-2026-11-22T01-02-03.004.log",
            "etcd-2026-11-22.log",
            "other-2026-11-20T01-02-03.004.log",
        ] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        let place = Place {
            path: directory.path().join("etcd.log"),
            rotation,
        };
        (directory, place)
    }

    fn noon() -> Zoned {
        "2026-11-22T12:00:00+00:00[UTC]".parse().unwrap()
    }

    #[test]
    fn a_name_carries_the_time_and_is_never_that_of_another_file() {
        let (directory, place) = kept_files(ROTATION);
        let taken: Zoned = "2026-11-21T01:02:03.0045+00:00[UTC]".parse().unwrap();
        assert_eq!(
            place.free_name(taken).unwrap(),
            directory.path().join("etcd-2026-11-21T01-02-03.005.log")
        );
        for (path, want) in [("a/etcd", ("etcd-", "")), ("a/.log", ("-", ".log"))] {
            let place = Place {
                path: path.into(),
                ..place.clone()
            };
            assert_eq!(place.around_time(), (want.0.to_owned(), want.1.to_owned()));
        }
    }

    #[test]
    fn nothing_is_removed_unless_that_is_asked_for() {
        let (directory, place) = kept_files(ROTATION);
        let before = names(directory.path());
        place.tidy(&noon()).unwrap();
        assert_eq!(names(directory.path()), before);
    }

    #[test]
    fn too_many_files_lose_the_oldest_and_old_files_go_by_their_names() {
        let by_number = Rotation {
            backups_max: 2,
            ..ROTATION
        };
        let by_age = Rotation {
            age_days_max: 2,
            ..ROTATION
        };
        for rotation in [by_number, by_age] {
            let (directory, place) = kept_files(rotation);
            let mut want = names(directory.path());
            want.retain(|name| name != "etcd-2026-11-20T01-02-03.004.log.gz");
            place.tidy(&noon()).unwrap();
            assert_eq!(names(directory.path()), want, "{rotation:?}");
        }
    }

    #[test]
    fn kept_files_are_compressed_and_half_a_compressed_one_is_made_anew() {
        let (directory, place) = kept_files(Rotation {
            compress: true,
            backups_max: 3,
            ..ROTATION
        });
        let name = "etcd-2026-11-22T01-02-03.004.log";
        let compressed = directory.path().join(format!("{name}.gz"));
        fs::write(&compressed, "half").unwrap();
        place.tidy(&noon()).unwrap();
        let kept = place.kept().unwrap();
        assert!(
            kept.len() == 3 && kept.iter().all(|kept| kept.is_compressed),
            "{kept:?}"
        );
        let mut decoded = String::new();
        flate2::read::GzDecoder::new(File::open(compressed).unwrap())
            .read_to_string(&mut decoded)
            .unwrap();
        assert_eq!(decoded, name);
    }
}
