//! What is done: the objects, the requests that were signed for them, and the threads that send them, one for each connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use keyhole_tests::CustomerKey;
use keyhole_tests::sigv4::{Signer, amz_date, encode_path, signed_headers};

use crate::process::Usage;
use crate::wire::{Connection, Connector, Error, Reply};

/// Bodies of objects begin within this much of the same random bytes, so that no two neighbours are the same.
const SPREAD: usize = 1 << 20;

/// Bodies begin at a multiple of this.
const STEP: usize = 4096;

/// The longest latency that is told apart, in ns: a minute.
const LATENCY_MAX: u64 = 60_000_000_000;

/// Significant figures of latencies.
const FIGURES: u8 = 3;

/// How long to wait after a 503 SlowDown.
const SLOW_DOWN: Duration = Duration::from_millis(100);

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const DONE: u8 = 2;

/// What is to be measured.
pub(crate) struct Plan {
    pub(crate) connector: Arc<Connector>,
    /// Host and port, as `Host` says it.
    pub(crate) authority: String,
    pub(crate) signer: Signer,
    pub(crate) bucket: String,
    /// Gets; otherwise puts.
    pub(crate) reads: bool,
    /// Bytes of an object.
    pub(crate) size: usize,
    pub(crate) connections: usize,
    /// Objects of each connection.
    pub(crate) objects: usize,
    pub(crate) warmup: Duration,
    pub(crate) time: Duration,
    /// With a customer key.
    pub(crate) sealed: bool,
    /// What comes back is compared.
    pub(crate) checked: bool,
    /// The process of the server.
    pub(crate) server: Option<u32>,
}

/// What was measured.
pub(crate) struct Measured {
    pub(crate) time: Duration,
    /// Answered while it was measured.
    pub(crate) operations: u64,
    /// Of bodies, moved while it was measured.
    pub(crate) bytes: u64,
    /// Answers that asked for patience; they are no operations.
    pub(crate) slow_down: u64,
    /// In ns, of operations that were begun and answered while it was measured.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) server: Option<Usage>,
    pub(crate) own: Usage,
}

/// One object: its requests, and where its bytes begin.
struct Object {
    put: Vec<u8>,
    get: Vec<u8>,
    from: usize,
}

/// What a thread counts while others look.
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

