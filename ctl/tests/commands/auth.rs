//! `auth`, `user` and `role`.

use expect_test::expect;

use super::{check, run_with};

#[test]
fn a_role_shows_its_permissions_in_every_format() {
    check(
        "role get r",
        expect![[r#"
        Role r
        KV Read:
        	[a, z)
        	[f, <open ended>
        	k
        KV Write:
        	[a, z)
        	[f, <open ended>
        	[p, q) (prefix p)
        exit 0
    "#]],
    );
    check(
        "role get r -w fields",
        expect![[r#"
        "ClusterID" : 10144879847569953045
        "MemberID" : 12428976124636271536
        "Revision" : 1
        "RaftTerm" : 2
        "PermType" :  READWRITE
        "Key" : "a"
        "RangeEnd" : "z"
        "PermType" :  READWRITE
        "Key" : "f"
        "RangeEnd" : "\x00"
        "PermType" :  READ
        "Key" : "k"
        "RangeEnd" : ""
        "PermType" :  WRITE
        "Key" : "p"
        "RangeEnd" : "q"
        exit 0
    "#]],
    );
    check(
        "role get r -w json",
        expect![[r#"
        {"header":{"cluster_id":10144879847569953045,"member_id":12428976124636271536,"revision":1,"raft_term":2},"perm":[{"permType":2,"key":"YQ==","range_end":"eg=="},{"permType":2,"key":"Zg==","range_end":"AA=="},{"key":"aw=="},{"permType":1,"key":"cA==","range_end":"cQ=="}]}
        exit 0
    "#]],
    );
    check(
        "role get r -w table",
        expect![[r#"
        2> Error: table not supported as output format
        exit 4
    "#]],
    );
    check(
        "role get nope",
        expect![[r#"
        2> Error: etcdserver: role name not found
        exit 1
    "#]],
    );
    check(
        "role list",
        expect![[r#"
        r
        r2
        exit 0
    "#]],
    );
    check(
        "role list -w fields",
        expect![[r#"
        "ClusterID" : 10144879847569953045
        "MemberID" : 12428976124636271536
        "Revision" : 1
        "RaftTerm" : 2
        "Roles" : "r" "r2"
        exit 0
    "#]],
    );
}

#[test]
fn a_user_is_shown_with_its_roles() {
    check(
        "user get a",
        expect![[r#"
        User: a
        Roles: r r2
        exit 0
    "#]],
    );
    check(
        "user get a -w json",
        expect![[r#"
        {"header":{"cluster_id":10144879847569953045,"member_id":12428976124636271536,"revision":1,"raft_term":2},"roles":["r","r2"]}
        exit 0
    "#]],
    );
    check(
        "user get a -w fields",
        expect![[r#"
        2> Error: fields not supported as output format
        exit 4
    "#]],
    );
    check(
        "user get a --detail",
        expect![[r#"
        User: a

        Role r
        KV Read:
        	[a, z)
        	[f, <open ended>
        	k
        KV Write:
        	[a, z)
        	[f, <open ended>
        	[p, q) (prefix p)

        Role r2
        KV Read:
        KV Write:
        exit 0
    "#]],
    );
    check(
        "user list",
        expect![[r#"
        a
        n
        exit 0
    "#]],
    );
    check(
        "auth status",
        expect![[r#"
        Authentication Status: true
        AuthRevision: 29
        exit 0
    "#]],
    );
    check(
        "auth status -w json",
        expect![[r#"
        {"header":{"cluster_id":10144879847569953045,"member_id":12428976124636271536,"revision":1,"raft_term":2},"enabled":true,"authRevision":29}
        exit 0
    "#]],
    );
}

#[test]
fn what_is_done_to_users_and_roles_is_said() {
    check(
        "user add b:p",
        expect![[r#"
        User b created
        exit 0
    "#]],
    );
    check(
        "user add b --no-password -w json",
        expect![[r#"
        {"header":{"cluster_id":10144879847569953045,"member_id":12428976124636271536,"revision":1,"raft_term":2}}
        exit 0
    "#]],
    );
    check(
        "user delete b",
        expect![[r#"
        User b deleted
        exit 0
    "#]],
    );
    check(
        "user grant-role a r",
        expect![[r#"
        Role r is granted to user a
        exit 0
    "#]],
    );
    check(
        "user revoke-role a r -w fields",
        expect![[r#"
        "ClusterID" : 10144879847569953045
        "MemberID" : 12428976124636271536
        "Revision" : 1
        "RaftTerm" : 2
        exit 0
    "#]],
    );
    check(
        "role add r",
        expect![[r#"
        Role r created
        exit 0
    "#]],
    );
    check(
        "role delete r",
        expect![[r#"
        Role r deleted
        exit 0
    "#]],
    );
    check(
        "role grant-permission r read k",
        expect![[r#"
        Role r updated
        exit 0
    "#]],
    );
    check(
        "role revoke-permission r k",
        expect![[r#"
        Permission of key k is revoked from role r
        exit 0
    "#]],
    );
    check(
        "role revoke-permission r p --prefix",
        expect![[r#"
        Permission of range [p, q) is revoked from role r
        exit 0
    "#]],
    );
    check(
        "role revoke-permission r f --from-key",
        expect![[r#"
        Permission of range [f, <open ended> is revoked from role r
        exit 0
    "#]],
    );
    check(
        "auth disable",
        expect![[r#"
        Authentication Disabled
        exit 0
    "#]],
    );
}

#[test]
fn arguments_of_users_and_roles_are_checked_first() {
    check(
        "user add",
        expect![[r#"
        2> Error: user add command requires user name as its argument
        exit 128
    "#]],
    );
    check(
        "user add :x",
        expect![[r#"
        2> Error: empty user name is not allowed
        exit 128
    "#]],
    );
    check(
        "user grant-role a",
        expect![[r#"
        2> Error: user grant command requires user name and role name as its argument
        exit 128
    "#]],
    );
    check(
        "user revoke-role a",
        expect![[r#"
        2> Error: user revoke-role requires user name and role name as its argument
        exit 128
    "#]],
    );
    check(
        "role grant-permission r read",
        expect![[r#"
        2> Error: role grant command requires role name, permission type, and key [endkey] as its argument
        exit 128
    "#]],
    );
    check(
        "role grant-permission r foo a",
        expect![[r#"
        2> Error: invalid permission type: foo
        exit 128
    "#]],
    );
    check(
        "role grant-permission r read a b --prefix",
        expect![[r#"
        2> Error: unexpected endkey argument with --prefix flag
        exit 128
    "#]],
    );
    check(
        "role grant-permission r read a --prefix --from-key",
        expect![[r#"
            2> Error: --from-key and --prefix flags are mutually exclusive
            exit 128
        "#]],
    );
    check(
        "auth enable x",
        expect![[r#"
        2> Error: auth enable command does not accept any arguments
        exit 128
    "#]],
    );
}

#[test]
fn permissions_are_asked_for_as_ranges() {
    let asked = |command_line: &str| {
        let arguments: Vec<&str> = command_line.split(' ').collect();
        run_with(&arguments, b"", &[]).1.join("\n")
    };
    expect![[r#"AuthRoleGrantPermissionRequest { name: "r", perm: Some(Permission { perm_type: Readwrite, key: b"p", range_end: b"q" }) }"#]].assert_eq(&asked("role grant-permission r readwrite p --prefix"));
    expect![[r#"AuthRoleGrantPermissionRequest { name: "r", perm: Some(Permission { perm_type: Write, key: b"\0", range_end: b"\0" }) }"#]].assert_eq(&asked("role grant-permission r WRITE  --from-key"));
    expect![[r#"AuthRoleRevokePermissionRequest { role: "r", key: b"a", range_end: b"z" }"#]]
        .assert_eq(&asked("role revoke-permission r a z"));
}

#[test]
fn a_password_may_come_from_stdin() {
    let (text, asked) = run_with(
        &["user", "passwd", "a", "--interactive=false"],
        b"new one\n",
        &[],
    );
    expect![[r#"
        Password updated
        exit 0
    "#]]
    .assert_eq(&text);
    expect![[
        r#"AuthUserChangePasswordRequest { name: "a", password: "new", hashed_password: "" }"#
    ]]
    .assert_eq(&asked.join("\n"));
}

#[test]
fn enabling_auth_gives_root_its_role() {
    let (text, asked) = run_with(&["auth", "enable"], b"", &[]);
    expect![[r#"
        Authentication Enabled
        exit 0
    "#]]
    .assert_eq(&text);
    expect![[r#"
        AuthEnableRequest
        AuthRoleAddRequest { name: "root" }
        AuthUserGrantRoleRequest { user: "root", role: "root" }
        AuthEnableRequest"#]]
    .assert_eq(&asked.join("\n"));
}
