//! Entries of etcd's v2 API, which an old log may still hold: they are refused, by the index and with a way out.

use bytes::Bytes;
use quorate_proto::raftpb::Entry;

use super::cluster::Cluster;

/// A field of bytes, as protocol buffers write it.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut encoded = vec![number << 3 | 2, content.len() as u8];
    encoded.extend(content);
    encoded
}

/// `etcdserverpb.Request` of the v2 API: `PUT /1/foo bar`.
fn v2_put() -> Vec<u8> {
    let id = vec![1 << 3, 77];
    [id, field(2, b"PUT"), field(3, b"/1/foo"), field(4, b"bar")].concat()
}

#[test]
fn an_entry_of_the_v2_api_is_refused_and_nothing_after_it_is_applied() {
    // As etcd 2 wrote it, and as etcd 3 did.
    let wrapped = [vec![1 << 3, 77], field(2, &v2_put())].concat();
    for (data, said) in [
        (v2_put(), "it is not a request"),
        (wrapped, "request 4d is of a kind that is not known"),
    ] {
        let mut cluster = Cluster::new(1);
        let ticket = cluster.put(1, "key", "value");
        cluster.answer(ticket).unwrap();
        let disk = cluster.disks.get_mut(&1).unwrap();
        let after = disk.entries.last_key_value().expect("entries").0 + 1;
        let last = disk.entries[&(after - 1)].clone();
        let term = disk.hard_state.term;
        let entry = Entry::normal(term, after, Bytes::from(data));
        disk.entries.insert(after, entry);
        let copied = Entry {
            index: after + 1,
            ..last
        };
        disk.entries.insert(after + 1, copied);
        disk.hard_state.commit = after + 1;
        let before = (disk.entries.clone(), disk.hard_state);
        cluster.restart(1);
        cluster.run_until("it stops", |cluster| cluster.stopped.contains_key(&1));
        let reason = &cluster.stopped[&1];
        for part in [
            format!("the log entry at index {after} cannot be applied"),
            said.to_owned(),
            "let it write a snapshot".to_owned(),
        ] {
            assert!(reason.contains(&part), "{reason}");
        }
        assert_eq!(cluster.nodes[&1].view().revision().0, 2, "one put");
        let disk = &cluster.disks[&1];
        assert_eq!((disk.entries.clone(), disk.hard_state), before);
    }
}