impl Plan {
    /// Makes the bucket and what is to be read, runs, and measures.
    pub(crate) fn run(&self) -> Result<Measured, Error> {
        let date = amz_date(
            i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis())).unwrap_or(0),
        );
        let key = CustomerKey::random();
        let sse = if self.sealed { key.headers().to_vec() } else { Vec::new() };
        let mut bytes = vec![0; self.size + SPREAD];
        fastrand::fill(&mut bytes);
        let (bytes, date, sse) = (&bytes[..], &date[..], &sse[..]);

        self.make_bucket(date)?;
        let objects: Vec<Vec<Object>> = (0..self.connections).map(|worker| self.objects(worker, date, sse)).collect();
        if self.reads {
            thread::scope(|scope| {
                let filling: Vec<_> =
                    objects.iter().map(|objects| scope.spawn(move || self.fill(objects, bytes))).collect();
                filling.into_iter().try_for_each(joined)
            })?;
        }
        let phase = AtomicU8::new(WARMING);
        let counts: Vec<Count> = (0..self.connections).map(|_| Count::default()).collect();
        thread::scope(|scope| {
            let working: Vec<_> = objects
                .iter()
                .zip(&counts)
                .map(|(objects, count)| scope.spawn(|| self.work(objects, bytes, &phase, count)))
                .collect();
            // One that fails ends all of them early, and says why.
            let wait = |time: Duration| {
                let until = Instant::now() + time;
                while Instant::now() < until && phase.load(Ordering::Relaxed) != DONE {
                    thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(10)));
                }
            };
            wait(self.warmup);
            let usage = || -> Result<_, Error> {
                let server = self.server.map(Usage::of).transpose();
                let server = server.map_err(|error| Error::new(format!("the server's process: {error}")))?;
                Ok((server, Usage::of(std::process::id())?))
            };
            let before = usage();
            let (begun, counted) = (Instant::now(), totals(&counts));
            let _ = phase.compare_exchange(WARMING, MEASURING, Ordering::Relaxed, Ordering::Relaxed);
            wait(self.time);
            let (time, total, after) = (begun.elapsed(), totals(&counts), usage());
            phase.store(DONE, Ordering::Relaxed);
            let mut latencies = histogram()?;
            for worker in working {
                let of_one = joined(worker)?;
                latencies.add(&of_one).map_err(|error| Error::new(error.to_string()))?;
            }
            let ((server_before, own_before), (server, own)) = (before?, after?);
            let [operations, bytes, slow_down] = [0, 1, 2].map(|i| total[i] - counted[i]);
            let server = server.zip(server_before).map(|(after, before)| after.since(&before));
            Ok(Measured { time, operations, bytes, slow_down, latencies, server, own: own.since(&own_before) })
        })
    }

    fn make_bucket(&self, date: &str) -> Result<(), Error> {
        let path = format!("/{}", self.bucket);
        let mut connection = self.connector.connect()?;
        connection.send(&self.head("PUT", &path, date, &[], 0), &[], |_| {})?;
        let reply = connection.receive(None, 0, |_| {})?;
        // It is somebody's already: ours, or the first put says so.
        if reply.status == 409 { Ok(()) } else { succeeded(&reply) }
    }

    /// The objects of a connection.
    fn objects(&self, worker: usize, date: &str, sse: &[(String, String)]) -> Vec<Object> {
        let object = |i: usize| {
            let path = encode_path(&format!("/{}/{worker}/{i}", self.bucket));
            Object {
                put: self.head("PUT", &path, date, sse, self.size),
                get: self.head("GET", &path, date, sse, 0),
                from: (worker * self.objects + i) * STEP % SPREAD,
            }
        };
        (0..self.objects).map(object).collect()
    }

    /// A signed head.
    fn head(&self, method: &str, path: &str, date: &str, sse: &[(String, String)], len: usize) -> Vec<u8> {
        const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
        let mut headers = vec![
            ("host".to_owned(), self.authority.clone()),
            ("x-amz-content-sha256".to_owned(), UNSIGNED.to_owned()),
            ("x-amz-date".to_owned(), date.to_owned()),
        ];
        headers.extend(sse.iter().cloned());
        let signature = self.signer.signature(method, path, "", &headers, UNSIGNED, date);
        let (credential, signed) = (self.signer.credential(date), signed_headers(&headers));
        let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!(
            "{method} {path} HTTP/1.1\r\n{fields}content-length: {len}\r\nauthorization: AWS4-HMAC-SHA256 \
             Credential={credential}, SignedHeaders={signed}, Signature={signature}\r\n\r\n"
        )
        .into_bytes()
    }

    fn body<'b>(&self, object: &Object, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[object.from..object.from + self.size]
    }

    /// Puts what is to be read.
    fn fill(&self, objects: &[Object], bytes: &[u8]) -> Result<(), Error> {
        let mut connection = self.connector.connect()?;
        for object in objects {
            loop {
                let reply = self.put(&mut connection, object, bytes, |_| {})?;
                if !reply.keeps {
                    connection = self.connector.connect()?;
                }
                if reply.status != 503 {
                    succeeded(&reply)?;
                    break;
                }
                thread::sleep(SLOW_DOWN);
            }
        }
        Ok(())
    }

    fn put(
        &self,
        connection: &mut Connection,
        object: &Object,
        bytes: &[u8],
        moved: impl FnMut(usize),
    ) -> Result<Reply, Error> {
        let sent = connection.send(&object.put, self.body(object, bytes), moved);
        // A server that refuses the head may stop reading, and still answer.
        let answered = connection.receive(None, 0, |_| {});
        match (sent, answered) {
            (Ok(()), answered) | (Err(_), answered @ Ok(_)) => answered,
            (Err(error), Err(_)) => Err(error.into()),
        }
    }

    fn get(
        &self,
        connection: &mut Connection,
        object: &Object,
        bytes: &[u8],
        moved: impl FnMut(usize),
    ) -> Result<Reply, Error> {
        connection.send(&object.get, &[], |_| {})?;
        let expected = self.checked.then(|| self.body(object, bytes));
        connection.receive(expected, self.size, moved)
    }

    /// One connection's requests, one after the other, until all are done.
    fn work(&self, objects: &[Object], bytes: &[u8], phase: &AtomicU8, count: &Count) -> Result<Histogram<u64>, Error> {
        let result = self.requests(objects, bytes, phase, count);
        if result.is_err() {
            phase.store(DONE, Ordering::Relaxed);
        }
        result
    }

    fn requests(
        &self,
        objects: &[Object],
        bytes: &[u8],
        phase: &AtomicU8,
        count: &Count,
    ) -> Result<Histogram<u64>, Error> {
        let mut latencies = histogram()?;
        let mut connection = self.connector.connect()?;
        let add =
            |count: &AtomicU64, n: usize| count.store(count.load(Ordering::Relaxed) + n as u64, Ordering::Relaxed);
        for object in objects.iter().cycle() {
            let in_phase = phase.load(Ordering::Relaxed);
            if in_phase == DONE {
                break;
            }
            let begun = Instant::now();
            let moved = |n| add(&count.bytes, n);
            let reply = match self.reads {
                true => self.get(&mut connection, object, bytes, moved)?,
                false => self.put(&mut connection, object, bytes, moved)?,
            };
            let latency = begun.elapsed();
            if !reply.keeps {
                connection = self.connector.connect()?;
            }
            if reply.status == 503 {
                add(&count.slow_down, 1);
                thread::sleep(SLOW_DOWN);
                continue;
            }
            succeeded(&reply)?;
            add(&count.operations, 1);
            if in_phase == MEASURING && phase.load(Ordering::Relaxed) == MEASURING {
                latencies.saturating_record(latency.as_nanos() as u64);
            }
        }
        Ok(latencies)
    }
}

fn histogram() -> Result<Histogram<u64>, Error> {
    Histogram::new_with_bounds(1, LATENCY_MAX, FIGURES).map_err(|error| Error::new(error.to_string()))
}

fn succeeded(reply: &Reply) -> Result<(), Error> {
    match reply.status {
        200..=299 => Ok(()),
        status => Err(Error::new(format!("the answer was {status}: {}", reply.text))),
    }
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread.join().unwrap_or_else(|_| Err(Error::new("a thread has panicked")))
}
