//! Clients with users: they make users and roles, switch auth on and off, and read and write as somebody who may, or may
//! not.
//!
//! The first thing that each of them does is what switches auth on. From then on all other clients act as root.

use bytes::Bytes;
use quorate_core::auth::Identity;
use quorate_core::error::RequestError;
use quorate_core::types::MemberId;
use quorate_proto::authpb::Permission;
use quorate_proto::etcdserverpb as pb;

use super::World;
use super::clients::Client;
use super::workload::{Call, propose};
use crate::check::{Violation, auth};
use crate::load::Work;
use crate::model::Auth;

const ROOT: &str = "root";
/// Nobody is one of them.
const USERS: [&str; 3] = ["ann", "bob", ""];
const ROLES: [&str; 3] = ["one", "two", "three"];
/// What all passwords are hashed to.
const PASSWORD: &str = "cGFzc3dvcmQ=";

impl Client {
    /// Something that somebody does.
    pub(super) fn draw_as_user(&mut self) -> Call {
        let beginning = match self.operation {
            1 => Some(add_user(ROOT)),
            2 => Some(grant_role(ROOT, ROOT)),
            3 => Some(propose(|it| {
                it.auth_enable = Some(pb::AuthEnableRequest {})
            })),
            _ => None,
        };
        self.user = ROOT;
        if let Some(call) = beginning {
            return call;
        }
        if !self.stream.chance(400_000) {
            self.user = *self.stream.pick(&USERS);
        }
        match self.stream.below(10) {
            0..=3 => self.draw_administration(),
            4 => Call::LocalRead(self.draw_range()),
            5 => Call::Read(self.draw_range()),
            6 => super::workload::delete(self.draw_delete()),
            7 => super::workload::txn(self.draw_txn()),
            _ => super::workload::put(self.draw_put()),
        }
    }

    fn draw_administration(&mut self) -> Call {
        let stream = &mut self.stream;
        let user = *stream.pick(&["ann", "bob", "bob", ROOT]);
        let role = (*stream.pick(&ROLES)).to_owned();
        match stream.below(16) {
            0 | 1 => add_user(user),
            2 => propose(|it| {
                let name = user.to_owned();
                it.auth_user_delete = Some(pb::AuthUserDeleteRequest { name });
            }),
            3..=5 => grant_role(user, &role),
            6 => propose(|it| {
                let name = user.to_owned();
                it.auth_user_revoke_role = Some(pb::AuthUserRevokeRoleRequest { name, role });
            }),
            7 => propose(|it| it.auth_role_add = Some(pb::AuthRoleAddRequest { name: role })),
            8 => propose(|it| it.auth_role_delete = Some(pb::AuthRoleDeleteRequest { role })),
            9..=11 => self.draw_grant(role),
            12 => {
                let (key, range_end) = self.draw_keys();
                let revoke = pb::AuthRoleRevokePermissionRequest {
                    role,
                    key,
                    range_end,
                };
                propose(|it| it.auth_role_revoke_permission = Some(revoke))
            }
            13 => propose(|it| {
                let name = user.to_owned();
                it.auth_user_get = Some(pb::AuthUserGetRequest { name });
            }),
            14 => propose(|it| it.auth_enable = Some(pb::AuthEnableRequest {})),
            _ if self.stream.chance(300_000) => {
                propose(|it| it.auth_disable = Some(pb::AuthDisableRequest {}))
            }
            _ => propose(|it| it.auth_role_add = Some(pb::AuthRoleAddRequest { name: role })),
        }
    }

    fn draw_grant(&mut self, name: String) -> Call {
        let (key, range_end) = self.draw_keys();
        let perm = Some(Permission {
            perm_type: self.stream.below(3) as i32,
            key,
            range_end,
        });
        let grant = pb::AuthRoleGrantPermissionRequest { name, perm };
        propose(|it| it.auth_role_grant_permission = Some(grant))
    }
}

fn add_user(name: &str) -> Call {
    let add = pb::AuthUserAddRequest {
        name: name.to_owned(),
        hashed_password: PASSWORD.to_owned(),
        ..pb::AuthUserAddRequest::default()
    };
    propose(|it| it.auth_user_add = Some(add))
}

fn grant_role(user: &str, role: &str) -> Call {
    let (user, role) = (user.to_owned(), role.to_owned());
    propose(|it| it.auth_user_grant_role = Some(pb::AuthUserGrantRoleRequest { user, role }))
}

/// Whether a request is about users and roles.
pub(super) fn is_asked(request: &pb::InternalRaftRequest) -> bool {
    Auth::concerns(request)
}

impl World {
    /// Who a client is at a member, which has looked at its credentials by the rules of this moment.
    pub(super) fn identity(&self, member: MemberId, client: usize) -> Identity {
        if !self.options.load.has_auth() {
            return Identity::default();
        }
        let process = self.machines[&member].process.as_ref();
        let rules = process.expect("a running member").node.auth().rules();
        let client = self.clients.get(client);
        let with_user = client.filter(|it| it.group.work == Work::Auth);
        let user = with_user.map_or(ROOT, |client| client.user);
        if !rules.is_enabled() || user.is_empty() {
            return Identity::default();
        }
        Identity {
            user: user.to_owned(),
            revision: rules.revision(),
        }
    }

    /// Whether somebody may read a range at a member, as the member decides it and the model does.
    pub(super) fn judge_permission(
        &mut self,
        member: MemberId,
        who: &Identity,
        request: &pb::RangeRequest,
    ) -> Result<Result<(), RequestError>, Violation> {
        if !self.options.load.has_auth() {
            return Ok(Ok(()));
        }
        let process = self.machines[&member].process.as_ref();
        let node = &process.expect("a running member").node;
        let rules = node.auth().rules();
        let expected = self.ledger.model().auth_at(node.applied().0);
        let range = (&request.key[..], &request.range_end[..]);
        let decided = auth::check_read(&mut self.facts, member, (&rules, expected), who, range)?;
        if let Err(error) = &decided {
            self.mark_denied(error);
        }
        Ok(decided)
    }

    /// The rules that a member goes by, and what it would say to everybody about some keys.
    pub(super) fn audit_rules(&mut self, member: MemberId) -> Result<(), Violation> {
        if !self.options.load.has_auth() {
            return Ok(());
        }
        let process = self.machines[&member].process.as_ref();
        let node = &process.expect("a running member").node;
        let rules = node.auth().rules();
        let expected = self.ledger.model().auth_at(node.applied().0);
        let facts = &mut self.facts;
        auth::check_rules(facts, member, &rules, expected)?;
        for user in [ROOT, "ann", "bob"] {
            let who = Identity {
                user: user.to_owned(),
                revision: expected.revision,
            };
            for number in 0..4 {
                let (key, end) = (
                    super::workload::key(number),
                    super::workload::key(number + 3),
                );
                for end in [Bytes::new(), end] {
                    let range = (&key[..], &end[..]);
                    auth::check_read(facts, member, (&rules, expected), &who, range)?
                        .unwrap_or_default();
                }
            }
        }
        Ok(())
    }
}
