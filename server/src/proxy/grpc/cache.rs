//! Answers to serializable ranges, kept until something is written to the range through this proxy.
//!
//! Owns what is kept and when it is thrown away. What others write past this proxy is not seen: serializable reads may
//! be stale, and here they may be so for a few seconds (in etcd's proxy for as long as an answer is asked for). An answer
//! is kept for its caller alone, since the next one may not be allowed to read it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::etcdserverpb as pb;

use super::upstream::Caller;

/// As many answers as etcd's proxy keeps.
const ENTRIES_MAX: usize = 2048;
/// A larger answer, its question included, is not worth its memory.
const ENTRY_BYTES_MAX: usize = 64 * 1024;
/// For so long an answer is given: what has changed meanwhile past this proxy, data or permissions, shows after that.
const AGE_MAX: Duration = Duration::from_secs(5);

type Question = (Caller, Vec<u8>);

/// The answers.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    by_question: HashMap<Question, Entry>,
    /// Which question was used when; the first one goes when there is no more room.
    by_use: BTreeMap<u64, Question>,
    uses: u64,
    /// Counts what was thrown away, so that an answer from before that is not kept.
    generation: u64,
    /// What was compacted through this proxy.
    compacted: i64,
}

#[derive(Debug)]
struct Entry {
    answer: pb::RangeResponse,
    key: Bytes,
    range_end: Bytes,
    /// 0 for the newest, which writes change.
    revision: i64,
    used: u64,
    kept: Instant,
}

/// When a question was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked(u64);

impl Cache {
    /// The answer, if there is one, and when it was asked for.
    pub(super) fn look_up(
        &self,
        caller: &Caller,
        request: &pb::RangeRequest,
    ) -> (Option<pb::RangeResponse>, Asked) {
        let mut entries = self.lock();
        let asked = Asked(entries.generation);
        let question = question(caller, request);
        (entries.use_again(&question), asked)
    }

    /// Keeps an answer, unless something was written since it was asked for.
    pub(super) fn keep(
        &self,
        caller: &Caller,
        request: &pb::RangeRequest,
        asked: Asked,
        answer: &pb::RangeResponse,
    ) {
        let mut entries = self.lock();
        let is_compacted = request.revision > 0 && request.revision < entries.compacted;
        let question = question(caller, request);
        let bytes = answer.encoded_len() + question.1.len();
        let revision_of =
            |answer: &pb::RangeResponse| answer.header.as_ref().map_or(0, |header| header.revision);
        let known = entries.by_question.get(&question);
        // A member that lags may answer after one that does not.
        let is_older = known.is_some_and(|known| revision_of(&known.answer) > revision_of(answer));
        if entries.generation != asked.0 || is_compacted || is_older || bytes > ENTRY_BYTES_MAX {
            return;
        }
        entries.uses += 1;
        let used = entries.uses;
        let entry = Entry {
            answer: answer.clone(),
            key: request.key.clone(),
            range_end: request.range_end.clone(),
            revision: request.revision.max(0),
            used,
            kept: Instant::now(),
        };
        if let Some(before) = entries.by_question.insert(question.clone(), entry) {
            entries.by_use.remove(&before.used);
        }
        entries.by_use.insert(used, question);
        if entries.by_use.len() > ENTRIES_MAX
            && let Some((_, oldest)) = entries.by_use.pop_first()
        {
            entries.by_question.remove(&oldest);
        }
    }

    /// Throws away what a write to the range may have changed.
    pub(super) fn invalidate(&self, key: &[u8], range_end: &[u8]) {
        self.throw_away(|entry| {
            entry.revision == 0 && overlap((key, range_end), (&entry.key, &entry.range_end))
        });
    }

    /// Throws away what has been compacted.
    pub(super) fn compact(&self, revision: i64) {
        self.throw_away(|entry| entry.revision > 0 && entry.revision < revision);
        let mut entries = self.lock();
        entries.compacted = entries.compacted.max(revision);
    }

    /// How many answers there are.
    pub(super) fn len(&self) -> usize {
        self.lock().by_use.len()
    }

