//! The cost of shipping to a remote for the requests of clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use keyhole_tests::CustomerKey;

use super::node::{ACCESS_KEY, Node, SECRET_KEY, Setup};
use super::sink;
use crate::process::{Usage, cpu_of_threads};
use crate::wire::Connector;
use crate::work::{self, Objects, Operation, Run, Store};
use crate::{Error, Result};

/// Most CPU time per operation with shipping, as a multiple of that without.
const CPU_MAX: f64 = 1.2;

/// Highest 99th percentile of the latency with shipping, as a multiple of that without.
const P99_MAX: f64 = 2.0;

/// Most additional resident memory in bytes.
const MEMORY_MAX: u64 = 16 << 20;

/// Bytes of an object of the backlog.
const OBJECT_LEN: usize = 4 << 20;

/// Objects that clients request.
const COUNT: usize = 10_000;

/// Bytes of such an object.
const LEN: usize = 4096;

/// Turns of measurements with shipping, between measurements without.
const TURNS: usize = 3;

/// Connections of clients.
const CONNECTIONS: usize = 4;

/// The thread of the node that ships.
const SHIPPING_THREAD: &str = "remotes";

const REMOTE: &str = "other";
const BACKLOG: &str = "backlog";

/// Longest wait until shipping begins.
const BEGIN_MAX: Duration = Duration::from_secs(30);

/// Options of the measurement.
#[derive(Clone, Debug)]
pub struct ShippingOptions {
    /// The program to measure.
    pub keyhole: PathBuf,
    /// Where to create the temporary directory.
    pub directory: PathBuf,
    /// Bytes that wait to be shipped.
    pub backlog: u64,
    /// Duration of each measurement.
    pub time: Duration,
}

/// The figures of an operation.
struct Foreground {
    /// CPU time per operation in µs, without that of the shipping thread.
    cpu: f64,
    /// 99th percentile of the latency in ms.
    p99: f64,
    /// Operations per second.
    rate: f64,
}

/// Measures gets and puts of 4 KiB without and with a backlog that is shipped at full speed, and
/// prints the figures with their limits. The service only discards bytes: it would be on another machine.
///
/// # Errors
/// A node or a request has failed, or the backlog is too small for the measurements.
pub fn measure_shipping(options: &ShippingOptions) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("keyhole-shipping-").tempdir_in(&options.directory)?;
    let node_setup = Setup {
        program: options.keyhole.clone(),
        data: directory.path().join("data"),
        capacity: options.backlog + options.backlog / 4 + (1 << 30),
        tls: None,
    };
    let service = format!("http://{}", sink::start()?);
    let node = Node::start(&node_setup, None)?;
    let backlog = store(&node, BACKLOG)?;
    backlog.make_bucket()?;
    let count = options.backlog.div_ceil(OBJECT_LEN as u64) as usize;
    backlog.fill(&objects(count, OBJECT_LEN), 0..count, CONNECTIONS)?;
    let clients = store(&node, "clients")?;
    clients.make_bucket()?;
    clients.fill(&objects(COUNT, LEN), 0..COUNT, CONNECTIONS)?;

    let measure = || -> Result<[Foreground; 2]> {
        let each = |operation| foreground(&clients, &node, operation, options.time);
        Ok([each(Operation::Get)?, each(Operation::Put)?])
    };
    let data = &node_setup.data;
    let command = |verb: &str| keyhole_remote(&options.keyhole, &[verb], data, &[REMOTE]);
    let mut without = vec![measure()?];
    let mut with = Vec::new();
    let resident_before = Usage::of(node.pid())?.resident_peak;
    add_remote(&node_setup, &service, directory.path())?;
    let (mut shipped, mut took) = (0, Duration::ZERO);
    // Figures of different minutes on a shared machine are not comparable.
    for turn in 0..TURNS {
        if turn > 0 {
            command("resume")?;
        }
        let (first, begun) = (begin(&options.keyhole, data)?, Instant::now());
        with.push(measure()?);
        let last = Status::of(&options.keyhole, data)?;
        took += begun.elapsed();
        shipped += last.shipped.saturating_sub(first.shipped);
        if last.owed == 0 {
            return Err(Error::new("the backlog was shipped before the end of the measurements: increase --backlog"));
        }
        command("pause")?;
        without.push(measure()?);
    }
    let resident = Usage::of(node.pid())?.resident_peak.saturating_sub(resident_before);

    for (index, name) in ["GET", "PUT"].into_iter().enumerate() {
        let median = |runs: &[[Foreground; 2]], of: fn(&Foreground) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(|run| of(&run[index])).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let pair = |of| (median(&without, of), median(&with, of));
        let (cpu, p99, rate) = (pair(|run| run.cpu), pair(|run| run.p99), pair(|run| run.rate));
        println!(
            "{name} 4 KiB, medians of {TURNS} turns: {:.1} us of CPU time per operation without shipping, {:.1} with \
             ({:.2}, limit {CPU_MAX}); p99 {:.2} and {:.2} ms ({:.2}, limit {P99_MAX}); {:.0} and {:.0} operations/s",
            cpu.0,
            cpu.1,
            cpu.1 / cpu.0,
            p99.0,
            p99.1,
            p99.1 / p99.0,
            rate.0,
            rate.1
        );
    }
    let size = |bytes| ByteSize(bytes).display().iec().to_string();
    println!("peak of resident memory: {} more (limit {})", size(resident), size(MEMORY_MAX));
    let per_second = shipped as f64 / took.as_secs_f64();
    println!("shipped {}/s of a backlog of {}", size(per_second as u64), size(options.backlog));
    node.stop()
}

