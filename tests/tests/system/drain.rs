//! Shutdown under load: acknowledged objects are kept, and no reply is truncated.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use keyhole_tests::data::bytes;
use keyhole_tests::http::read_reply;
use keyhole_tests::sigv4::Signer;
use keyhole_tests::tls::connect;
use keyhole_tests::{Certificate, CustomerKey, Launch, Node, Request, Response};
use rustix::process::Signal;
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};

/// Number of connections, half of them over TLS.
const CONNECTIONS: u64 = 20;

/// Lengths of objects: inline, a few chunks, several blocks.
const SIZES: [usize; 6] = [0, 700, 20_000, 300_000, (1 << 20) + 17, 4_000_000];

/// Tolerance beyond the grace period, for scheduling.
const SLACK: Duration = Duration::from_secs(5);

/// A connection, with or without TLS.
trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// The outcome of a request.
enum Outcome {
    Reply(Response),
    /// The connection ended before the first byte of a reply.
    NotBegun,
    /// The connection ended within a reply.
    Cut(String),
}

/// A reader that counts received bytes.
struct CountingReader<'c> {
    connection: &'c mut Box<dyn Duplex>,
    received: usize,
}

impl Read for CountingReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.connection.read(buf)?;
        self.received += len;
        Ok(len)
    }
}

fn exchange(connection: &mut Box<dyn Duplex>, request: &Request, method: &str, head: &str, body: &[u8]) -> Outcome {
    // The node may shut down during the write: its partial reply is still checked.
    let _ = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(body));
    let _ = (connection.flush(), request);
    let mut counting = CountingReader { connection, received: 0 };
    let mut received = Vec::new();
    let reply = read_reply(&mut counting, method, |bytes| received.extend_from_slice(bytes));
    match reply {
        Ok(reply) if reply.is_complete => Outcome::Reply(Response { body: received, ..reply }),
        Err(_) if counting.received == 0 => Outcome::NotBegun,
        Ok(reply) => Outcome::Cut(format!("{} after {} bytes", reply.status, received.len())),
        Err(error) => Outcome::Cut(format!("{error} after {} bytes", counting.received)),
    }
}

/// Results shared by the clients.
#[derive(Default)]
struct SharedResults {
    /// The possible contents of each name: the seed and length acknowledged last, and those of
    /// later unanswered requests.
    objects: Mutex<HashMap<String, Vec<(u64, usize)>>>,
    replies: AtomicUsize,
    /// Number of requests in flight.
    in_flight: AtomicUsize,
    close_replies: AtomicUsize,
    problems: Mutex<Vec<String>>,
}

struct Client {
    index: u64,
    to: std::net::SocketAddr,
    signer: Signer,
    tls: Option<Arc<ClientConfig>>,
    key: Arc<CustomerKey>,
}

impl Client {
    fn connect(&self) -> io::Result<Box<dyn Duplex>> {
        match &self.tls {
            Some(config) => Ok(Box::new(connect(self.to, config)?)),
            None => {
                let tcp = TcpStream::connect(self.to)?;
                tcp.set_read_timeout(Some(Duration::from_secs(60)))?;
                Ok(Box::new(tcp))
            }
        }
    }

