//! The load: the objects, their requests, signed in advance, and one sending thread per connection.

use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use keyhole_tests::CustomerKey;
use keyhole_tests::sigv4::{Signer, amz_date, encode_path, signed_headers};

use crate::process::{Cores, Usage};
use crate::wire::{Connection, Connector, Reply};
use crate::{Error, Result};

/// Range in which bodies start within the same random bytes, so that neighbouring objects differ.
const SPREAD: usize = 1 << 20;

/// Alignment of the starts of bodies.
const STEP: usize = 4096;

/// Seed of the random bytes, fixed so that all runs use the same ones.
const SEED: u64 = 7;

/// Objects that a filling thread takes at a time.
const FILL_STEP: usize = 64;

/// Maximum distinguishable latency, in ns: one minute.
const LATENCY_MAX: u64 = 60_000_000_000;

/// Significant figures of latencies.
const FIGURES: u8 = 3;

/// Delay after a 503 SlowDown.
const SLOW_DOWN: Duration = Duration::from_millis(100);

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const DONE: u8 = 2;

/// The location of objects, and how requests for them are made.
#[derive(Clone)]
pub struct Store {
    /// Opens the connections.
    pub connector: Arc<Connector>,
    /// Signs the requests. Without it requests are those for a file server, which has no buckets to
    /// create.
    pub signer: Option<Signer>,
    /// The bucket of all objects.
    pub bucket: String,
    /// The SSE-C headers, if the objects are encrypted with a customer key.
    pub key_headers: Vec<(String, String)>,
}

/// Numbered objects, each with its own reproducible bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Objects {
    /// Prefix of their keys; the number follows.
    pub prefix: String,
    /// Number of objects.
    pub count: usize,
    /// Size of each object in bytes.
    pub size: usize,
}

/// An operation on objects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Operation {
    /// PutObject.
    Put,
    /// GetObject.
    Get,
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Run {
    /// The operation.
    pub operation: Operation,
    /// Number of connections, each with one request in flight.
    pub connections: usize,
    /// Maximum number of objects to request, spread over all. Their requests are signed before the
    /// measurement.
    pub sample: usize,
    /// Duration of the warm-up.
    pub warmup: Duration,
    /// Duration of the measurement.
    pub time: Duration,
    /// Whether each connection sends its requests only once: the measurement then ends with the last
    /// of them.
    pub once: bool,
    /// Whether received data are compared.
    pub checked: bool,
    /// The processes of the server.
    pub servers: Vec<u32>,
}

/// The result of a measurement.
pub struct Measured {
    /// Actual duration.
    pub time: Duration,
    /// Operations answered during the measurement.
    pub operations: u64,
    /// Bytes of bodies transferred during the measurement.
    pub bytes: u64,
    /// SlowDown answers, which do not count as operations.
    pub slow_down: u64,
    /// Latencies in ns of operations that began and ended during the measurement.
    pub latencies: Histogram<u64>,
    /// Total usage of the server's processes, if known.
    pub server: Option<Usage>,
    /// Usage of this process.
    pub own: Usage,
    /// Usage of the machine.
    pub cores: Cores,
}

/// A serialised request and the start of its object's bytes.
struct SignedRequest {
    head: Vec<u8>,
    from: usize,
}

/// Counters of a thread, readable by others.
#[derive(Default)]
struct Count {
    operations: AtomicU64,
    bytes: AtomicU64,
    slow_down: AtomicU64,
}

impl Count {
    fn now(&self) -> [u64; 3] {
        [&self.operations, &self.bytes, &self.slow_down].map(|count| count.load(Ordering::Relaxed))
    }
}

fn totals(counts: &[Count]) -> [u64; 3] {
    counts.iter().map(Count::now).fold([0; 3], |sum, count| [0, 1, 2].map(|i| sum[i] + count[i]))
}

