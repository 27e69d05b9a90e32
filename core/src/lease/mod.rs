//! Leases (skeleton of the interface).
use bytes::Bytes;

use crate::types::LeaseId;

/// The leases of a member.
#[derive(Debug, Default)]
pub struct Lessor {}

impl Lessor {
    /// Whether the lease exists.
    pub fn contains(&self, _id: LeaseId) -> bool {
        todo!()
    }
    /// Attaches a key to an existing lease.
    pub fn attach(&mut self, _id: LeaseId, _key: Bytes) {
        todo!()
    }
    /// Detaches a key; a lease or key that is not there is fine.
    pub fn detach(&mut self, _id: LeaseId, _key: &[u8]) {
        todo!()
    }
}
