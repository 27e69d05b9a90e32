//! Whose a ticket is: each asking thread draws from a generator of its own.

use quorate_core::types::Ticket;

/// The slot of the generator that a ticket came from, for `slots` generators (a power of two).
pub fn slot_of(ticket: Ticket, slots: usize) -> usize {
    debug_assert!(slots.is_power_of_two(), "tickets are dealt by a mask");
    // The first id of slot 0 ends in 01: see `RequestIds`.
    (ticket.0.wrapping_sub(1) as usize) & (slots - 1)
}

#[cfg(test)]
mod tests {
    use quorate_core::boundary::RequestIds;
    use quorate_core::types::MemberId;

    use super::*;

    #[test]
    fn tickets_find_their_slot_even_when_the_counter_wraps() {
        for started in [0, 1_700_000_000_000, (1 << 40) - 1] {
            for slot in 0..8 {
                let mut ids = RequestIds::new(MemberId(0x1234), started, slot, 8);
                for _ in 0..300 {
                    assert_eq!(slot_of(Ticket(ids.take()), 8), slot as usize);
                }
            }
        }
    }
}