impl Objects {
    /// Returns the bytes that the bodies of all objects are slices of.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size + SPREAD];
        fastrand::Rng::with_seed(SEED).fill(&mut bytes);
        bytes
    }

    /// Returns the start of an object's body in these bytes.
    fn from(number: usize) -> usize {
        number.wrapping_mul(STEP) % SPREAD
    }

    /// Returns the numbers of the objects that a connection requests, in this order: at most
    /// `sample` over all connections, but at least one each, spread over all objects.
    fn sample(&self, sample: usize, connections: usize, connection: usize) -> Vec<usize> {
        let each = (sample.min(self.count) / connections).max(1);
        let slots = (each * connections) as u128;
        let number = |turn: usize| {
            let slot = turn * connections + connection;
            if slots <= self.count as u128 {
                (slot as u128 * self.count as u128 / slots) as usize
            } else {
                slot % self.count
            }
        };
        let mut numbers: Vec<usize> = (0..each).map(number).collect();
        fastrand::Rng::with_seed(connection as u64).shuffle(&mut numbers);
        numbers
    }
}

/// Returns the current time as for `x-amz-date`.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
    amz_date(i64::try_from(since).unwrap_or(0))
}

/// Returns the SSE-C headers of a customer key, as [`Store`] takes them.
pub fn key_headers(key: &CustomerKey) -> Vec<(String, String)> {
    key.headers().to_vec()
}

impl Store {
    /// Creates the bucket, if it does not exist.
    ///
    /// # Errors
    /// The endpoint refuses, or does not answer.
    pub fn make_bucket(&self) -> Result<()> {
        if self.signer.is_none() {
            return Ok(());
        }
        let bucket = Store { key_headers: Vec::new(), ..self.clone() };
        let mut connection = self.connector.connect()?;
        connection.send(&bucket.head("PUT", &format!("/{}", self.bucket), &now(), 0), &[], |_| {})?;
        let reply = connection.receive(None, 0, |_| {})?;
        // The bucket exists: it is ours, or the first put fails.
        if reply.status == 409 { Ok(()) } else { succeeded(&reply) }
    }

    /// Puts some of the objects once each, over this many connections.
    ///
    /// # Errors
    /// The endpoint refuses, or does not answer.
    pub fn fill(&self, objects: &Objects, numbers: Range<usize>, connections: usize) -> Result<()> {
        let bytes = &objects.bytes()[..];
        let next = &AtomicUsize::new(numbers.start);
        let end = numbers.end;
        thread::scope(|scope| {
            let one = || -> Result<()> {
                let mut connection = self.connector.connect()?;
                loop {
                    let begin = next.fetch_add(FILL_STEP, Ordering::Relaxed);
                    if begin >= end {
                        return Ok(());
                    }
                    let date = now();
                    for number in begin..(begin + FILL_STEP).min(end) {
                        let request = self.request(objects, Operation::Put, number, &date);
                        self.put_until_taken(&mut connection, objects, &request, bytes)?;
                    }
                }
            };
            let filling: Vec<_> = (0..connections).map(|_| scope.spawn(one)).collect();
            filling.into_iter().try_for_each(joined)
        })
    }

    fn put_until_taken(
        &self,
        connection: &mut Connection,
        objects: &Objects,
        request: &SignedRequest,
        bytes: &[u8],
    ) -> Result<()> {
        loop {
            let reply = put(connection, objects, request, bytes, |_| {})?;
            if !reply.keeps {
                *connection = self.connector.connect()?;
            }
            if reply.status != 503 {
                return succeeded(&reply);
            }
            thread::sleep(SLOW_DOWN);
        }
    }

