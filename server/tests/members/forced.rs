//! A cluster that is lost but for one member, which goes on with all data.

use crate::changes::{add, member_ids, put};
use crate::support::Member;
use crate::three_members::{has, start};

const FLAG: &str = "--force-new-cluster";

#[tokio::test]
async fn the_last_of_three_goes_on_and_grows_to_three_again() {
    let mut members = Member::cluster(3);
    start(&mut members);
    for number in 0..30 {
        put(&members[number % 3], &format!("key-{number}")).await;
    }
    for member in &mut members {
        member.kill();
    }
    let mut last = members.pop().expect("three").with(&[FLAG]);
    drop(members);
    last.start();
    assert_eq!(member_ids(&last).await.len(), 1);
    for number in 0..30 {
        assert!(
            has(&last, &format!("key-{number}"), false).await,
            "{number}"
        );
    }
    put(&last, "alone").await;

    // A second time it changes nothing, and without the flag the member is like any other.
    last.kill();
    last.start();
    assert!(has(&last, "alone", false).await);
    last.terminate();
    last.drop_argument(FLAG);
    last.start();
    let [own] = member_ids(&last).await[..] else {
        panic!("it is alone");
    };

    let mut members = vec![last];
    for number in [7, 8] {
        let mut new = Member::joining(&members, number);
        add(&members[0], &new, false).await;
        new.start();
        members.push(new);
    }
    put(&members[2], "grown").await;
    for member in &members {
        assert!(has(member, "key-29", false).await && has(member, "grown", false).await);
        let ids = member_ids(member).await;
        assert!(ids.len() == 3 && ids.contains(&own), "{ids:x?}");
    }
}