    fn throw_away(&self, is_stale: impl Fn(&Entry) -> bool) {
        let mut entries = self.lock();
        let entries = &mut *entries;
        entries.generation += 1;
        let by_use = &mut entries.by_use;
        entries.by_question.retain(|_, entry| {
            let is_stale = is_stale(entry);
            if is_stale {
                by_use.remove(&entry.used);
            }
            !is_stale
        });
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn use_again(&mut self, question: &Question) -> Option<pb::RangeResponse> {
        let entry = self.by_question.get_mut(question)?;
        if entry.kept.elapsed() > AGE_MAX {
            self.by_use.remove(&entry.used);
            self.by_question.remove(question);
            return None;
        }
        self.uses += 1;
        let question = self.by_use.remove(&entry.used)?;
        entry.used = self.uses;
        self.by_use.insert(self.uses, question);
        Some(entry.answer.clone())
    }
}

/// Linearizable reads answer serializable ones, too.
fn question(caller: &Caller, request: &pb::RangeRequest) -> Question {
    let asked = pb::RangeRequest {
        serializable: true,
        ..request.clone()
    };
    (caller.clone(), asked.encode_to_vec())
}

/// Whether two ranges have a key in common.
fn overlap(one: (&[u8], &[u8]), other: (&[u8], &[u8])) -> bool {
    let ends_after = |(first, end): (&[u8], &[u8]), key: &[u8]| match end {
        b"" => key <= first,
        b"\0" => true,
        end => key < end,
    };
    ends_after(one, other.0) && ends_after(other, one.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &str, end: &str) -> pb::RangeRequest {
        pb::RangeRequest {
            key: key.to_owned().into(),
            range_end: end.to_owned().into(),
            ..pb::RangeRequest::default()
        }
    }

    fn answer(count: i64) -> pb::RangeResponse {
        pb::RangeResponse {
            count,
            ..pb::RangeResponse::default()
        }
    }

    fn kept(cache: &Cache, request: &pb::RangeRequest) -> Option<i64> {
        let (found, _) = cache.look_up(&Caller::default(), request);
        found.map(|answer| answer.count)
    }

    fn keep(cache: &Cache, request: &pb::RangeRequest, count: i64) {
        let caller = Caller::default();
        let (_, asked) = cache.look_up(&caller, request);
        cache.keep(&caller, request, asked, &answer(count));
    }

    #[test]
    fn a_write_throws_away_the_ranges_that_it_is_in() {
        let cache = Cache::default();
        let ranges = [
            range("a", ""),
            range("a", "c"),
            range("b", "\0"),
            range("c", "d"),
        ];
        for (number, request) in (1..).zip(&ranges) {
            keep(&cache, request, number);
        }
        cache.invalidate(b"b", b"");
        let left: Vec<_> = ranges.iter().map(|request| kept(&cache, request)).collect();
        assert_eq!(left, [Some(1), None, None, Some(4)]);
        cache.invalidate(b"a", b"\0");
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn an_answer_from_before_a_write_is_not_kept() {
        let cache = Cache::default();
        let (caller, request) = (Caller::default(), range("a", ""));
        let (_, asked) = cache.look_up(&caller, &request);
        cache.invalidate(b"a", b"");
        cache.keep(&caller, &request, asked, &answer(1));
        assert_eq!(kept(&cache, &request), None);
    }

    #[test]
    fn an_older_answer_does_not_replace_a_newer_one() {
        let cache = Cache::default();
        let (caller, request) = (Caller::default(), range("a", ""));
        let (_, asked) = cache.look_up(&caller, &request);
        for revision in [5, 4] {
            let header = pb::ResponseHeader {
                revision,
                ..pb::ResponseHeader::default()
            };
            let answer = pb::RangeResponse {
                header: Some(header),
                ..answer(revision)
            };
            cache.keep(&caller, &request, asked, &answer);
        }
        assert_eq!(kept(&cache, &request), Some(5));
    }

    #[test]
    fn an_answer_is_not_given_for_ever() {
        let cache = Cache::default();
        let request = range("a", "");
        keep(&cache, &request, 1);
        let mut entries = cache.lock();
        for entry in entries.by_question.values_mut() {
            entry.kept = entry
                .kept
                .checked_sub(AGE_MAX * 2)
                .expect("a time after the start of the clock");
        }
        drop(entries);
        assert_eq!(kept(&cache, &request), None);
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn what_was_not_asked_for_longest_goes_first() {
        let cache = Cache::default();
        for number in 0..ENTRIES_MAX {
            keep(&cache, &range(&format!("{number}"), ""), 1);
        }
        assert_eq!(kept(&cache, &range("0", "")), Some(1));
        keep(&cache, &range("one more", ""), 1);
        assert_eq!(cache.len(), ENTRIES_MAX);
        assert_eq!(kept(&cache, &range("0", "")), Some(1));
        assert_eq!(kept(&cache, &range("1", "")), None);
    }

    #[test]
    fn old_revisions_outlive_writes_until_they_are_compacted() {
        let cache = Cache::default();
        let request = pb::RangeRequest {
            revision: 5,
            ..range("a", "")
        };
        keep(&cache, &request, 1);
        cache.invalidate(b"a", b"");
        assert_eq!(kept(&cache, &request), Some(1));
        cache.compact(6);
        assert_eq!(kept(&cache, &request), None);
    }
}