    /// Runs and measures a load. Objects to get must exist.
    ///
    /// # Errors
    /// The endpoint refuses, does not answer, or answers with wrong bytes, or a server process does
    /// not exist.
    pub fn run(&self, objects: &Objects, run: &Run) -> Result<Measured> {
        let bytes = &objects.bytes()[..];
        let phase = AtomicU8::new(WARMING);
        let counts: Vec<Count> = (0..run.connections).map(|_| Count::default()).collect();
        let signed = Barrier::new(run.connections + 1);
        let work = |connection: usize, count| {
            let date = now();
            let numbers = objects.sample(run.sample, run.connections, connection);
            let sign = |number| self.request(objects, run.operation, number, &date);
            let requests: Vec<SignedRequest> = numbers.into_iter().map(sign).collect();
            signed.wait();
            Worker { store: self, objects, run, requests: &requests, bytes, phase: &phase, count }.work()
        };
        let work = &work;
        thread::scope(|scope| {
            let spawn = |(connection, count)| scope.spawn(move || work(connection, count));
            let working: Vec<_> = counts.iter().enumerate().map(spawn).collect();
            signed.wait();
            // A thread that fails ends all of them early and returns the error.
            let is_over = || phase.load(Ordering::Relaxed) == DONE || working.iter().all(|one| one.is_finished());
            let wait = |time: Duration| {
                let until = Instant::now() + time;
                let step = Duration::from_millis(if run.once { 1 } else { 10 });
                while Instant::now() < until && !is_over() {
                    thread::sleep(until.saturating_duration_since(Instant::now()).min(step));
                }
            };
            wait(run.warmup);
            let usage = || -> Result<_> {
                let server = (!run.servers.is_empty()).then(|| Usage::of_all(&run.servers)).transpose();
                let server = server.map_err(|error| Error::of("the server's process", error))?;
                Ok((server, Usage::of(std::process::id())?, Cores::now()?))
            };
            let before = usage();
            let begun = Instant::now();
            let counted = totals(&counts);
            let _ = phase.compare_exchange(WARMING, MEASURING, Ordering::Relaxed, Ordering::Relaxed);
            wait(run.time);
            let time = begun.elapsed();
            let total = totals(&counts);
            let after = usage();
            phase.store(DONE, Ordering::Relaxed);
            let mut latencies = histogram()?;
            for worker in working {
                let of_one = joined(worker)?;
                latencies.add(&of_one).map_err(|error| Error::new(error.to_string()))?;
            }
            let ((server_before, own_before, cores_before), (server, own, cores)) = (before?, after?);
            let [operations, bytes, slow_down] = [0, 1, 2].map(|i| total[i] - counted[i]);
            let server = server.zip(server_before).map(|(after, before)| after.since(&before));
            let own = own.since(&own_before);
            let cores = cores.since(&cores_before);
            Ok(Measured { time, operations, bytes, slow_down, latencies, server, own, cores })
        })
    }

    fn request(&self, objects: &Objects, operation: Operation, number: usize, date: &str) -> SignedRequest {
        let path = encode_path(&format!("/{}/{}{number}", self.bucket, objects.prefix));
        let head = match operation {
            Operation::Put => self.head("PUT", &path, date, objects.size),
            Operation::Get => self.head("GET", &path, date, 0),
        };
        SignedRequest { head, from: Objects::from(number) }
    }

    /// Builds a request head, signed if there is a signer.
    fn head(&self, method: &str, path: &str, date: &str, len: usize) -> Vec<u8> {
        const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
        let host = self.connector.authority();
        let Some(signer) = &self.signer else {
            let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len}\r\n\r\n");
            return head.into_bytes();
        };
        let mut headers = vec![
            ("host".to_owned(), host.to_owned()),
            ("x-amz-content-sha256".to_owned(), UNSIGNED.to_owned()),
            ("x-amz-date".to_owned(), date.to_owned()),
        ];
        headers.extend(self.key_headers.iter().cloned());
        let signature = signer.signature(method, path, "", &headers, UNSIGNED, date);
        let credential = signer.credential(date);
        let signed = signed_headers(&headers);
        let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!(
            "{method} {path} HTTP/1.1\r\n{fields}content-length: {len}\r\nauthorization: AWS4-HMAC-SHA256 \
             Credential={credential}, SignedHeaders={signed}, Signature={signature}\r\n\r\n"
        )
        .into_bytes()
    }
}

fn body<'b>(objects: &Objects, request: &SignedRequest, bytes: &'b [u8]) -> &'b [u8] {
    &bytes[request.from..request.from + objects.size]
}

fn put(
    connection: &mut Connection,
    objects: &Objects,
    request: &SignedRequest,
    bytes: &[u8],
    moved: impl FnMut(usize),
) -> Result<Reply> {
    let sent = connection.send(&request.head, body(objects, request, bytes), moved);
    // A server that refuses the head may stop reading and still answer.
    let answered = connection.receive(None, 0, |_| {});
    match (sent, answered) {
        (Ok(()), answered) | (Err(_), answered @ Ok(_)) => answered,
        (Err(error), Err(_)) => Err(error.into()),
    }
}

/// The thread of one connection.
struct Worker<'w> {
    store: &'w Store,
    objects: &'w Objects,
    run: &'w Run,
    requests: &'w [SignedRequest],
    bytes: &'w [u8],
    phase: &'w AtomicU8,
    count: &'w Count,
}

