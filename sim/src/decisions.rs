//! The decisions of a run: everything that was left to chance, and the same run with some of it decided otherwise.
//!
//! Chance is only ever drawn from a [`Stream`](crate::random::Stream), whose draws are a function of (seed, purpose, node,
//! counter). So a log of a run need not hold the draws: it holds which streams were drawn from and how often, and
//! [`Log::drawn`] gives any of them back. A log with edits is another run, as exactly determined as the first: each edit
//! is a draw that comes out otherwise. Nothing is recorded unless a run is made through [`record`], and a stream that was
//! made outside costs no more than a comparison.
//!
//! ```text
//! decisions 1
//! seed 4711
//! stream 4 13224969916287180189 802        purpose, node, draws
//! edit 4 13224969916287180189 17 0         purpose, node, which draw, what it is
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::random;

thread_local! {
    /// The recorder of the run that is made on this thread.
    static BOOK: RefCell<Option<Book>> = const { RefCell::new(None) };
}

/// One draw: the purpose of its stream, its node, and which of its draws, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decision {
    /// The [`Purpose`](crate::random::Purpose), as a number.
    pub purpose: u64,
    /// The node, client or fault.
    pub node: u64,
    /// Its place among the draws of the stream, from 1.
    pub counter: u64,
}

/// Draws that come out otherwise.
pub type Edits = BTreeMap<Decision, u64>;

/// What was left to chance in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The seed.
    pub seed: u64,
    /// How many draws were made from the stream of each (purpose, node).
    pub streams: BTreeMap<(u64, u64), u64>,
    /// The draws that came out otherwise than the seed says.
    pub edits: Edits,
}

/// A log that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogError {
    /// The line, from 1.
    pub line: usize,
}

#[derive(Debug, Default)]
struct Book {
    /// (purpose, node, draws) of each stream that was made; a stream's number is its place plus one.
    streams: Vec<(u64, u64, u64)>,
    numbers: BTreeMap<(u64, u64), u32>,
    edits: Edits,
    /// Edits that a draw has met.
    met: Edits,
}

/// Does something that draws from streams of `seed` that it makes itself, with these edits. Returns what came of it and
/// the log of it.
pub fn record<T>(seed: u64, edits: Edits, run: impl FnOnce() -> T) -> (T, Log) {
    let book = Book {
        edits,
        ..Book::default()
    };
    let before = BOOK.replace(Some(book));
    let result = run();
    let book = BOOK.replace(before).expect("the book that was put there");
    let streams = book.streams.iter().filter(|(_, _, draws)| *draws > 0);
    let log = Log {
        seed,
        streams: streams
            .map(|&(purpose, node, draws)| ((purpose, node), draws))
            .collect(),
        edits: book.met,
    };
    (result, log)
}

/// A stream is made. Its number, or 0 if nobody records.
pub(crate) fn on_stream(purpose: u64, node: u64) -> u32 {
    BOOK.with_borrow_mut(|book| {
        let Some(book) = book else { return 0 };
        let next = u32::try_from(book.streams.len() + 1).expect("few streams");
        let number = *book.numbers.entry((purpose, node)).or_insert(next);
        if number == next {
            book.streams.push((purpose, node, 0));
        }
        number
    })
}

/// A stream with a number is drawn from: what comes out.
pub(crate) fn on_draw(number: u32, counter: u64, value: u64) -> u64 {
    BOOK.with_borrow_mut(|book| {
        let Some(book) = book else { return value };
        let (purpose, node, draws) = &mut book.streams[number as usize - 1];
        *draws = counter.max(*draws);
        let decision = Decision {
            purpose: *purpose,
            node: *node,
            counter,
        };
        let Some(&edited) = book.edits.get(&decision) else {
            return value;
        };
        book.met.insert(decision, edited);
        edited
    })
}

impl Log {
    /// What a draw came to; `None` if the run did not make it.
    pub fn drawn(&self, decision: Decision) -> Option<u64> {
        let Decision {
            purpose,
            node,
            counter,
        } = decision;
        let draws = *self.streams.get(&(purpose, node))?;
        if counter == 0 || counter > draws {
            return None;
        }
        let edited = self.edits.get(&decision).copied();
        Some(edited.unwrap_or_else(|| random::draw_at(self.seed, purpose, node, counter)))
    }

    /// Every draw of the run, stream by stream.
    pub fn decisions(&self) -> impl Iterator<Item = Decision> {
        self.streams.iter().flat_map(|(&(purpose, node), &draws)| {
            (1..=draws).map(move |counter| Decision {
                purpose,
                node,
                counter,
            })
        })
    }

