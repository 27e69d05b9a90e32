//! Versions of members and of the cluster: what they are compared by, and how far down a cluster may go.
//!
//! Only major and minor count. A downgrade goes down one minor version at a time, as in etcd.

use crate::checkpoint::Downgrade;
use crate::error::RequestError;

/// Major and minor.
pub type MajorMinor = (u64, u64);

/// `3.7.1` and `3.7.0` are (3, 7).
pub fn major_minor(version: &str) -> Option<MajorMinor> {
    let mut parts = version.split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

/// What an operator means by `3.6` or `3.6.0`.
///
/// # Errors
/// If it is no version.
pub fn downgrade_target(text: &str) -> Result<MajorMinor, RequestError> {
    let refused = RequestError::WrongDowngradeVersionFormat;
    whole_version(text)
        .or_else(|| whole_version(&format!("{text}.0")))
        .ok_or(refused)
}

/// Three numbers, perhaps with a pre-release and metadata.
fn whole_version(text: &str) -> Option<MajorMinor> {
    let (text, metadata) = text.split_once('+').unwrap_or((text, ""));
    let (numbers, release) = text.split_once('-').unwrap_or((text, ""));
    let is_identifier = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    if !release.bytes().chain(metadata.bytes()).all(is_identifier) {
        return None;
    }
    let mut parts = numbers.splitn(3, '.').map(|part| {
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.parse::<u64>().ok()).flatten()
    });
    let (major, minor, _patch) = (parts.next()??, parts.next()??, parts.next()??);
    Some((major, minor))
}

/// Whether a cluster may go from one version to the other.
pub fn is_one_down(from: MajorMinor, to: MajorMinor) -> bool {
    from.0 == to.0 && from.1 == to.1 + 1
}

/// Whether a downgrade to `target` may begin in a cluster of this version.
///
/// # Errors
/// In etcd's words, and in its order.
pub fn check_downgrade(
    cluster: MajorMinor,
    target: MajorMinor,
    under_way: Option<&Downgrade>,
) -> Result<(), RequestError> {
    if !is_one_down(cluster, target) {
        return Err(RequestError::InvalidDowngradeTargetVersion);
    }
    if under_way.is_some_and(|downgrade| downgrade.enabled) {
        return Err(RequestError::DowngradeInProcess);
    }
    Ok(())
}

/// The cluster version that a leader wants, if it is to change. `lowest` is that of the members, if all are known.
pub fn next_cluster_version(
    cluster: MajorMinor,
    lowest: MajorMinor,
    downgrade: Option<&Downgrade>,
) -> Option<MajorMinor> {
    match downgrade.filter(|downgrade| downgrade.enabled) {
        Some(downgrade) => {
            let target = major_minor(&downgrade.target_version)?;
            let is_possible = is_one_down(cluster, target) && is_one_down(lowest, target);
            (target != cluster && is_possible).then_some(target)
        }
        None => (cluster < lowest).then_some(lowest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(target: &str) -> Downgrade {
        Downgrade {
            target_version: target.into(),
            enabled: true,
        }
    }

    #[test]
    fn a_target_has_two_numbers_or_three() {
        for (text, want) in [
            ("3.6", Some((3, 6))),
            ("3.6.0", Some((3, 6))),
            ("3.6.9", Some((3, 6))),
            ("3.6.0-rc.1", Some((3, 6))),
            ("3.6.0+a", Some((3, 6))),
            ("3", None),
            ("3.6.0.1", None),
            ("3.6-rc", None),
            ("", None),
            ("v3.6.0", None),
            ("3..0", None),
            ("3.6.0-_", None),
        ] {
            assert_eq!(downgrade_target(text).ok(), want, "{text:?}");
        }
    }

    #[test]
    fn a_downgrade_goes_one_minor_version_down_and_one_at_a_time() {
        let check =
            |target, under_way: Option<&Downgrade>| check_downgrade((3, 7), target, under_way);
        let over = Downgrade::default();
        let invalid = Err(RequestError::InvalidDowngradeTargetVersion);
        assert_eq!(check((3, 6), None), Ok(()));
        assert_eq!(check((3, 6), Some(&over)), Ok(()));
        for target in [(3, 5), (3, 7), (3, 8), (2, 6), (4, 6)] {
            assert_eq!(check(target, None), invalid, "{target:?}");
        }
        let going = to("3.6.0");
        assert_eq!(check((3, 5), Some(&going)), invalid, "this comes first");
        assert_eq!(
            check((3, 6), Some(&going)),
            Err(RequestError::DowngradeInProcess)
        );
    }

    #[test]
    fn the_cluster_version_follows_the_lowest_member_and_goes_down_only_when_told() {
        let next = next_cluster_version;
        assert_eq!(next((3, 0), (3, 7), None), Some((3, 7)));
        assert_eq!(next((3, 7), (3, 7), None), None);
        assert_eq!(next((3, 7), (3, 6), None), None);
        let target = to("3.6.0");
        assert_eq!(next((3, 7), (3, 7), Some(&target)), Some((3, 6)));
        assert_eq!(next((3, 6), (3, 7), Some(&target)), None, "it is there");
        assert_eq!(
            next((3, 7), (3, 6), Some(&target)),
            None,
            "etcd: invalid downgrade target"
        );
        assert_eq!(
            next((3, 6), (3, 7), Some(&Downgrade::default())),
            Some((3, 7))
        );
    }
}
