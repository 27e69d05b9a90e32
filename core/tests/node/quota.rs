//! What a member does by itself when its quota is reached.

use std::time::Duration;

use quorate_core::RequestError;
use quorate_core::boundary::Input;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb;

use crate::cluster::Cluster;

impl Cluster {
    /// The first write that is not reported yet is durable now.
    fn report_one_write(&mut self) {
        let (id, number) = self.unreported.remove(0);
        self.handle(id, Input::Written(number));
        self.flush(id);
    }

    fn end_alarm(&mut self, id: u64) {
        let alarm = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Deactivate as i32,
            member_id: id,
            alarm: pb::AlarmType::Nospace as i32,
        };
        let ticket = self.propose(id, |request| request.alarm = Some(alarm));
        self.answer(ticket).unwrap();
    }
}

#[test]
fn an_alarm_that_was_ended_does_not_come_back_for_what_was_refused_before() {
    let mut cluster = Cluster::new(1);
    cluster.quota_bytes = 1;
    cluster.restart(1);
    cluster.run_until("a leader", |cluster| cluster.status(1).is_published);
    // The second write was on its way when the first one was refused: it is refused before the alarm is there.
    cluster.stalled = vec![1];
    let first = cluster.put(1, "a", "1");
    cluster.flush(1);
    let second = cluster.put(1, "b", "1");
    cluster.flush(1);
    assert_eq!(cluster.unreported.len(), 2);
    cluster.report_one_write();
    assert_eq!(cluster.answer(first), Err(RequestError::NoSpace));
    assert!(cluster.status(1).alarms.is_empty());
    cluster.report_one_write();
    assert_eq!(cluster.answer(second), Err(RequestError::NoSpace));
    cluster.report_writes();
    cluster.run_until("the alarm", |cluster| !cluster.status(1).alarms.is_empty());
    cluster.end_alarm(1);
    assert!(cluster.status(1).alarms.is_empty());
    let end = cluster.now.after(Duration::from_secs(5));
    cluster.run_until("a while", |cluster| cluster.now >= end);
    assert!(cluster.status(1).alarms.is_empty());
    // What is refused now raises it again.
    let third = cluster.put(1, "c", "1");
    assert_eq!(cluster.answer(third), Err(RequestError::NoSpace));
    cluster.run_until("the alarm", |cluster| !cluster.status(1).alarms.is_empty());
}

#[test]
fn an_alarm_that_is_lost_on_its_way_is_raised_again() {
    let mut cluster = Cluster::new(3);
    cluster.run_until("a leader", |cluster| {
        cluster.nodes.values().any(|node| node.is_leader())
    });
    let leader = cluster.leader();
    let follower = leader % 3 + 1;
    cluster.quota_bytes = 1;
    cluster.restart(follower);
    let put = cluster.put(leader, "a", "1");
    cluster.answer(put).unwrap();
    let mut lost = 0;
    while lost == 0 {
        cluster.step();
        cluster.network.retain(|(from, _, message)| {
            let is_proposal = message.r#type == raftpb::MessageType::MsgProp as i32;
            let is_alarm = *from == follower && is_proposal;
            lost += u64::from(is_alarm);
            !is_alarm
        });
    }
    assert!(cluster.status(leader).alarms.is_empty());
    cluster.run_until("the alarm", |cluster| {
        !cluster.status(leader).alarms.is_empty()
    });
}