impl Worker<'_> {
    /// Sends its requests in a cycle until the run is over, and returns the latencies.
    fn work(&self) -> Result<Histogram<u64>> {
        let result = self.send_all();
        if result.is_err() {
            self.phase.store(DONE, Ordering::Relaxed);
        }
        result
    }

    fn send_all(&self) -> Result<Histogram<u64>> {
        let mut latencies = histogram()?;
        let mut connection = self.store.connector.connect()?;
        // This thread is the only writer.
        let add =
            |count: &AtomicU64, n: usize| count.store(count.load(Ordering::Relaxed) + n as u64, Ordering::Relaxed);
        let count = if self.run.once { self.requests.len() } else { usize::MAX };
        for request in self.requests.iter().cycle().take(count) {
            let in_phase = self.phase.load(Ordering::Relaxed);
            if in_phase == DONE {
                break;
            }
            let begun = Instant::now();
            let moved = |n| add(&self.count.bytes, n);
            let reply = match self.run.operation {
                Operation::Get => self.get(&mut connection, request, moved)?,
                Operation::Put => put(&mut connection, self.objects, request, self.bytes, moved)?,
            };
            let latency = begun.elapsed();
            if !reply.keeps {
                connection = self.store.connector.connect()?;
            }
            if reply.status == 503 {
                add(&self.count.slow_down, 1);
                thread::sleep(SLOW_DOWN);
                continue;
            }
            succeeded(&reply)?;
            add(&self.count.operations, 1);
            if in_phase == MEASURING && self.phase.load(Ordering::Relaxed) == MEASURING {
                latencies.saturating_record(latency.as_nanos() as u64);
            }
        }
        Ok(latencies)
    }

    fn get(&self, connection: &mut Connection, request: &SignedRequest, moved: impl FnMut(usize)) -> Result<Reply> {
        connection.send(&request.head, &[], |_| {})?;
        let expected = self.run.checked.then(|| body(self.objects, request, self.bytes));
        connection.receive(expected, self.objects.size, moved)
    }
}

fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LATENCY_MAX, FIGURES).map_err(|error| Error::new(error.to_string()))
}

fn succeeded(reply: &Reply) -> Result<()> {
    match reply.status {
        200..=299 => Ok(()),
        status => Err(Error::new(format!("unexpected response {status}: {}", reply.text))),
    }
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(Error::new("a thread has panicked")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn sample(count: usize, sample: usize, connections: usize) -> Vec<Vec<usize>> {
        let objects = Objects { prefix: String::new(), count, size: 1 };
        (0..connections).map(|connection| objects.sample(sample, connections, connection)).collect()
    }

    #[test]
    fn samples_are_spread_over_all_objects() {
        let all = sample(1_000_000, 65_536, 16);
        assert!(all.iter().all(|numbers| numbers.len() == 4096));
        let numbers: BTreeSet<usize> = all.into_iter().flatten().collect();
        assert_eq!(numbers.len(), 65_536, "connections share no object");
        let gaps = numbers.iter().zip(numbers.iter().skip(1)).map(|(a, b)| b - a).max();
        assert!(gaps <= Some(16) && numbers.last() > Some(&999_900) && numbers.first() == Some(&0));
    }

    #[test]
    fn small_samples_request_every_object() {
        let numbers: BTreeSet<usize> = sample(1000, 65_536, 8).into_iter().flatten().collect();
        assert_eq!(numbers.len(), 1000);
    }

    #[test]
    fn more_connections_than_objects_share_them() {
        let all = sample(4, 65_536, 6);
        assert!(all.iter().all(|numbers| numbers.len() == 1 && numbers[0] < 4));
        assert_eq!(all.into_iter().flatten().collect::<BTreeSet<usize>>().len(), 4);
    }

    #[test]
    fn bodies_lie_within_their_source() {
        let objects = Objects { prefix: String::new(), count: 5, size: 100 };
        let bytes = objects.bytes();
        for number in [0, 1, 255, 256, usize::MAX] {
            assert!(Objects::from(number) + objects.size <= bytes.len(), "{number}");
        }
        assert_ne!(bytes[Objects::from(0)..][..100], bytes[Objects::from(1)..][..100]);
        assert_eq!(bytes, objects.bytes(), "equal in the next run");
    }
}
