//! Asks a peer regularly whether it is there, and how long the way to it and back takes.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use super::client::call;
use super::limits::{ANSWER_BYTES_MAX, PROBE_INTERVAL};
use super::picker::EndpointPicker;
use super::status::Status;
use super::transport::Shared;

/// The path that answers probes.
pub(crate) const PATH: &str = "/raft/probing";

/// The answer to a probe.
#[derive(Debug, Serialize, Deserialize)]
struct Health {
    #[serde(rename = "OK")]
    ok: bool,
    #[serde(rename = "Now")]
    now: String,
}

/// The body of an answer given now.
pub(crate) fn answer() -> Vec<u8> {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let health = Health {
        ok: true,
        now: rfc3339(since_epoch.as_secs(), since_epoch.subsec_nanos()),
    };
    let mut body = serde_json::to_vec(&health).expect("two plain fields");
    body.push(b'\n');
    body
}

/// Probes until it is aborted.
pub(crate) async fn run(shared: Arc<Shared>, picker: Arc<EndpointPicker>, status: Arc<Status>) {
    loop {
        let started = Instant::now();
        if let Some(endpoint) = picker.pick() {
            let (headers, body) = (HeaderMap::new(), Bytes::new());
            let answer = call(
                shared.http(),
                Method::GET,
                endpoint.uri(PATH),
                headers,
                body,
                ANSWER_BYTES_MAX,
            )
            .await;
            let healthy = answer.is_ok_and(|answer| {
                answer.status == StatusCode::OK
                    && serde_json::from_slice::<Health>(&answer.body).is_ok_and(|health| health.ok)
            });
            status.probed(healthy.then(|| started.elapsed()));
        }
        sleep_until(started + PROBE_INTERVAL).await;
    }
}

/// Seconds and nanoseconds since 1970 as Go reads them: `2006-01-02T15:04:05.000000000Z`.
fn rfc3339(seconds: u64, nanoseconds: u32) -> String {
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (
        second_of_day / 3600,
        second_of_day / 60 % 60,
        second_of_day % 60,
    );
    // Days since 1 March of year 0, so that a leap day is the last of its year; eras of 400 years repeat.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_calendar_time() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_700_000_000, "2023-11-14T22:13:20.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(seconds, 0), text);
        }
    }
}
