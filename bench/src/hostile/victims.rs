//! The well-behaved clients: they write and read now and then, and note how long it takes.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use quorate_net::client::{Client, Config, Endpoint};
use quorate_proto::etcdserverpb as pb;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::LOOK_INTERVAL;

/// How many there are.
const CLIENTS: usize = 4;
/// Between the beginnings of two calls of one of them.
const PACE: Duration = Duration::from_millis(10);
/// What is there to be read: so many values of so many bytes.
const FILLED: (usize, usize) = (80, 100_000);

/// No call takes longer: it is given up before.
const LATENCY_MAX_US: u64 = 60_000_000;

/// How long calls took.
pub(super) struct Latencies {
    histogram: Histogram<u64>,
    pub(super) calls: u64,
    pub(super) failed: u64,
}

impl Latencies {
    fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        let histogram = histogram.expect("three digits are possible");
        Self {
            histogram,
            calls: 0,
            failed: 0,
        }
    }

    pub(super) fn p99_ms(&self) -> f64 {
        self.histogram.value_at_quantile(0.99) as f64 / 1000.0
    }
}

pub(super) struct Victims {
    clients: Vec<Client>,
}

impl Victims {
    pub(super) fn new(url: &str) -> Result<Self, String> {
        let endpoint: Endpoint = url.parse().map_err(|error| format!("{error}"))?;
        let clients = (0..CLIENTS).map(|_| {
            let config = Config {
                endpoints: vec![endpoint.clone()],
                ..Config::default()
            };
            Client::new(config).map_err(|error| error.to_string())
        });
        Ok(Self {
            clients: clients.collect::<Result<_, _>>()?,
        })
    }

    /// One linearizable read on each connection.
    pub(super) async fn ask(&self) -> Result<(), String> {
        for client in &self.clients {
            let range = pb::RangeRequest {
                key: "victim".into(),
                ..pb::RangeRequest::default()
            };
            let answer = client.range(range).await;
            answer.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Writes something that is worth an attacker's reading.
    pub(super) async fn fill(&self) -> Result<(), String> {
        let (count, bytes) = FILLED;
        for number in 0..count {
            let put = put(format!("filled/{number}"), vec![b'f'; bytes]);
            let answer = self.clients[0].put(put).await;
            answer.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Calls for some time, and looks at something now and then.
    pub(super) async fn work(&self, time: Duration, mut look: impl FnMut()) -> Latencies {
        let sum = RefCell::new(Latencies::new());
        let end = Instant::now() + time;
        let looking = async {
            while Instant::now() < end {
                look();
                sleep(LOOK_INTERVAL).await;
            }
        };
        let [a, b, c, d] = [0, 1, 2, 3].map(|number| self.call_until(number, end, &sum));
        tokio::join!(looking, a, b, c, d);
        sum.into_inner()
    }

    async fn call_until(&self, number: usize, end: Instant, sum: &RefCell<Latencies>) {
        let client = &self.clients[number];
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_write = false;
        while Instant::now() < end {
            pace.tick().await;
            is_write = !is_write;
            let began = Instant::now();
            let call = async {
                if is_write {
                    let put = put("victim".to_owned(), b"alive".to_vec());
                    client.put(put).await.map(|_| ())
                } else {
                    let range = pb::RangeRequest {
                        key: "victim".into(),
                        ..pb::RangeRequest::default()
                    };
                    client.range(range).await.map(|_| ())
                }
            };
            let answer = timeout(Duration::from_secs(5), call).await;
            let mut sum = sum.borrow_mut();
            sum.calls += 1;
            match answer {
                Ok(Ok(())) => sum
                    .histogram
                    .saturating_record(began.elapsed().as_micros() as u64),
                _ => sum.failed += 1,
            }
        }
    }
}

fn put(key: String, value: Vec<u8>) -> pb::PutRequest {
    pb::PutRequest {
        key: key.into(),
        value: value.into(),
        ..pb::PutRequest::default()
    }
}