    /// Puts and gets on persistent connections until the node is gone. `is_stopping` is set once
    /// the node has received the signal.
    fn run(&self, results: &SharedResults, is_stopping: &AtomicBool) {
        let mut round = 0;
        while let Ok(mut connection) = self.connect() {
            loop {
                let seed = self.index * 1_000_000 + round;
                let len = SIZES[(self.index + round) as usize % SIZES.len()];
                // Names are exclusive to this client, so that the order of writes is known.
                let name = format!("/bucket/{}/{}", self.index, round % 4);
                let is_put = round % 3 != 2;
                round += 1;
                let method = if is_put { "PUT" } else { "GET" };
                let mut request = Request::new(method, &name).headers(self.key.headers());
                let body = if is_put { bytes(seed, len) } else { Vec::new() };
                if is_put {
                    request = request.body(body.clone()).payload("UNSIGNED-PAYLOAD");
                    results.objects.lock().unwrap().entry(name.clone()).or_default().push((seed, len));
                }
                let request = request.signed(self.to, &self.signer);
                let was_stopping = is_stopping.load(Ordering::SeqCst);
                let head = request.keep_alive_head(self.to);
                results.in_flight.fetch_add(1, Ordering::SeqCst);
                let outcome = exchange(&mut connection, &request, method, &head, &body);
                results.in_flight.fetch_sub(1, Ordering::SeqCst);
                match outcome {
                    Outcome::Reply(reply) => {
                        let closes = reply.header("connection") == Some("close");
                        self.check_reply(results, &name, (seed, len), is_put, &reply);
                        results.close_replies.fetch_add(usize::from(closes), Ordering::Relaxed);
                        if was_stopping && !closes {
                            self.report_problem(
                                results,
                                format!("{method} {name}: the last reply lacks connection: close"),
                            );
                        }
                        if closes {
                            break;
                        }
                    }
                    Outcome::NotBegun => break,
                    Outcome::Cut(how) => {
                        self.report_problem(results, format!("{method} {name}: cut, {how}"));
                        break;
                    }
                }
            }
        }
    }

    fn check_reply(
        &self,
        results: &SharedResults,
        name: &str,
        (seed, len): (u64, usize),
        is_put: bool,
        reply: &Response,
    ) {
        results.replies.fetch_add(1, Ordering::Relaxed);
        let mut objects = results.objects.lock().unwrap();
        let states = objects.entry(name.to_owned()).or_default();
        match (is_put, reply.status) {
            // From now on this is the only possible content.
            (true, 200) => *states = vec![(seed, len)],
            (false, 200) if states.iter().any(|(seed, len)| reply.body == bytes(*seed, *len)) => {}
            (false, 404) if states.is_empty() => {}
            (_, 503) => {}
            (_, status) => {
                let text = format!("{name}: {status}, {} bytes: {}", reply.body.len(), reply.text());
                drop(objects);
                self.report_problem(results, text.chars().take(300).collect());
            }
        }
    }

    fn report_problem(&self, results: &SharedResults, text: String) {
        results.problems.lock().unwrap().push(format!("client {}, TLS {}: {text}", self.index, self.tls.is_some()));
    }
}

/// Puts and gets over many connections, shuts the node down meanwhile, restarts it, and compares.
/// `end` checks the shutdown.
fn under_load(io: &str, end: impl FnOnce(&mut Node, &AtomicBool)) -> Arc<SharedResults> {
    let certificate = Certificate::new();
    let launch = certificate.launch("127.0.0.1:0").arg(format!("--io={io}")).arg("--threads=2").arg("--grace=20");
    let mut node = launch.start();
    node.make_bucket("bucket");
    let results = Arc::new(SharedResults::default());
    let key = Arc::new(CustomerKey::random());
    let is_stopping = AtomicBool::new(false);
    let client = |index: u64| {
        let tls = [None, Some(certificate.client(&[&TLS13], &[])), None, Some(certificate.client(&[&TLS12], &[]))];
        let tls = tls[index as usize % 4].clone();
        let to = if tls.is_some() { node.tls_address() } else { node.address() };
        Client { index, to, signer: node.signer().clone(), tls, key: key.clone() }
    };
    let clients: Vec<Client> = (0..CONNECTIONS).map(client).collect();
    thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| client.run(&results, &is_stopping));
        }
        // Wait until every size has occurred several times.
        let begun = Instant::now();
        while results.replies.load(Ordering::Relaxed) < 300 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", results.problems.lock().unwrap());
            thread::sleep(Duration::from_millis(5));
        }
        // Clients generate and compare data: on a busy machine all of them may do so at once.
        while results.in_flight.load(Ordering::SeqCst) < CONNECTIONS as usize / 2 {
            assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", results.problems.lock().unwrap());
            thread::yield_now();
        }
        end(&mut node, &is_stopping);
    });
    node.start();
    let objects = results.objects.lock().unwrap();
    assert!(objects.len() > CONNECTIONS as usize);
    for (name, states) in objects.iter() {
        let got = node.send(&Request::new("GET", name).headers(key.headers()));
        // An unanswered write leaves the old or the new content, and no mixture.
        let is_one = got.status == 200 && states.iter().any(|(seed, len)| got.body == bytes(*seed, *len));
        let was_never_acknowledged = got.status == 404 && states[0].0 % 1_000_000 < 4;
        assert!(is_one || was_never_acknowledged, "{name}: {}, {} bytes; {states:?}", got.status, got.body.len());
    }
    drop(objects);
    results
}

