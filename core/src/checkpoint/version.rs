//! Which storage versions we open: those that etcd 3.7 opens.

use super::ImageError;
use super::schema::Contents;

/// The storage schema that we write.
pub const STORAGE_VERSION: &str = "3.7.0";

/// The oldest and the newest minor version of 3 whose storage we know.
const MINORS: std::ops::RangeInclusive<u64> = 5..=7;

/// Refuses what etcd refuses, in its words. An image without a version comes from 3.5 or, if fields are missing,
/// from before; etcd lets both pass.
pub(super) fn check(contents: &Contents) -> Result<(), ImageError> {
    let Some(text) = &contents.storage_version else {
        return Ok(());
    };
    let Some((major, minor)) = parse(text) else {
        return Err(ImageError::record(
            "meta",
            b"storageVersion",
            format!("{text:?} is not a version such as {STORAGE_VERSION}"),
        ));
    };
    if major != 3 {
        return Err(ImageError::Version(
            "changing major storage version is not supported".to_owned(),
        ));
    }
    if minor > *MINORS.end() {
        return Err(ImageError::Version(format!(
            "version \"{major}.{minor}.0\" is not supported"
        )));
    }
    if minor < *MINORS.start() {
        // etcd goes up step by step, and names the first step that it does not know.
        return Err(ImageError::Version(format!(
            "version \"{major}.{}.0\" is not supported",
            minor + 1
        )));
    }
    Ok(())
}

/// Major and minor of `major.minor.patch`, with or without a pre-release.
fn parse(text: &str) -> Option<(u64, u64)> {
    let core = text.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse::<u64>().ok());
    let version = (parts.next()??, parts.next()??);
    parts.next()??;
    parts.next().is_none().then_some(version)
}
