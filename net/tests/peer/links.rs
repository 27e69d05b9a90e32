//! What two transports do for each other.

use bytes::Bytes;
use quorate_core::MemberId;
use quorate_core::boundary::Peer;
use quorate_net::peer::PeerEvent;
use quorate_net::peer::limits::{
    IO_TIMEOUT, LANE_MESSAGES_MAX, PIPELINE_MESSAGES_MAX, STREAM_HEARTBEAT,
};
use quorate_proto::raftpb::{ConfState, Message, MessageType, Snapshot};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::member::{Member, append, heartbeat, pair};

#[tokio::test]
async fn each_lane_keeps_its_order_in_both_directions() {
    let (mut one, mut two) = pair().await;
    one.wait_for_streams(two.id).await;
    two.wait_for_streams(one.id).await;
    const COUNT: u64 = 1000;
    for first in (0..COUNT).step_by(10) {
        for (from, to) in [(&one, &two), (&two, &one)] {
            from.send(
                to.id,
                (first..first + 10)
                    .flat_map(|number| [append(number, b"content"), heartbeat(number)]),
            );
        }
    }
    for (receiver, sender) in [(&mut one, MemberId(2)), (&mut two, MemberId(1))] {
        let (mut appends, mut heartbeats) = (0, 0);
        while appends < COUNT || heartbeats < COUNT {
            let message = receiver.message().await;
            assert_eq!((message.from, message.to), (sender.0, receiver.id.0));
            if message.r#type == i32::from(MessageType::MsgApp) {
                assert_eq!(message.index, appends);
                assert_eq!(
                    message.entries[0].data.as_deref(),
                    Some(b"content".as_slice())
                );
                appends += 1;
            } else {
                assert_eq!(message.commit, heartbeats);
                heartbeats += 1;
            }
        }
    }
}