fn assert_no_problems(results: &SharedResults) {
    let problems = results.problems.lock().unwrap();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn sigterm_under_load_truncates_no_reply() {
    for io in ["uring", "epoll"] {
        println!("--io {io}");
        let results = under_load(io, |node, is_stopping| {
            let begun = Instant::now();
            node.signal(Signal::TERM);
            // The node handles the signal immediately: replies to requests sent shortly after its
            // log line announce the close.
            while !node.log().contains("no longer accepting requests") && begun.elapsed() < SLACK {
                thread::sleep(Duration::from_millis(5));
            }
            thread::sleep(Duration::from_millis(500));
            is_stopping.store(true, Ordering::SeqCst);
            assert_eq!(node.wait().code(), Some(0), "{}", node.log());
            assert!(begun.elapsed() < Duration::from_secs(20) + SLACK, "{:?}", begun.elapsed());
            assert!(!node.log().contains("aborting requests in flight"), "{}", node.log());
        });
        assert_no_problems(&results);
        assert!(results.close_replies.load(Ordering::Relaxed) > 0, "no reply announced the close of its connection");
    }
}

#[test]
fn sigkill_under_load_keeps_acknowledged_objects() {
    for io in ["uring", "epoll"] {
        println!("--io {io}");
        under_load(io, |node, _| node.kill());
    }
}

fn object(method: &str, key: &CustomerKey) -> Request {
    Request::new(method, "/bucket/object").headers(key.headers())
}

/// Shuts the node down while connections are at different points of a request.
#[test]
fn sigterm_at_each_point_of_request_lets_it_finish() {
    let certificate = Certificate::new();
    let key = CustomerKey::random();
    let body = bytes(1, 3 << 20);
    let config = certificate.client(&[&TLS13], &["http/1.1"]);
    for (io, with_tls) in [("uring", false), ("uring", true), ("epoll", false), ("epoll", true)] {
        println!("--io {io}, TLS: {with_tls}");
        let mut node = certificate.launch("127.0.0.1:0").arg(format!("--io={io}")).arg("--threads=2").start();
        node.make_bucket("bucket");
        let to = if with_tls { node.tls_address() } else { node.address() };
        let open = || -> Box<dyn Duplex> {
            if with_tls {
                return Box::new(connect(to, &config).unwrap());
            }
            let tcp = TcpStream::connect(to).unwrap();
            tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            Box::new(tcp)
        };
        let reply = |connection: &mut Box<dyn Duplex>, method: &str| {
            let mut received = Vec::new();
            let reply = read_reply(connection, method, |bytes| received.extend_from_slice(bytes)).unwrap();
            Response { body: received, ..reply }
        };
        let put = object("PUT", &key).body(body.clone()).signed(to, node.signer());
        let get = object("GET", &key).signed(to, node.signer());
        let mut first = open();
        put.exchange(&mut first, &put.keep_alive_head(to)).unwrap().expect(200);

        let mut silent = TcpStream::connect(to).unwrap();
        // Half of a request head.
        let mut half_a_head = open();
        let head = get.keep_alive_head(to);
        half_a_head.write_all(&head.as_bytes()[..40]).unwrap();
        half_a_head.flush().unwrap();
        // A request with `Expect: 100-continue` that the node has accepted.
        let expecting =
            object("PUT", &key).header("expect", "100-continue").body(body.clone()).signed(to, node.signer());
        let mut accepted = open();
        accepted.write_all(expecting.keep_alive_head(to).as_bytes()).unwrap();
        accepted.flush().unwrap();
        let mut line = [0; 25];
        accepted.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
        // Half of a body.
        let mut half_a_body = open();
        half_a_body.write_all(put.keep_alive_head(to).as_bytes()).unwrap();
        half_a_body.write_all(&body[..1 << 20]).unwrap();
        half_a_body.flush().unwrap();
        // A reply that the client has not begun to read.
        let mut unread = open();
        unread.write_all(get.keep_alive_head(to).as_bytes()).unwrap();
        unread.flush().unwrap();
        thread::sleep(Duration::from_millis(500));

        node.signal(Signal::TERM);
        let begun = Instant::now();
        // Idle connections are closed.
        let mut rest = Vec::new();
        silent.set_read_timeout(Some(SLACK)).unwrap();
        assert_eq!(silent.read_to_end(&mut rest).unwrap(), 0);
        let mut idle = Vec::new();
        assert_eq!(first.read_to_end(&mut idle).unwrap(), 0);
        let refused = TcpStream::connect(to).and_then(|mut tcp| {
            tcp.set_read_timeout(Some(SLACK))?;
            tcp.read(&mut [0]).map(drop)
        });
        assert!(refused.is_err(), "no further connection is accepted");

        half_a_head.write_all(&head.as_bytes()[40..]).unwrap();
        half_a_head.flush().unwrap();
        let got = reply(&mut half_a_head, "GET").expect(200);
        assert!(got.is_complete && got.body == body && got.header("connection") == Some("close"));
        for (name, mut connection, from) in [("accepted", accepted, 0), ("half a body", half_a_body, 1 << 20)] {
            connection.write_all(&body[from..]).unwrap();
            connection.flush().unwrap();
            let put = reply(&mut connection, "PUT").expect(200);
            assert_eq!(put.header("connection"), Some("close"), "{name}");
            assert_eq!(connection.read(&mut [0]).unwrap(), 0, "{name}");
        }
        let got = reply(&mut unread, "GET").expect(200);
        assert!(got.is_complete && got.body == body);
        drop((unread, half_a_head, silent, first));
        assert_eq!(node.wait().code(), Some(0), "{}", node.log());
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}: {}", begun.elapsed(), node.log());
    }
}