    /// Makes the run again, with the edits that it had and these.
    pub fn replay<T>(&self, more: &Edits, run: impl FnOnce() -> T) -> (T, Log) {
        let mut edits = self.edits.clone();
        edits.extend(more);
        record(self.seed, edits, run)
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "decisions 1\nseed {}", self.seed)?;
        for ((purpose, node), draws) in &self.streams {
            writeln!(f, "stream {purpose} {node} {draws}")?;
        }
        for (edit, value) in &self.edits {
            let Decision {
                purpose,
                node,
                counter,
            } = edit;
            writeln!(f, "edit {purpose} {node} {counter} {value}")?;
        }
        Ok(())
    }
}

impl FromStr for Log {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        let mut log = Self::default();
        for (line, content) in (1..).zip(text.lines()) {
            let error = LogError { line };
            let (word, rest) = content.split_once(' ').ok_or(error.clone())?;
            let numbers: Result<Vec<u64>, _> = rest.split(' ').map(str::parse).collect();
            match (word, numbers.map_err(|_| error.clone())?.as_slice()) {
                ("decisions", [1]) if line == 1 => {}
                ("seed", &[seed]) if line == 2 => log.seed = seed,
                ("stream", &[purpose, node, draws]) if line > 2 => {
                    log.streams.insert((purpose, node), draws);
                }
                ("edit", &[purpose, node, counter, value]) if line > 2 => {
                    let decision = Decision {
                        purpose,
                        node,
                        counter,
                    };
                    log.edits.insert(decision, value);
                }
                _ => return Err(error),
            }
        }
        match text.lines().count() {
            0 | 1 => Err(LogError { line: 1 }),
            _ => Ok(log),
        }
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} is none of a log of decisions", self.line)
    }
}

impl std::error::Error for LogError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::random::Purpose;
    use crate::run::{SeedReport, run_options, run_seed};

    fn run(seed: u64) -> SeedReport {
        run_options(seed, Options::draw(seed), false)
    }

    #[test]
    fn a_log_replayed_is_the_same_run() {
        for seed in 20..24 {
            let plain = run_seed(seed, false);
            let (first, log) = record(seed, Edits::new(), || run(seed));
            assert_eq!(first.hash, plain.hash, "recording changes nothing");
            let text = log.to_string();
            let (again, log_again) = text
                .parse::<Log>()
                .unwrap()
                .replay(&Edits::new(), || run(seed));
            assert_eq!(again.hash, plain.hash);
            assert_eq!(log_again, log);
            assert!(text.len() < 20_000, "{} bytes", text.len());
        }
    }

    #[test]
    fn an_edit_changes_the_run_and_is_part_of_its_log() {
        let seed = 21;
        let (first, log) = record(seed, Edits::new(), || run(seed));
        let client = |decision: &Decision| decision.purpose == Purpose::Client as u64;
        let decision = log.decisions().find(client).expect("clients draw");
        let value = log.drawn(decision).unwrap();
        let (same, _) = log.replay(&Edits::from([(decision, value)]), || run(seed));
        assert_eq!(same.hash, first.hash, "what the seed says anyway");
        let edits = Edits::from([(decision, !value)]);
        let (edited, edited_log) = log.replay(&edits, || run(seed));
        assert_ne!(edited.hash, first.hash);
        assert_eq!(edited_log.drawn(decision), Some(!value));
        let text = edited_log.to_string();
        let again = text.parse::<Log>().unwrap();
        assert_eq!(again, edited_log);
        let (again, _) = again.replay(&Edits::new(), || run(seed));
        assert_eq!(again.hash, edited.hash);
    }

    #[test]
    fn an_edit_of_what_is_never_drawn_is_none() {
        let nowhere = Decision {
            purpose: 1,
            node: 99,
            counter: 1,
        };
        let (report, log) = record(20, Edits::from([(nowhere, 0)]), || run(20));
        assert_eq!(report.hash, run_seed(20, false).hash);
        assert!(log.edits.is_empty());
        assert_eq!(log.drawn(nowhere), None);
    }

    #[test]
    fn what_is_no_log_is_refused_with_its_line() {
        for (text, line) in [
            ("", 1),
            ("decisions 1\n", 1),
            ("decisions 2\nseed 1\n", 1),
            ("decisions 1\nseed x\n", 2),
            ("decisions 1\nseed 1\nstream 1 2\n", 3),
            ("decisions 1\nseed 1\nedit 1 2 3 4\nnothing 1\n", 4),
        ] {
            assert_eq!(text.parse::<Log>(), Err(LogError { line }), "{text:?}");
        }
    }
}
