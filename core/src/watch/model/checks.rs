//! What each response must be, given all that was written.

use super::super::*;
use super::world::{Client, Made, World};

impl World {
    fn wanted(client: &Client, made: &Made) -> bool {
        let tombstone = made.kv.create_revision == 0;
        let keys = KeyRange::parse(&client.request.key, &client.request.range_end).unwrap();
        made.main >= client.first
            && keys.contains(&made.key)
            && !client.request.filters.contains(&i32::from(tombstone))
    }

    /// Whether the client has seen all that it wants up to a revision.
    pub(super) fn has_all(&self, client: &Client, revision: i64) -> bool {
        let unseen = self.history[client.seen..].iter();
        unseen
            .take_while(|made| made.main <= revision)
            .all(|made| !Self::wanted(client, made))
    }

    pub(super) fn check_response(&mut self, stream: StreamId, response: pb::WatchResponse) {
        let revision = response.header.as_ref().unwrap().revision;
        assert!(revision <= self.revision());
        if response.watch_id == NO_WATCH {
            assert!(response.events.is_empty() && !response.created && !response.canceled);
            // A compaction may have overtaken a watch between the request and this answer.
            let told = |((of, _), client): &(&(StreamId, i64), &Client)| {
                *of == stream && client.created && !client.canceled && !client.ending
            };
            for ((_, id), client) in self.clients.iter().filter(told) {
                assert!(
                    self.has_all(client, revision),
                    "watch {id}: progress {revision} overtook events"
                );
                assert!(
                    revision >= client.request.start_revision,
                    "watch {id}: progress {revision} says nothing"
                );
            }
            for (_, client) in self
                .clients
                .iter_mut()
                .filter(|((of, _), client)| *of == stream && client.created)
            {
                assert!(client.promised <= revision, "progress never falls");
                assert!(
                    client.delivered <= revision,
                    "progress is not below what came before it"
                );
                client.promised = revision;
                self.facts += 1;
            }
            return;
        }
        let mut client = self
            .clients
            .remove(&(stream, response.watch_id))
            .expect("no response of an unknown watch");
        if response.created {
            assert!(!client.created && !response.canceled && response.events.is_empty());
            client.created = true;
        } else if response.canceled {
            self.check_cancellation(&client, &response);
            client.canceled = true;
        } else if response.events.is_empty() {
            assert!(
                client.request.progress_notify,
                "only who asked is told progress"
            );
            assert!(self.has_all(&client, revision) && revision >= client.request.start_revision);
            assert!(client.promised <= revision);
            assert!(
                client.delivered <= revision,
                "progress is not below what came before it"
            );
            client.promised = revision;
        } else {
            self.check_events(&mut client, &response);
            assert!(
                self.has_all(&client, revision),
                "the header's revision is true"
            );
        }
        self.facts += 1;
        self.clients.insert((stream, response.watch_id), client);
    }

    fn check_cancellation(&self, client: &Client, response: &pb::WatchResponse) {
        assert!(client.created && !client.canceled);
        assert_eq!(response.compact_revision, self.store.compact_revision().0);
        assert_eq!(
            (
                response.header.as_ref().unwrap().revision,
                response.cancel_reason.as_str()
            ),
            (0, "")
        );
        assert!(
            client.first.max(client.promised + 1) < response.compact_revision,
            "nothing it wants was compacted"
        );
        let since = self
            .history
            .iter()
            .filter(|made| made.main > client.drained);
        assert!(
            client.drained == 0 || since.count() > 3,
            "a live watch was cancelled although it read everything"
        );
    }

    fn check_events(&self, client: &mut Client, response: &pb::WatchResponse) {
        assert!(
            client.created && !client.canceled,
            "events only while the watch lives"
        );
        for event in &response.events {
            let rest = &self.history[client.seen..];
            let skipped = rest
                .iter()
                .position(|made| Self::wanted(client, made))
                .expect("no event twice");
            let made = &rest[skipped];
            client.seen += skipped + 1;
            client.delivered = made.main;
            assert_eq!(event.kv.as_ref(), Some(&made.kv));
            assert_eq!(event.r#type == 1, made.kv.create_revision == 0);
            assert!(
                made.main > client.promised,
                "an event came after progress had passed it"
            );
            let compacted = self.store.compact_revision().0;
            match &event.prev_kv {
                Some(_) => {
                    assert!(client.request.prev_kv);
                    assert_eq!(event.prev_kv, made.previous);
                }
                None => assert!(
                    !client.request.prev_kv || made.previous.is_none() || made.main - 1 < compacted,
                    "the previous value is missing"
                ),
            }
        }
        let last = &self.history[client.seen - 1];
        let rest = self.history[client.seen..]
            .iter()
            .take_while(|made| made.main == last.main);
        assert!(
            !rest.clone().any(|made| Self::wanted(client, made)),
            "a revision was torn apart"
        );
    }
}
