//! Profiles of this process: which functions use how much of the processors, for a while, when somebody asks.
//!
//! Owns the one sampler of the process and the shape that `pprof` reads. While nobody asks nothing runs. A timer of the
//! system interrupts whichever thread uses a processor, a hundred times a second of processor time; the stack is
//! noted, and resolved to names when the time is over, on a thread of its own.
//!
//! ```text
//! request ─► thread "profile" ─► sampler runs ─► names ─► protobuf, gzip ─► answer
//!    └── goes away ──────────────► ends early
//! ```

mod message;

use std::io::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use pprof::{Frames, ProfilerGuardBuilder};
use prost::Message as _;
use tokio::sync::oneshot;

use self::message::{Function, Sample, Span};

/// As Go's profiler.
const SAMPLES_PER_SECOND: i32 = 100;

/// Code in which a stack cannot be read for sure: what is no library with a table for it, and the reader itself.
const UNREADABLE: [&str; 3] = ["vdso", "libgcc", "ld-linux"];

/// Where stacks begin that are not the member's but those of taking a sample.
const SAMPLER: [&str; 4] = [
    "backtrace::",
    "pprof::",
    "__restore_rt",
    "perf_signal_handler",
];

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    /// One at a time.
    #[error("cpu profiling already in use")]
    InUse,
    /// The system's words, or those of the sampler.
    #[error("{0}")]
    Failed(String),
}

impl From<pprof::Error> for ProfileError {
    fn from(error: pprof::Error) -> Self {
        match error {
            pprof::Error::Running => Self::InUse,
            other => Self::Failed(other.to_string()),
        }
    }
}

/// What the processors are used for from now on, for so long: what `go tool pprof` reads. Ends early when it is
/// dropped.
pub(crate) async fn cpu(duration: Duration) -> Result<Vec<u8>, ProfileError> {
    let (answer, answered) = oneshot::channel();
    let (asking, stop) = channel();
    std::thread::Builder::new()
        .name("profile".to_owned())
        .spawn(move || {
            // Nobody may be there any more.
            let _ = answer.send(sample(duration, &stop));
        })
        .map_err(|error| ProfileError::Failed(error.to_string()))?;
    let result = answered.await;
    drop::<std::sync::mpsc::Sender<()>>(asking);
    result.map_err(|_| ProfileError::Failed("the profiler ended".to_owned()))?
}

fn sample(duration: Duration, stop: &Receiver<()>) -> Result<Vec<u8>, ProfileError> {
    let guard = ProfilerGuardBuilder::default()
        .frequency(SAMPLES_PER_SECOND)
        .blocklist(&UNREADABLE)
        .build()?;
    if stop.recv_timeout(duration) == Err(RecvTimeoutError::Disconnected) {
        return Err(ProfileError::Failed(
            "nobody waits for the profile".to_owned(),
        ));
    }
    let report = guard.report().build()?;
    let samples: Vec<_> = report
        .data
        .iter()
        .map(|(frames, &count)| stack(frames, count as i64))
        .collect();
    drop(guard);
    let span = Span {
        since_epoch: report
            .timing
            .start_time
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
        duration: report.timing.duration,
        period: Duration::from_secs(1) / SAMPLES_PER_SECOND.unsigned_abs(),
    };
    let encoded = message::profile(&samples, &span).encode_to_vec();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder
        .write_all(&encoded)
        .and_then(|()| encoder.finish())
        .map_err(|error| ProfileError::Failed(error.to_string()))
}

fn stack(frames: &Frames, count: i64) -> Sample {
    let all = frames.frames.iter().map(|symbols| {
        let functions = symbols.iter().map(|symbol| Function {
            name: symbol.name(),
            system_name: symbol.sys_name().into_owned(),
            file: symbol.filename().into_owned(),
            line: i64::from(symbol.lineno()),
        });
        functions.collect::<Vec<_>>()
    });
    Sample {
        frames: without_sampler(all.collect()),
        thread: frames.thread_name_or_id(),
        count,
    }
}

/// The frames, innermost first, from the member's own on.
fn without_sampler(mut frames: Vec<Vec<Function>>) -> Vec<Vec<Function>> {
    let is_sampler = |functions: &Vec<Function>| {
        let mut names = functions
            .iter()
            .map(|function| function.name.trim_start_matches('<'));
        names.any(|name| SAMPLER.iter().any(|prefix| name.starts_with(prefix)))
    };
    let own = frames
        .iter()
        .take_while(|functions| is_sampler(functions))
        .count();
    frames.drain(..own);
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &str) -> Vec<Function> {
        vec![Function {
            name: name.to_owned(),
            system_name: String::new(),
            file: String::new(),
            line: 0,
        }]
    }

    #[test]
    fn the_frames_of_taking_a_sample_are_no_part_of_it() {
        let names = [
            "backtrace::trace",
            "<pprof::Trace as T>::trace",
            "__restore_rt",
            "member::work",
            "backtrace::user",
        ];
        let left = without_sampler(names.map(frame).to_vec());
        assert_eq!(left, [frame("member::work"), frame("backtrace::user")]);
        assert!(without_sampler(vec![frame("pprof::a")]).is_empty());
    }
}
