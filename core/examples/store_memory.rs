//! Measures the store: `store_memory [KEYS]`, a million by default, of 32 bytes with values of 256.
//!
//! Prints the memory per key over the raw bytes, and the speed of puts, gets, ranges, counts, `HashKV`, compaction and
//! restore; and how long puts take while another thread reads the whole range again and again.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an example is its own shell"
)]

use std::convert::Infallible;
use std::error::Error;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quorate_core::mvcc::Store;
use quorate_core::{LeaseId, Revision};
use quorate_proto::etcdserverpb::RangeRequest;

const VALUE: [u8; 256] = [b'v'; 256];

fn main() -> Result<(), Box<dyn Error>> {
    let keys: u64 = std::env::args()
        .nth(1)
        .map_or(Ok(1_000_000), |keys| keys.parse())?;
    let mut store = Store::new();
    let before = resident_bytes()?;

    let begun = Instant::now();
    for number in 0..keys {
        put(&mut store, number);
    }
    speed("put, new keys in random order", keys, begun.elapsed());
    memory("one revision a key", &store, keys, before)?;

    let view = store.view();
    let begun = Instant::now();
    for number in 0..keys {
        black_box(view.get(&key(number * 7 % keys)));
    }
    speed("get", keys, begun.elapsed());

    for (name, limit) in [("range of 10,000 keys", 10_000), ("range of all keys", 0)] {
        let request = RangeRequest { limit, ..all() };
        let begun = Instant::now();
        let mut seen = 0;
        while seen < keys {
            seen += view.range(&request)?.kvs.len() as u64;
        }
        speed(name, seen, begun.elapsed());
    }
    let count = RangeRequest {
        count_only: true,
        ..all()
    };
    let begun = Instant::now();
    for _ in 0..1000 {
        black_box(view.range(&count)?);
    }
    speed("count of all keys", 1000, begun.elapsed());

    put_latency(&mut store, keys, false);
    put_latency(&mut store, keys, true);
    for _ in 0..2 {
        for number in 0..keys {
            put(&mut store, number);
        }
    }
    memory("more revisions a key", &store, keys, before)?;

    let begun = Instant::now();
    view.hash_kv(Revision(0))?;
    println!("{:<44} {:>10.1?}", "HashKV", begun.elapsed());

    let revision = store.revision();
    store.compact(revision)?;
    let (begun, mut worst) = (Instant::now(), Duration::ZERO);
    loop {
        let step = Instant::now();
        let done = store.compact_step(512);
        worst = worst.max(step.elapsed());
        if done {
            break;
        }
    }
    println!(
        "{:<44} {:>10.1?}, longest step {worst:.1?}",
        "compaction",
        begun.elapsed()
    );
    memory("after compaction", &store, keys, before)?;

    let begun = Instant::now();
    view.hash_kv(Revision(revision.0 - 1)).err();
    put(&mut store, 0);
    view.hash_kv(Revision(0))?;
    println!(
        "{:<44} {:>10.1?}",
        "HashKV after compaction",
        begun.elapsed()
    );

    let rows = view.history((0, 0), usize::MAX);
    let begun = Instant::now();
    let (restored, _) = Store::restore(
        rows.into_iter().map(Ok::<_, Infallible>),
        Some(revision),
        Some(revision),
    )?;
    println!("{:<44} {:>10.1?}", "restore", begun.elapsed());
    assert_eq!(
        restored.view().hash_kv(Revision(0))?,
        view.hash_kv(Revision(0))?
    );
    Ok(())
}

fn put_latency(store: &mut Store, keys: u64, beside_range: bool) {
    let done = &AtomicBool::new(false);
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        let view = store.view();
        scope.spawn(move || {
            while beside_range && !done.load(Ordering::Relaxed) {
                black_box(
                    view.range(&all())
                        .expect("the current revision is readable"),
                );
            }
        });
        for number in 0..200_000 {
            let begun = Instant::now();
            put(store, number % keys);
            times.push(begun.elapsed());
        }
        done.store(true, Ordering::Relaxed);
    });
    times.sort_unstable();
    let at = |part: f64| times[(times.len() as f64 * part) as usize];
    let name = if beside_range {
        "put beside a range of all keys"
    } else {
        "put alone"
    };
    println!(
        "{name:<44} p50 {:.1?} p99 {:.1?} p99.9 {:.1?} max {:.1?}",
        at(0.5),
        at(0.99),
        at(0.999),
        times[times.len() - 1]
    );
}

fn put(store: &mut Store, number: u64) {
    let mut txn = store.begin();
    txn.put(&key(number), &VALUE, LeaseId(0));
    txn.end();
}

/// 32 bytes; the numbers are scattered, so that keys do not come in order.
fn key(number: u64) -> [u8; 32] {
    let mut key = *b"registry/things/0000000000000000";
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for (place, digit) in key[16..].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(scattered >> (60 - 4 * place) & 15) as usize];
    }
    key
}

fn all() -> RangeRequest {
    RangeRequest {
        key: b"\0"[..].into(),
        range_end: b"\0"[..].into(),
        ..RangeRequest::default()
    }
}

fn speed(name: &str, operations: u64, elapsed: Duration) {
    let each = elapsed / u32::try_from(operations).unwrap_or(u32::MAX);
    println!(
        "{name:<44} {:>10.0} k/s, {each:.1?} each",
        operations as f64 / elapsed.as_secs_f64() / 1000.0
    );
}

fn memory(name: &str, store: &Store, keys: u64, before: u64) -> Result<(), Box<dyn Error>> {
    let raw = keys * (32 + VALUE.len() as u64);
    let own = store.view().memory_bytes() as u64;
    let resident = resident_bytes()?.saturating_sub(before);
    let over = |bytes: u64| (bytes as f64 - raw as f64) / keys as f64;
    println!(
        "memory, {name:<36} {:.0} MB, {:.1} B/key over raw; resident {:.0} MB, {:.1} B/key over raw",
        own as f64 / 1e6,
        over(own),
        resident as f64 / 1e6,
        over(resident)
    );
    Ok(())
}

fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let statm = String::from_utf8(std::fs::read("/proc/self/statm")?)?;
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .ok_or("statm has a second field")?
        .parse()?;
    Ok(pages * 4096)
}