/// A slow client is cut off when the grace period ends, and not earlier.
#[test]
fn slow_client_is_cut_off_after_grace_period() {
    for io in ["uring", "epoll"] {
        let mut node = Launch::default().with_credential().arg(format!("--io={io}")).arg("--grace=2").start();
        node.make_bucket("bucket");
        let key = CustomerKey::random();
        let put = object("PUT", &key).body(bytes(1, 100_000)).signed(node.address(), node.signer());
        let mut slow = TcpStream::connect(node.address()).unwrap();
        slow.write_all(put.head(node.address()).as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        assert_eq!(node.stop().code(), Some(0), "{}", node.log());
        let took = begun.elapsed();
        assert!((Duration::from_secs(2)..Duration::from_secs(2) + SLACK).contains(&took), "{took:?}");
        assert!(node.log().contains("grace period over"), "{}", node.log());
        let _ = slow.shutdown(Shutdown::Both);
        node.start();
        node.send(&object("GET", &key)).expect(404);
    }
}

/// A client that connects to a shared socket during shutdown waits for the next node.
#[test]
fn shared_socket_across_restarts_loses_no_connection() {
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/restart-on-shared-socket.py");
    for io in ["uring", "epoll"] {
        let data = tempfile::tempdir().unwrap();
        let output = std::process::Command::new("python3")
            .arg(tool)
            .arg(keyhole_tests::node::binary())
            .args(["serve", "--io", io, "--threads=3", "--capacity=64MiB", "--data"])
            .arg(data.path().join("data"))
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{io}: {message}");
    }
}