fn objects(count: usize, size: usize) -> Objects {
    Objects { prefix: "object-".to_owned(), count, size }
}

fn store(node: &Node, bucket: &str) -> Result<Store> {
    Ok(Store {
        connector: Arc::new(Connector::new(node.endpoint(), None)?),
        signer: Some(Node::signer()),
        bucket: bucket.to_owned(),
        key_headers: work::key_headers(&CustomerKey([7; 32])),
    })
}

fn foreground(store: &Store, node: &Node, operation: Operation, time: Duration) -> Result<Foreground> {
    let run = Run {
        operation,
        connections: CONNECTIONS,
        sample: COUNT,
        warmup: Duration::from_secs(1),
        time,
        once: false,
        checked: true,
        servers: vec![node.pid()],
    };
    // The shipping thread is measured over a longer time than the operations, by the warm-up.
    let (shipping, begun) = (cpu_of_threads(node.pid(), SHIPPING_THREAD)?, Instant::now());
    let measured = store.run(&objects(COUNT, LEN), &run)?;
    let shipping = cpu_of_threads(node.pid(), SHIPPING_THREAD)?.saturating_sub(shipping);
    let share = shipping.as_secs_f64() / begun.elapsed().as_secs_f64();
    let all = measured.server.map_or(0.0, |usage| usage.cpu.as_secs_f64());
    let cpu = all - share * measured.time.as_secs_f64();
    let rate = measured.operations as f64 / measured.time.as_secs_f64();
    let p99 = measured.latencies.value_at_quantile(0.99) as f64 / 1e6;
    Ok(Foreground { cpu: cpu * 1e6 / measured.operations as f64, p99, rate })
}

fn add_remote(node: &Setup, service: &str, directory: &Path) -> Result<()> {
    let credentials = directory.join("credentials");
    let text = format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    fs::write(&credentials, text)?;
    fs::set_permissions(&credentials, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let credentials = credentials.to_string_lossy();
    let options = [
        REMOTE,
        "--url",
        service,
        "--bucket",
        REMOTE,
        "--source",
        BACKLOG,
        "--mode",
        "mirror",
        "--credentials",
        &credentials,
    ];
    keyhole_remote(&node.program, &["add"], &node.data, &options).map(drop)
}

/// Waits until the node ships.
fn begin(program: &Path, data: &Path) -> Result<Status> {
    let begun = Instant::now();
    while begun.elapsed() < BEGIN_MAX {
        let status = Status::of(program, data)?;
        if status.owed > 0 {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(100));
    }
    Err(Error::new("the node does not begin to ship"))
}

/// The state of the remote.
struct Status {
    /// Bytes that are not shipped yet; 0 if the node does not know them.
    owed: u64,
    /// Bytes sent since shipping was started or resumed.
    shipped: u64,
}

impl Status {
    fn of(program: &Path, data: &Path) -> Result<Self> {
        let json = keyhole_remote(program, &["status", "--json"], data, &[])?;
        let json: serde_json::Value =
            serde_json::from_slice(&json).map_err(|error| Error::of("keyhole remote status", error))?;
        let bytes = |name: &str| json[0][name].as_u64().unwrap_or(0);
        Ok(Status { owed: bytes("owed_bytes"), shipped: bytes("shipped_bytes") })
    }
}

/// Runs `keyhole remote`. Returns its output.
fn keyhole_remote(program: &Path, verb: &[&str], data: &Path, options: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(program).arg("remote").args(verb).arg(data).args(options).output()?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(Error::of("keyhole remote", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
