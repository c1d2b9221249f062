//! Slow clients: they get an error, and other clients do not wait for them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use keyhole_tests::http::{object, read_reply};
use keyhole_tests::{CustomerKey, Launch, Node};

/// Maximum delay of the reply to a client below the minimum rate: [`RATE_TICKS`], one more tick,
/// and a margin for a busy machine.
const REPLY_MAX: Duration = Duration::from_secs(50);

/// Sends these bytes at one per second until a reply arrives, and returns the reply and the elapsed
/// time.
fn send_slowly(mut tcp: TcpStream, bytes: &[u8]) -> (u16, String, Duration) {
    let begun = Instant::now();
    let mut reader = tcp.try_clone().unwrap();
    reader.set_read_timeout(Some(REPLY_MAX)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for byte in bytes {
                if done.load(Ordering::Relaxed) || tcp.write_all(&[*byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_secs(1));
            }
        });
        let mut body = Vec::new();
        let reply = read_reply(&mut reader, "GET", |bytes| body.extend_from_slice(bytes)).expect("a reply");
        done.store(true, Ordering::Relaxed);
        (reply.status, String::from_utf8_lossy(&body).into_owned(), begun.elapsed())
    })
}

#[test]
fn too_slow_client_gets_request_timeout() {
    for io in ["uring", "epoll"] {
        let node = Launch::default().with_credential().arg("--threads=2").arg(format!("--io={io}")).start();
        node.make_bucket("bucket");
        let put = object("PUT", "slow").body(vec![7; 4000]).signed(node.address(), node.signer());
        let head = put.head(node.address());
        let connect = || TcpStream::connect(node.address()).unwrap();
        thread::scope(|scope| {
            let slow_head = scope.spawn(|| send_slowly(connect(), head.as_bytes()));
            let slow_body = scope.spawn(|| {
                let mut tcp = connect();
                tcp.write_all(head.as_bytes()).unwrap();
                send_slowly(tcp, &[7; 100])
            });
            // Slow, and just fast enough.
            let steady = scope.spawn(|| {
                let mut tcp = connect();
                tcp.write_all(head.as_bytes()).unwrap();
                for piece in [7; 4000].chunks(100) {
                    tcp.write_all(piece).unwrap();
                    thread::sleep(Duration::from_millis(250));
                }
                read_reply(&mut tcp, "PUT", |_| {}).expect("a reply").status
            });
            // Without a single byte of a request, the connection is closed without a reply.
            let silent = scope.spawn(|| {
                let mut tcp = connect();
                tcp.set_read_timeout(Some(REPLY_MAX)).unwrap();
                tcp.read(&mut [0; 100]).map_err(|error| error.kind())
            });
            for slow in [slow_head, slow_body] {
                let (status, text, took) = slow.join().unwrap();
                assert!(status == 400 && text.contains("<Code>RequestTimeout</Code>"), "{io}: {status} {text}");
                assert!(text.contains("<RequestId>"), "{text}");
                assert!(took >= Duration::from_secs(25), "{took:?}");
            }
            assert_eq!(steady.join().unwrap(), 200, "{io}");
            let silent = silent.join().unwrap();
            assert!(matches!(silent, Ok(0) | Err(std::io::ErrorKind::ConnectionReset)), "{io}: {silent:?}");
        });
        node.send(&object("GET", "slow")).expect(200);
    }
}

/// Measures the median and the 99th percentile of the latency of GETs.
fn latencies(node: &Node, key: &CustomerKey, count: usize) -> (Duration, Duration) {
    let mut all: Vec<Duration> = (0..count)
        .map(|index| {
            let name = if index % 2 == 0 { "small" } else { "large" };
            let begun = Instant::now();
            node.send(&object("GET", name).headers(key.headers())).expect(200);
            begun.elapsed()
        })
        .collect();
    all.sort();
    (all[count / 2], all[count * 99 / 100])
}

/// Opens connections that send this beginning of a request.
fn slow_clients(to: SocketAddr, count: usize, begin: &[u8]) -> Vec<TcpStream> {
    let connect = |_| {
        let mut tcp = TcpStream::connect(to).unwrap();
        tcp.write_all(begin).unwrap();
        tcp
    };
    (0..count).map(connect).collect()
}

/// A thousand connections that send a byte per second each: half of them in the head, half of them
/// in bodies of 10 MiB, which together exceed the node's memory.
#[test]
fn thousand_slow_clients_do_not_block_others() {
    const SLOW: usize = 1000;
    const COUNT: usize = 400;
    for io in ["uring", "epoll"] {
        let launch = Launch::default().with_credential().arg("--threads=2").arg(format!("--io={io}"));
        let node = launch.start();
        node.make_bucket("bucket");
        let key = CustomerKey::random();
        for (name, len) in [("small", 4 << 10), ("large", 1 << 20)] {
            node.send(&object("PUT", name).headers(key.headers()).body(vec![3; len])).expect(200);
        }
        let (alone, alone_p99) = latencies(&node, &key, COUNT);

        let put = object("PUT", "slow").headers(key.headers()).header("content-length", (10 << 20).to_string());
        let put = put.payload("UNSIGNED-PAYLOAD").signed(node.address(), node.signer());
        let mut slow = slow_clients(node.address(), SLOW / 2, b"GET /bucket/small HTTP/1.1\r\nhost: ");
        slow.extend(slow_clients(node.address(), SLOW / 2, put.head(node.address()).as_bytes()));
        let done = AtomicBool::new(false);
        let (beside, beside_p99) = thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    // Some may have been closed as too slow.
                    slow.iter_mut().for_each(|tcp| drop(tcp.write_all(b"x")));
                    thread::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed()));
                }
            });
            thread::sleep(Duration::from_secs(2));
            let measured = latencies(&node, &key, COUNT);
            // Clients that store objects are served as well.
            for (index, len) in [100, 5 << 20, 64 << 10].into_iter().enumerate() {
                let put = object("PUT", &format!("new-{index}")).headers(key.headers());
                node.send(&put.body(vec![5; len])).expect(200);
            }
            done.store(true, Ordering::Relaxed);
            measured
        });
        println!(
            "--io {io}: GETs of 4 KiB and 1 MiB take {alone:?}, p99 {alone_p99:?}; with {SLOW} slow clients {beside:?}, p99 \
             {beside_p99:?}: {:.2} times",
            beside_p99.as_secs_f64() / alone_p99.as_secs_f64()
        );
    }
}
