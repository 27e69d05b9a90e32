//! How much a store was used since it was made: for metrics, never for a decision.

/// What was done to a store; grows only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ranges read inside of transactions that write; those of a [`super::View`] are its reader's.
    pub ranges: u64,
    /// Keys put.
    pub puts: u64,
    /// Bytes of their keys and values.
    pub put_bytes: u64,
    /// Ranges deleted, also those without a key.
    pub deletes: u64,
    /// Transactions of more than one of these.
    pub txns: u64,
    /// Rows that compactions removed.
    pub rows_compacted: u64,
}

impl Counts {
    /// Takes in what one transaction did.
    pub(super) fn end_txn(&mut self, did: &Self) {
        self.ranges += did.ranges;
        self.puts += did.puts;
        self.put_bytes += did.put_bytes;
        self.deletes += did.deletes;
        self.txns += u64::from(did.ranges + did.puts + did.deletes > 1);
    }
}
