//! Convergence: after everything has healed, all members are the same, and serve.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::types::MemberId;
use quorate_proto::etcdserverpb::AlarmMember;

use super::{Facts, Violation};

/// What a member holds in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The applied index.
    pub applied: u64,
    /// The store's revision.
    pub revision: i64,
    /// The compact revision.
    pub compacted: i64,
    /// `HashKV` at that revision.
    pub hash: u32,
    /// `HashKV` at an earlier one, where it can be told.
    pub earlier: Option<(i64, u32)>,
    /// The alarms that it lists.
    pub alarms: Vec<AlarmMember>,
}

/// Nothing works although faults have ended: that is excused only by disks of which too many hold what was never written
/// there, so that no quorum of voters can have all of the log.
pub fn check_excuse(facts: &mut Facts, intact: usize, members: usize) -> Result<(), Violation> {
    facts.expect("converge.live", 2 * intact <= members, || {
        format!("{intact} of {members} disks are intact, and still nothing works")
    })
}

/// Compares the members with each other.
pub fn check(facts: &mut Facts, endings: &BTreeMap<MemberId, Ending>) -> Result<(), Violation> {
    let Some(first) = endings.values().next() else {
        return Err(Violation::new("converge.equal", "there is no member"));
    };
    for (member, ending) in endings {
        facts.expect("converge.equal", ending == first, || {
            format!("{member:?} ends with {ending:?}, another with {first:?}")
        })?;
    }
    Ok(())
}

/// Compares the checkpoints that all members wrote at one applied index.
pub fn check_images(
    facts: &mut Facts,
    images: &BTreeMap<MemberId, Bytes>,
) -> Result<(), Violation> {
    let Some((first, image)) = images.first_key_value() else {
        return Err(Violation::new("converge.images", "there is no member"));
    };
    for (member, other) in images {
        let is_equal = !other.is_empty() && other == image;
        facts.expect("converge.images", is_equal, || {
            let place = image.iter().zip(other).position(|(one, two)| one != two);
            let (length, others) = (image.len(), other.len());
            format!(
                "{first:?} writes {length} bytes, {member:?} {others}, they differ at {place:?}"
            )
        })?;
    }
    Ok(())
}

/// The leases that a member lists, against those of the log.
pub fn check_leases(
    facts: &mut Facts,
    member: MemberId,
    listed: &[i64],
    expected: &[i64],
) -> Result<(), Violation> {
    facts.expect("converge.equal", listed == expected, || {
        format!("{member:?} lists the leases {listed:?}, the log says {expected:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_damage_to_half_of_the_disks_is_an_excuse() {
        let mut facts = Facts::new();
        check_excuse(&mut facts, 1, 3).unwrap();
        check_excuse(&mut facts, 2, 4).unwrap();
        let refused = check_excuse(&mut facts, 2, 3);
        assert_eq!(refused.unwrap_err().property, "converge.live");
        assert!(check_excuse(&mut facts, 3, 5).is_err());
    }

    #[test]
    fn checkpoints_that_differ_are_seen() {
        let mut facts = Facts::new();
        let mut images = BTreeMap::from([(MemberId(1), Bytes::from_static(b"same"))]);
        images.insert(MemberId(2), Bytes::from_static(b"same"));
        check_images(&mut facts, &images).unwrap();
        images.insert(MemberId(3), Bytes::from_static(b"sane"));
        assert!(check_images(&mut facts, &images).is_err());
        assert!(check_images(&mut facts, &BTreeMap::new()).is_err());
    }

    #[test]
    fn members_that_end_differently_are_seen() {
        let ending = Ending {
            applied: 7,
            revision: 5,
            compacted: -1,
            hash: 9,
            earlier: Some((3, 4)),
            alarms: Vec::new(),
        };
        let mut endings = BTreeMap::from([(MemberId(1), ending.clone())]);
        endings.insert(MemberId(2), ending.clone());
        let mut facts = Facts::new();
        check(&mut facts, &endings).unwrap();
        for other in [
            Ending {
                hash: 8,
                ..ending.clone()
            },
            Ending {
                applied: 8,
                ..ending.clone()
            },
            Ending {
                revision: 6,
                ..ending.clone()
            },
            Ending {
                compacted: 2,
                ..ending.clone()
            },
            Ending {
                alarms: vec![AlarmMember::default()],
                ..ending.clone()
            },
            Ending {
                earlier: Some((3, 5)),
                ..ending.clone()
            },
        ] {
            endings.insert(MemberId(3), other);
            assert!(check(&mut facts, &endings).is_err());
        }
        assert!(check(&mut facts, &BTreeMap::new()).is_err());
        check_leases(&mut facts, MemberId(1), &[3], &[3]).unwrap();
        assert!(check_leases(&mut facts, MemberId(1), &[3], &[]).is_err());
    }
}
