//! What the oracles that follow the log of the whole cluster are told, turn by turn.

use quorate_core::boundary::Response;
use quorate_core::error::RequestError;
use quorate_core::types::MemberId;

use super::World;
use super::machine::OpenRequest;
use super::workload::Call;
use crate::check::Violation;
use crate::check::lease::Promise;

impl World {
    /// A client asks for something that concerns a lease.
    pub(super) fn note_lease_call(&mut self, call: &Call) {
        match call {
            Call::Renew(lease) => self.leases.on_touched(self.now_ns, *lease),
            Call::Propose(request) => {
                if let Some(revoke) = &request.lease_revoke {
                    self.leases.on_given_back(revoke.id);
                }
            }
            _ => {}
        }
    }

    /// A member has taken a turn, and before it had applied everything up to `before`.
    pub(super) fn judge_leases_of_turn(
        &mut self,
        member: MemberId,
        before: u64,
    ) -> Result<(), Violation> {
        let machine = &self.machines[&member];
        let process = machine.process.as_ref().expect("a running member");
        self.leases.on_rate(machine.clock.rate());
        self.leases
            .follow(&mut self.facts, self.now_ns, &self.ledger)?;
        let applied = process.node.applied().0;
        if applied <= before {
            return Ok(());
        }
        let view = process.node.view();
        let span = (before, applied);
        self.leases
            .check_keys(&mut self.facts, &self.ledger, member, span, &view)
    }

    /// A member answers what concerns a lease.
    pub(super) fn judge_lease(
        &mut self,
        open: &OpenRequest,
        result: &Result<Response, RequestError>,
    ) -> Result<(), Violation> {
        let promise = |lease, ttl| Promise {
            lease,
            ttl,
            came_ns: open.came_ns,
        };
        match (&open.call, result) {
            (Call::Renew(lease), Ok(Response::LeaseRenewed { ttl })) if *ttl > 0 => {
                self.count("lease renewed");
                self.leases
                    .on_renewed(&mut self.facts, promise(*lease, *ttl))
            }
            (Call::Propose(_), Ok(Response::LeaseGrant(granted))) => self
                .leases
                .on_granted(&mut self.facts, promise(granted.id, granted.ttl)),
            _ => Ok(()),
        }
    }
}