#[tokio::test]
async fn a_message_of_megabytes_arrives_whole() {
    let (one, mut two) = pair().await;
    one.wait_for_streams(two.id).await;
    let content: Vec<u8> = (0..5_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    one.send(two.id, [append(1, &content)]);
    assert_eq!(
        two.message().await.entries[0].data.as_deref(),
        Some(content.as_slice())
    );
}

#[tokio::test]
async fn a_message_goes_by_post_before_any_stream_is_open() {
    let one = Member::start(1).await;
    let mut two = Member::start(2).await;
    // Two does not know one, so that it opens no stream and refuses one's.
    one.transport.update_peers(vec![two.peer()]);
    one.send(two.id, [heartbeat(4)]);
    assert_eq!(two.message().await.commit, 4);
    assert_eq!(one.transport.statuses()[0].streams, [false, false]);
}

#[tokio::test]
async fn a_sender_that_is_not_known_yet_gets_its_answer() {
    let mut one = Member::start(1).await;
    let mut two = Member::start(2).await;
    one.transport.update_peers(vec![two.peer()]);
    one.send(two.id, [heartbeat(4)]);
    two.message().await;
    two.send(one.id, [heartbeat(5)]);
    assert_eq!(one.message().await.commit, 5);
}

#[tokio::test]
async fn a_peer_that_is_down_is_reported() {
    let mut one = Member::start(1).await;
    // Bound and not listened on any more: nobody answers there.
    let address = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port")
        .local_addr()
        .expect("bound");
    let down = MemberId(2);
    one.transport.update_peers(vec![Peer {
        member: down,
        peer_urls: vec![format!("http://{address}")],
    }]);
    one.send(down, [heartbeat(1)]);
    assert_eq!(one.event().await, PeerEvent::Unreachable(down));
    assert!(one.transport.statuses()[0].active_since.is_none());
}

#[tokio::test]
async fn what_exceeds_the_queue_is_dropped_and_reported_once() {
    let mut one = Member::start(1).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let peer_urls = vec![format!("http://{}", silent.local_addr().expect("bound"))];
    one.transport.update_peers(vec![Peer {
        member: MemberId(2),
        peer_urls,
    }]);
    // No await in between: the workers take nothing meanwhile.
    one.send(
        MemberId(2),
        (0..PIPELINE_MESSAGES_MAX as u64).map(heartbeat),
    );
    assert_eq!(one.transport.statuses()[0].sent_failures, 0);
    one.send(MemberId(2), (0..10).map(heartbeat));
    assert_eq!(one.transport.statuses()[0].sent_failures, 10);
    assert_eq!(one.event().await, PeerEvent::Unreachable(MemberId(2)));
}

#[tokio::test]
async fn a_lane_holds_thousands_of_messages() {
    let (one, mut two) = pair().await;
    one.wait_for_streams(two.id).await;
    one.send(two.id, (0..LANE_MESSAGES_MAX as u64 + 5).map(heartbeat));
    for commit in 0..LANE_MESSAGES_MAX as u64 {
        assert_eq!(two.message().await.commit, commit);
    }
    assert_eq!(one.transport.statuses()[0].sent_failures, 5);
}

#[tokio::test]
async fn streams_come_back_after_a_restart() {
    let (mut one, two) = pair().await;
    one.wait_for_streams(two.id).await;
    let (id, address) = (two.id, two.address);
    two.stop().await;
    one.wait(id, |status| {
        status.streams == [false, false] && status.active_since.is_none()
    })
    .await;
    one.send(id, [heartbeat(1)]);
    while one.event().await != PeerEvent::Unreachable(id) {}

    let mut two = Member::start_at(id.0, address).await;
    two.transport.update_peers(vec![one.peer()]);
    one.wait_for_streams(id).await;
    two.wait_for_streams(one.id).await;
    one.send(two.id, [append(8, b"again"), heartbeat(9)]);
    two.send(one.id, [heartbeat(10)]);
    let received = [two.message().await, two.message().await];
    assert!(received.iter().any(|message| message.index == 8));
    assert!(received.iter().any(|message| message.commit == 9));
    assert_eq!(one.message().await.commit, 10);
    assert!(one.transport.statuses()[0].disconnects >= 1);
}

#[tokio::test]
async fn idle_streams_outlive_the_readers_deadline() {
    let (one, two) = pair().await;
    one.wait_for_streams(two.id).await;
    two.wait_for_streams(one.id).await;
    // Beats of one byte on msgapp and ten on message; four of each take longer than the deadline.
    let beats = 4 * (1 + 10);
    assert!(STREAM_HEARTBEAT * 4 > IO_TIMEOUT);
    for (member, peer) in [(&one, two.id), (&two, one.id)] {
        member
            .wait(peer, |status| status.received_bytes >= beats)
            .await;
        let status = member.transport.statuses()[0];
        assert_eq!((status.received_failures, status.disconnects), (0, 0));
    }
}

#[tokio::test]
async fn a_peer_that_moves_is_followed_and_one_that_leaves_is_cut_off() {
    let (one, two) = pair().await;
    one.wait_for_streams(two.id).await;
    two.stop().await;
    one.wait(MemberId(2), |status| status.streams == [false, false])
        .await;
    let mut two = Member::start(2).await;
    two.transport.update_peers(vec![one.peer()]);
    one.transport.update_peers(vec![two.peer()]);
    one.wait_for_streams(two.id).await;
    one.send(two.id, [heartbeat(1)]);
    assert_eq!(two.message().await.commit, 1);

    two.wait_for_streams(one.id).await;
    one.transport.update_peers(Vec::new());
    assert!(one.transport.statuses().is_empty());
    two.wait(one.id, |status| status.streams == [false, false])
        .await;
}

#[tokio::test]
async fn a_removed_member_learns_it() {
    let mut removed = Member::start(super::fixed_node::REMOVED.0).await;
    let two = Member::start(2).await;
    two.transport.update_peers(vec![removed.peer()]);
    removed.transport.update_peers(vec![two.peer()]);
    assert_eq!(removed.event().await, PeerEvent::Removed { by: two.id });
}

#[tokio::test]
async fn links_to_self_and_messages_for_others_do_nothing() {
    let (one, mut two) = pair().await;
    one.wait_for_streams(two.id).await;
    one.transport.update_peers(vec![one.peer(), two.peer()]);
    assert_eq!(one.transport.statuses().len(), 1);
    one.transport.send(vec![(
        two.id,
        Message {
            to: 99,
            from: 1,
            ..heartbeat(1)
        },
    )]);
    one.transport.send(vec![(MemberId(50), heartbeat(1))]);
    one.send(two.id, [heartbeat(2)]);
    assert_eq!(
        two.message().await.commit,
        2,
        "the one for member 99 is passed over"
    );
}

#[tokio::test]
async fn probes_and_versions_show_who_is_there() {
    let (one, two) = pair().await;
    one.wait(two.id, |status| {
        status.healthy && status.round_trip.is_some()
    })
    .await;
    let versions = one.transport.peer_versions().await;
    assert_eq!(versions.len(), 1);
    assert_eq!(
        versions[0]
            .1
            .as_ref()
            .map(|versions| versions.server.as_str()),
        Some("3.7.1")
    );
    let id = two.id;
    two.stop().await;
    assert_eq!(one.transport.peer_versions().await, vec![(id, None)]);
}

fn snapshot(from: &Member, to: MemberId, index: u64) -> Message {
    let conf_state = ConfState::simple(vec![1, 2], vec![]);
    Message {
        r#type: MessageType::MsgSnap.into(),
        from: from.id.0,
        to: to.0,
        term: 3,
        snapshot: Some(Snapshot::new(
            index,
            3,
            conf_state,
            Bytes::from_static(b"{}"),
        )),
        ..Message::default()
    }
}

async fn send_snapshot(from: &Member, to: MemberId, message: Message, image: Bytes) -> bool {
    let (done, sent) = oneshot::channel();
    let done = move |is_done| done.send(is_done).expect("somebody waits");
    from.transport.send_snapshot(to, message, image, done);
    sent.await.expect("it ends")
}

#[tokio::test]
async fn a_snapshot_of_megabytes_arrives_whole_and_its_sender_hears_of_it() {
    let (one, two) = pair().await;
    let image: Vec<u8> = (0..5_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let message = snapshot(&one, two.id, 77);
    assert!(send_snapshot(&one, two.id, message, image.clone().into()).await);
    assert_eq!(*two.node.snapshots.lock().unwrap(), [(77, image)]);
}

#[tokio::test]
async fn a_snapshot_that_nobody_takes_has_failed() {
    let (one, two) = pair().await;
    let (id, image) = (two.id, Bytes::from_static(b"image"));
    let stranger = snapshot(&one, MemberId(9), 77);
    assert!(!send_snapshot(&one, MemberId(9), stranger.clone(), image.clone()).await);
    // It reaches a member that it is not meant for, which refuses it.
    assert!(!send_snapshot(&one, id, stranger, image.clone()).await);
    let message = snapshot(&one, id, 77);
    assert!(two.node.snapshots.lock().unwrap().is_empty());
    two.stop().await;
    assert!(!send_snapshot(&one, id, message, image).await);
}
