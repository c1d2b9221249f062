//! A hostile load on a node with little memory, beside an honest client whose requests are measured.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::http::{Request, object};
use crate::{CustomerKey, Node};

/// Bytes that each slow client moves in a second: slightly more than the minimum rate of a node with
/// free memory.
const SLOW_RATE: usize = 300;

/// Length of the objects that slow clients send and receive.
const SLOW_LEN: usize = 8 << 20;

/// Lengths of the honest client's objects.
const HONEST: [(&str, usize); 2] = [("small", 4 << 10), ("large", 1 << 20)];

/// Parameters of a hostile load.
#[derive(Clone, Copy, Debug)]
pub struct HostileOptions {
    /// Open unsigned requests with bodies, slow uploads, and slow downloads, of each kind.
    pub connections: usize,
    /// Objects of 1 KiB in the bucket.
    pub keys: usize,
    /// Duration of the load, and of the measurement before it.
    pub time: Duration,
}

/// Latencies of requests and their failures.
#[derive(Default, Debug)]
pub struct Latencies {
    sorted: Vec<Duration>,
    /// Descriptions of requests that failed.
    pub failed: Vec<String>,
}

/// The result of a load.
#[derive(Debug)]
pub struct HostileFigures {
    /// The honest client without the load, and beside it.
    pub idle: Latencies,
    /// Beside the load.
    pub loaded: Latencies,
    /// The health checks beside the load.
    pub health: Latencies,
    /// The peak of resident memory in KiB.
    pub peak_kib: u64,
    /// Connections of the load that were opened, those included that replaced closed ones.
    pub opened: u64,
}

impl Latencies {
    fn finish(mut self) -> Self {
        self.sorted.sort_unstable();
        self
    }

    /// Returns the number of requests that succeeded.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// Returns the latency that this percentage of the requests does not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        let last = self.sorted.len().saturating_sub(1);
        self.sorted.get(last * percent / 100).copied().unwrap_or_default()
    }
}

impl HostileFigures {
    /// Formats the figures.
    pub fn lines(&self) -> String {
        let line = |name: &str, of: &Latencies| {
            let [half, most, all] = [50, 99, 100].map(|percent| of.percentile(percent));
            format!("{name}: {} requests, median {half:.1?}, p99 {most:.1?}, longest {all:.1?}\n", of.count())
        };
        let ratio = self.loaded.percentile(99).as_secs_f64() / self.idle.percentile(99).as_secs_f64();
        let all = line("idle", &self.idle) + &line("under load", &self.loaded) + &line("health", &self.health);
        let peak = self.peak_kib >> 10;
        format!(
            "{all}p99 {ratio:.1} times the idle one; resident at most {peak} MiB; {} hostile connections",
            self.opened
        )
    }
}

/// The kinds of a slow connection.
#[derive(Clone, Copy)]
enum Slow {
    /// An unsigned request that announces a body of 8 MB.
    Unsigned,
    Upload,
    Download,
    /// A request head that does not end.
    Head,
}

/// A slow connection; `None` while it is closed.
struct SlowConnection {
    kind: Slow,
    tcp: Option<TcpStream>,
}

impl SlowConnection {
    /// Opens the connection and sends the beginning of its request.
    fn open(&mut self, to: SocketAddr, heads: &Heads) -> std::io::Result<()> {
        let mut tcp = TcpStream::connect(to)?;
        let socket = SockRef::from(&tcp);
        socket.set_recv_buffer_size(16 << 10)?;
        let head = match self.kind {
            Slow::Unsigned => &heads.unsigned,
            Slow::Upload => &heads.upload,
            Slow::Download => &heads.download,
            Slow::Head => &heads.endless,
        };
        tcp.write_all(head.as_bytes())?;
        tcp.set_nonblocking(true)?;
        self.tcp = Some(tcp);
        Ok(())
    }

    /// Moves the bytes of one second. Returns whether the connection is still open.
    fn step(&mut self) -> bool {
        let Some(tcp) = &mut self.tcp else { return false };
        let mut bytes = [b'x'; SLOW_RATE];
        let moved = match self.kind {
            Slow::Download => tcp.read(&mut bytes).map(|len| len > 0),
            Slow::Unsigned | Slow::Upload | Slow::Head => tcp.write(&bytes).map(|_| true),
        };
        let is_open = moved.unwrap_or_else(|error| error.kind() == ErrorKind::WouldBlock);
        if !is_open {
            self.tcp = None;
        }
        is_open
    }
}

/// The beginnings of slow requests.
struct Heads {
    unsigned: String,
    upload: String,
    download: String,
    endless: String,
}

/// Requests that are sent at once, and their bodies: XML documents with many or deep elements, and
/// long heads.
fn bursts(node: &Node) -> Vec<Request> {
    let delete = |body: String| {
        let request = Request::new("POST", "/bucket").query("delete", "").body(body);
        request.signed(node.address(), node.signer())
    };
    let mut wide = object("GET", "small");
    for n in 0..100 {
        wide = wide.header(format!("x-filler-{n}"), "y".repeat(140));
    }
    vec![
        delete("<a>".repeat(300_000)),
        delete("<Delete>".to_owned() + &"<a/>".repeat(200_000) + "</Delete>"),
        delete("<Delete>".to_owned() + &"<Object><Key>&#97;&#98;</Key></Object>".repeat(20_000) + "</Delete>"),
        wide.signed(node.address(), node.signer()),
    ]
}

