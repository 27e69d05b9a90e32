use super::*;
use crate::checkpoint::bolt::MemoryFile;
use crate::checkpoint::crash_disk::{CrashDisk, LOSSES, contents};
use crate::checkpoint::write_image;

fn image(index: u64) -> Vec<u8> {
    let (file, _) = write_image(MemoryFile::default(), &contents(index), std::iter::empty())
        .expect("memory takes everything");
    file.0
}

/// A disk with an installed image, all of it durable.
fn disk_with(index: u64) -> CrashDisk {
    let disk = CrashDisk::default();
    receive(&disk, index).expect("there is power");
    disk
}

/// What a member does when a snapshot comes and raft takes it.
fn receive(disk: &CrashDisk, index: u64) -> Result<(), DiskError> {
    let mut arrival = Arrival::begin(disk.clone(), Index(index), index)?;
    for part in image(index).chunks(1000) {
        arrival.write(part)?;
    }
    let (path, content) = arrival.finish()?;
    let loaded = load(content).expect("it is whole");
    Install::new(path, &loaded.contents).carry_out(&mut disk.clone())
}

fn installed(disk: &CrashDisk) -> u64 {
    let content = disk.content(DATABASE).expect("an image");
    let loaded = load(content).expect("what has the name is whole");
    loaded.contents.consistent_index.0
}

/// What is left of arrivals.
fn leftovers(disk: &CrashDisk) -> Vec<String> {
    let names = disk.list(DIRECTORY).expect("lists");
    let is_arrival =
        |name: &String| name.starts_with(UNFINISHED_PREFIX) || name.ends_with(ARRIVED_SUFFIX);
    names.into_iter().filter(is_arrival).collect()
}

#[test]
fn power_loss_at_any_step_leaves_the_old_image_or_the_new_one() {
    let (mut olds, mut news) = (0, 0);
    for power in 0.. {
        let disk = disk_with(10);
        disk.cut_power_after(power);
        let crashed = receive(&disk, 300).is_err();
        for loss in LOSSES {
            let mut disk = disk.after(loss);
            settle(&mut disk, Index(10)).expect("there is power again");
            let index = installed(&disk);
            assert!(
                index == 300 || (crashed && index == 10),
                "step {power}, {loss:?}: {index}"
            );
            *(if index == 300 { &mut news } else { &mut olds }) += 1;
            let stray = leftovers(&disk);
            assert!(stray.is_empty(), "step {power}, {loss:?}: {stray:?}");
            receive(&disk, 301).expect("the next one goes through");
            assert_eq!(installed(&disk), 301);
        }
        if !crashed {
            break;
        }
    }
    assert!(olds > 20 && news > 10, "{olds} old and {news} new images");
}

#[test]
fn what_was_abandoned_or_discarded_is_gone() {
    let disk = disk_with(10);
    let mut arrival = Arrival::begin(disk.clone(), Index(20), 1).unwrap();
    arrival.write(b"half of").unwrap();
    assert_eq!(arrival.length(), 7);
    arrival.abandon().unwrap();
    assert!(leftovers(&disk).is_empty());

    let mut arrival = Arrival::begin(disk.clone(), Index(20), 2).unwrap();
    arrival.write(&image(20)).unwrap();
    let (path, content) = arrival.finish().unwrap();
    assert_eq!(leftovers(&disk).len(), 1);
    let install = Install::new(path, &load(content).unwrap().contents);
    assert_eq!(install.index(), Index(20));
    install.discard(&mut disk.clone()).unwrap();
    install.discard(&mut disk.clone()).expect("twice is once");
    assert!(leftovers(&disk).is_empty());
    assert_eq!(installed(&disk), 10);
}

#[test]
fn what_etcd_received_and_noted_in_its_log_is_installed_at_the_start() {
    let arrived = format!("{DIRECTORY}/{:016x}.snap.db", 20);
    for (noted, expected) in [(20, 20), (10, 10)] {
        let mut disk = disk_with(10);
        let mut file = disk.create(&arrived, 0).unwrap();
        file.write_at(0, &image(20)).unwrap();
        settle(&mut disk, Index(noted)).unwrap();
        assert_eq!(installed(&disk), expected);
        assert!(leftovers(&disk).is_empty());
    }
}

#[test]
fn what_is_sent_is_the_image_with_its_membership() {
    let disk = disk_with(10);
    let (sent, membership) = to_send(&mut disk.clone(), Index(10), Term(2)).unwrap();
    assert_eq!(sent, image(10));
    let text = String::from_utf8(membership.to_vec()).unwrap();
    assert!(text.contains("/0/members/1/raftAttributes"), "{text}");
    let (_, unknown) = to_send(&mut disk.clone(), Index(11), Term(2)).unwrap();
    assert!(unknown.is_empty());
}
