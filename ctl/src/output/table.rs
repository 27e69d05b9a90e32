//! Columns between lines, as etcdctl 3.7 draws them; and the rows, which the simple format shares.

use quorate_proto::etcdserverpb as pb;

use super::{Answer, HashKv, Health, Status};
use crate::failure::Failure;

const MEMBER_COLUMNS: &[&str] = &[
    "ID",
    "STATUS",
    "NAME",
    "PEER ADDRS",
    "CLIENT ADDRS",
    "IS LEARNER",
];
const HEALTH_COLUMNS: &[&str] = &["ENDPOINT", "HEALTH", "TOOK", "ERROR"];
const HASH_KV_COLUMNS: &[&str] = &["ENDPOINT", "HASH", "HASH REVISION"];
const STATUS_COLUMNS: &[&str] = &[
    "ENDPOINT",
    "ID",
    "VERSION",
    "STORAGE VERSION",
    "DB SIZE",
    "IN USE",
    "PERCENTAGE NOT IN USE",
    "QUOTA",
    "IS LEADER",
    "IS LEARNER",
    "RAFT TERM",
    "RAFT INDEX",
    "RAFT APPLIED INDEX",
    "ERRORS",
    "DOWNGRADE TARGET VERSION",
    "DOWNGRADE ENABLED",
];

pub(super) fn render(answer: &Answer<'_>) -> Result<Vec<u8>, Failure> {
    let text = match answer {
        Answer::Members(response) => draw(MEMBER_COLUMNS, &member_rows(response)),
        Answer::Health(list) => draw(HEALTH_COLUMNS, &health_rows(list)),
        Answer::Status(list) => draw(STATUS_COLUMNS, &status_rows(list)),
        Answer::HashKv(list) => draw(HASH_KV_COLUMNS, &hash_kv_rows(list)),
        _ => return Err(super::unsupported("table")),
    };
    Ok(text.into_bytes())
}

/// Names in the middle, cells to the right.
fn draw(columns: &[&str], rows: &[Vec<String>]) -> String {
    let width_of = |text: &str| text.chars().count();
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| {
            let cells = rows.iter().map(|row| width_of(&row[column]));
            cells.max().unwrap_or(0).max(width_of(columns[column]))
        })
        .collect();
    let border = |left: &str, middle: &str, right: &str| {
        let parts: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", parts.join(middle))
    };
    let line = |cells: Vec<String>| format!("│ {} │\n", cells.join(" │ "));

    let mut text = border("┌", "┬", "┐");
    let names = columns.iter().zip(&widths);
    text += &line(
        names
            .map(|(name, width)| format!("{name:^width$}"))
            .collect(),
    );
    if !rows.is_empty() {
        text += &border("├", "┼", "┤");
    }
    for row in rows {
        let cells = row.iter().zip(&widths);
        text += &line(
            cells
                .map(|(cell, width)| format!("{cell:>width$}"))
                .collect(),
        );
    }
    text + &border("└", "┴", "┘")
}

pub(super) fn member_rows(response: &pb::MemberListResponse) -> Vec<Vec<String>> {
    let row = |member: &pb::Member| {
        let status = if member.name.is_empty() {
            "unstarted"
        } else {
            "started"
        };
        vec![
            format!("{:x}", member.id),
            status.to_string(),
            member.name.clone(),
            member.peer_urls.join(","),
            member.client_urls.join(","),
            member.is_learner.to_string(),
        ]
    };
    response.members.iter().map(row).collect()
}

fn health_rows(list: &[Health]) -> Vec<Vec<String>> {
    let row = |health: &Health| {
        vec![
            health.endpoint.clone(),
            health.error.is_empty().to_string(),
            health.took.clone(),
            health.error.clone(),
        ]
    };
    list.iter().map(row).collect()
}

pub(super) fn status_rows(list: &[Status]) -> Vec<Vec<String>> {
    let row = |status: &Status| {
        let response = &status.response;
        let member = response.header.unwrap_or_default().member_id;
        let downgrade = response.downgrade_info.clone().unwrap_or_default();
        vec![
            status.endpoint.clone(),
            format!("{member:x}"),
            response.version.clone(),
            response.storage_version.clone(),
            size(response.db_size),
            size(response.db_size_in_use),
            format!(
                "{}%",
                unused_percent(response.db_size, response.db_size_in_use)
            ),
            size(response.db_size_quota),
            (response.leader == member).to_string(),
            response.is_learner.to_string(),
            response.raft_term.to_string(),
            response.raft_index.to_string(),
            response.raft_applied_index.to_string(),
            response.errors.join(", "),
            downgrade.target_version,
            downgrade.enabled.to_string(),
        ]
    };
    list.iter().map(row).collect()
}

pub(super) fn hash_kv_rows(list: &[HashKv]) -> Vec<Vec<String>> {
    let row = |hash: &HashKv| {
        vec![
            hash.endpoint.clone(),
            hash.response.hash.to_string(),
            hash.response.hash_revision.to_string(),
        ]
    };
    list.iter().map(row).collect()
}

/// etcdctl divides by zero when a server reports no size; an empty database has nothing unused.
fn unused_percent(size: i64, used: i64) -> i64 {
    if size == 0 {
        return 0;
    }
    100 - used.saturating_mul(100) / size
}

/// Decimal units, two digits below ten.
pub(crate) fn size(bytes: i64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let bytes = bytes.cast_unsigned();
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let power = bytes.ilog(1000);
    let value = (bytes as f64 / 1000f64.powi(power.cast_signed()) * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS[power as usize];
    if value < 10.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_as_etcdctl_rounds_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (20_480, "20 kB"),
            (24_576, "25 kB"),
            (28_672, "29 kB"),
            (2_147_483_648, "2.1 GB"),
            (999_999, "1000 kB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn percentages_are_cut_after_dividing_the_used_part() {
        assert_eq!(unused_percent(28_672, 20_480), 29);
        assert_eq!(unused_percent(28_672, 24_576), 15);
        assert_eq!(unused_percent(0, 0), 0);
    }

    #[test]
    fn names_stand_in_the_middle_and_cells_at_the_right() {
        let rows = [vec![
            "127.0.0.1:41361".into(),
            "2587454935".into(),
            "2".into(),
        ]];
        expect_test::expect![[r#"
            ┌─────────────────┬────────────┬───────────────┐
            │    ENDPOINT     │    HASH    │ HASH REVISION │
            ├─────────────────┼────────────┼───────────────┤
            │ 127.0.0.1:41361 │ 2587454935 │             2 │
            └─────────────────┴────────────┴───────────────┘
        "#]]
        .assert_eq(&draw(HASH_KV_COLUMNS, &rows));
    }
}