/// Puts objects of 1 KiB over a few connections.
pub fn put_keys(node: &Node, count: usize) {
    const CONNECTIONS: usize = 16;
    thread::scope(|scope| {
        for first in 0..CONNECTIONS {
            scope.spawn(move || {
                let mut connection = TcpStream::connect(node.address()).expect("the node listens");
                connection.set_nodelay(true).expect("a socket");
                for n in (first..count).step_by(CONNECTIONS) {
                    let put = object("PUT", &format!("keys/{n:06}")).body(vec![b'k'; 1024]);
                    let put = put.signed(node.address(), node.signer());
                    let reply = put.exchange(&mut connection, &put.keep_alive_head(node.address())).expect("a reply");
                    reply.expect(200);
                }
            });
        }
    });
}

/// Sends the honest client's requests one after the other for this time.
fn honest(node: &Node, key: &CustomerKey, time: Duration) -> Latencies {
    let mut latencies = Latencies::default();
    let begun = Instant::now();
    for index in 0usize.. {
        if begun.elapsed() >= time {
            break;
        }
        let (name, len) = HONEST[index / 2 % 2];
        let request = match index % 2 {
            0 => object("PUT", name).headers(key.headers()).body(vec![7; len]),
            _ => object("GET", name).headers(key.headers()),
        };
        let request = request.signed(node.address(), node.signer());
        let sent = Instant::now();
        match request.try_send_unsigned(node.address()) {
            Ok(reply) if reply.status == 200 && reply.is_complete => latencies.sorted.push(sent.elapsed()),
            Ok(reply) => latencies.failed.push(format!("{}: {} {}", request.target(), reply.status, reply.text())),
            Err(error) => latencies.failed.push(format!("{}: {error}", request.target())),
        }
    }
    latencies.finish()
}

/// Requests the health of the node until the load has ended.
fn health(node: &Node, done: &AtomicBool) -> Latencies {
    let mut latencies = Latencies::default();
    while !done.load(Ordering::Relaxed) {
        let sent = Instant::now();
        match Request::new("GET", "/health/live").try_send_unsigned(node.admin_address()) {
            Ok(reply) if reply.status == 200 => latencies.sorted.push(sent.elapsed()),
            Ok(reply) => latencies.failed.push(format!("{} {}", reply.status, reply.text())),
            Err(error) => latencies.failed.push(error.to_string()),
        }
        thread::sleep(Duration::from_millis(50));
    }
    latencies.finish()
}

/// Runs the slow connections until `done`, and replaces those that the node closes. Returns the
/// number of connections opened.
fn run_slow(node: &Node, count: usize, done: &AtomicBool) -> u64 {
    let signed = |request: Request| request.payload("UNSIGNED-PAYLOAD").signed(node.address(), node.signer());
    let upload = signed(object("PUT", "slow").header("content-length", SLOW_LEN.to_string()));
    let download = signed(object("GET", "slow-download"));
    let heads = Heads {
        unsigned: "PUT /bucket/unsigned HTTP/1.1\r\nhost: h\r\ncontent-length: 8000000\r\n\r\n".to_owned(),
        upload: upload.head(node.address()),
        download: download.head(node.address()),
        endless: "GET /bucket/small HTTP/1.1\r\nhost: h\r\nx-long: ".to_owned(),
    };
    let kinds = [Slow::Unsigned, Slow::Upload, Slow::Download].into_iter().flat_map(|kind| vec![kind; count]);
    let all = kinds.chain(vec![Slow::Head; count / 10]);
    let mut slow: Vec<_> = all.map(|kind| SlowConnection { kind, tcp: None }).collect();
    let mut opened = 0;
    while !done.load(Ordering::Relaxed) {
        let begun = Instant::now();
        for connection in &mut slow {
            if !connection.step() && connection.open(node.address(), &heads).is_ok() {
                opened += 1;
            }
        }
        thread::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed()));
    }
    opened
}

/// Runs the load on a node with an admin listener and the bucket `bucket`.
pub fn run_hostile(node: &Node, options: &HostileOptions) -> HostileFigures {
    put_keys(node, options.keys);
    node.send(&object("PUT", "slow-download").body(vec![9; SLOW_LEN])).expect(200);
    let key = CustomerKey::random();
    let idle = honest(node, &key, options.time);
    let done = AtomicBool::new(false);
    let opened = AtomicU64::new(0);
    let health_latencies = Mutex::new(Latencies::default());
    let bursts = bursts(node);
    let loaded = thread::scope(|scope| {
        scope.spawn(|| opened.store(run_slow(node, options.connections, &done), Ordering::Relaxed));
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for burst in &bursts {
                    // It may be refused, or its connection closed.
                    let _ = burst.try_send_within(node.address(), Duration::from_secs(5));
                    thread::sleep(Duration::from_millis(50));
                }
            }
        });
        scope.spawn(|| *health_latencies.lock().expect("a lock") = health(node, &done));
        thread::sleep(Duration::from_secs(2));
        let loaded = honest(node, &key, options.time);
        done.store(true, Ordering::Relaxed);
        loaded
    });
    let health = health_latencies.into_inner().expect("a lock");
    HostileFigures { idle, loaded, health, peak_kib: node.peak_resident_kib(), opened: opened.into_inner() }
}
