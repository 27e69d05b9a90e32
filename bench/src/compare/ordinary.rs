//! An ordinary client: tonic's, many tasks on a few connections, as a usual program has it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use prost::Message as _;
use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb as pb;
use tonic::transport::Channel;

use super::work::Work;

/// Keeps `in_flight` requests open for `duration`; the answer holds microseconds.
pub(super) async fn run(
    url: &str,
    work: Work,
    keys: u64,
    in_flight: u64,
    duration: Duration,
) -> Result<Histogram<u64>, String> {
    let fail = |error: &dyn std::fmt::Display| format!("{url}: {error}");
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(
            KvClient::connect(url.to_string())
                .await
                .map_err(|error| fail(&error))?,
        );
    }
    let until = Instant::now() + duration;
    let tasks: Vec<_> = (0..in_flight)
        .map(|number| {
            let client = clients[usize::try_from(number).expect("small") % clients.len()].clone();
            tokio::spawn(one(client, work, number, in_flight, keys, until))
        })
        .collect();
    let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3).expect("legal bounds");
    for task in tasks {
        let seen = task
            .await
            .map_err(|error| fail(&error))?
            .map_err(|status| fail(&status))?;
        latency.add(seen).expect("equal bounds");
    }
    Ok(latency)
}

async fn one(
    mut client: KvClient<Channel>,
    work: Work,
    number: u64,
    clients: u64,
    keys: u64,
    until: Instant,
) -> Result<Histogram<u64>, tonic::Status> {
    let mut requests = work.requests(number, clients, keys);
    let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3).expect("legal bounds");
    let mut encoded = Vec::new();
    loop {
        let began = Instant::now();
        if began >= until {
            return Ok(latency);
        }
        encoded.clear();
        requests(&mut encoded);
        match work {
            Work::Put | Work::Fill => {
                let put = pb::PutRequest::decode(encoded.as_slice()).expect("just encoded");
                client.put(put).await?;
            }
            _ => {
                let range = pb::RangeRequest::decode(encoded.as_slice()).expect("just encoded");
                client.range(range).await?;
            }
        }
        latency.saturating_record(
            u64::try_from(began.elapsed().as_micros())
                .expect("a short wait")
                .max(1),
        );
    }
}
