//! Loads an S3 endpoint with objects of one size over a number of connections, and reports
//! operations and bytes per second, latencies, and the CPU time and memory of the server and of
//! this program. `keyhole-load --help`.
//!
//! Requests are signed before the measurement starts. Every received byte is compared with the byte
//! sent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use clap::{Parser, ValueEnum};
use keyhole_benches::process::Usage;
use keyhole_benches::wire::Connector;
use keyhole_benches::work::{self, Measured, Objects, Run, Store};
use keyhole_benches::{Error, Result};
use keyhole_tests::CustomerKey;
use keyhole_tests::sigv4::Signer;
use serde_json::json;

/// Maximum duration of a measurement: a signature is valid for 15 minutes.
const SECONDS_MAX: f64 = 600.0;

/// The operation to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Operation {
    /// PutObject, which overwrites the same keys repeatedly.
    Put,
    /// GetObject, of objects stored before the measurement.
    Get,
    /// Put every object once, for a later `get --filled` with the same --key-file.
    Fill,
}

/// Measures an S3 endpoint: puts or gets of objects of one size over a number of connections.
#[derive(Parser, Debug)]
#[command(name = "keyhole-load", version)]
struct Options {
    /// The operation to measure.
    operation: Operation,
    /// Where the endpoint listens: http://HOST:PORT or https://HOST:PORT.
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// The bucket; created if it does not exist.
    #[arg(long, default_value = "load")]
    bucket: String,
    /// The prefix of the object keys; their numbers follow.
    #[arg(long, default_value = "object-", value_name = "TEXT")]
    key_prefix: String,
    /// The access key to sign with.
    #[arg(long, env = "AWS_ACCESS_KEY_ID", value_name = "KEY", required_unless_present = "unsigned")]
    access_key: Option<String>,
    /// The secret access key.
    #[arg(
        long,
        env = "AWS_SECRET_ACCESS_KEY",
        hide_env_values = true,
        value_name = "SECRET",
        required_unless_present = "unsigned"
    )]
    secret_key: Option<String>,
    /// The region to sign for.
    #[arg(long, env = "AWS_DEFAULT_REGION", default_value = "us-east-1")]
    region: String,
    /// Send requests without signatures, customer keys and buckets, as for a file server.
    #[arg(long)]
    unsigned: bool,
    /// Bytes of each object.
    #[arg(long, default_value = "1MiB")]
    size: ByteSize,
    /// Connections, each with one request in flight.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Number of objects, over all connections.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    objects: u32,
    /// Maximum number of objects to request, spread over all. Each takes about 1 KiB of memory in
    /// this program.
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
    sample: u32,
    /// The objects already exist: skip the puts before gets.
    #[arg(long)]
    filled: bool,
    /// Send each request only once, and end with the last of them or after --seconds: with a new
    /// page cache, each object is read from the disk.
    #[arg(long)]
    once: bool,
    /// Duration of the measurement.
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    seconds: f64,
    /// Duration of the warm-up.
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    warmup: f64,
    /// Send no customer key: objects are stored as plaintext.
    #[arg(long, conflicts_with = "key_file")]
    plain: bool,
    /// A file with the 32 bytes of the customer key, as created by `keyhole key new`. Default: a
    /// new key for each run.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Do not compare the received data.
    #[arg(long)]
    unchecked: bool,
    /// A process of the server, on this machine, whose CPU time and memory are reported.
    /// Repeatable.
    #[arg(long = "pid", value_name = "PID")]
    pids: Vec<u32>,
    /// The certificates to trust, in PEM, for https.
    #[arg(long, value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
    /// Print JSON, with times in seconds and sizes in bytes.
    #[arg(long)]
    json: bool,
}

impl Options {
    fn store(&self) -> Result<Store> {
        let signer = match (&self.access_key, &self.secret_key) {
            (Some(access_key), Some(secret_key)) if !self.unsigned => Some(Signer {
                access_key: access_key.clone(),
                secret_key: secret_key.clone(),
                region: self.region.clone(),
            }),
            _ => None,
        };
        let key_headers = match &self.key_file {
            _ if self.plain || self.unsigned => Vec::new(),
            Some(file) => work::key_headers(&read_key(file)?),
            None if self.filled || self.operation == Operation::Fill => {
                return Err(Error::new("missing --key-file: a later get needs the key; or give --plain"));
            }
            None => work::key_headers(&CustomerKey::random()),
        };
        let connector = Arc::new(Connector::new(&self.endpoint, self.ca_bundle.as_deref())?);
        Ok(Store { connector, signer, bucket: self.bucket.clone(), key_headers })
    }

    fn objects(&self) -> Result<Objects> {
        let size = usize::try_from(self.size.as_u64())
            .map_err(|_| Error::new("invalid --size: too large for this machine"))?;
        Ok(Objects { prefix: self.key_prefix.clone(), count: self.objects as usize, size })
    }

    fn run(&self) -> Result<Run> {
        let positive = |name: &str, seconds: f64| {
            let time = Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero());
            let time = time.filter(|time| time.as_secs_f64() <= SECONDS_MAX);
            time.ok_or_else(|| {
                Error::new(format!("invalid --{name} {seconds}: expected seconds above 0, at most {SECONDS_MAX}"))
            })
        };
        Ok(Run {
            operation: if self.operation == Operation::Get { work::Operation::Get } else { work::Operation::Put },
            connections: self.connections.into(),
            sample: self.sample as usize,
            warmup: positive("warmup", self.warmup)?,
            time: positive("seconds", self.seconds)?,
            once: self.once,
            checked: !self.unchecked,
            servers: self.pids.clone(),
        })
    }

    fn kind(&self) -> &'static str {
        match (self.unsigned, self.plain) {
            (true, _) => "unsigned",
            (false, true) => "plain",
            (false, false) => "SSE-C",
        }
    }
}

fn read_key(file: &Path) -> Result<CustomerKey> {
    let bytes = fs::read(file).map_err(|error| Error::of(file.display(), error))?;
    let key =
        bytes.try_into().map_err(|_| Error::of(file.display(), "invalid customer key: expected exactly 32 bytes"))?;
    Ok(CustomerKey(key))
}

fn per(usage: f64, of: f64) -> f64 {
    if of > 0.0 { usage / of } else { 0.0 }
}

/// Returns CPU time per operation and per GiB, and memory.
fn usage_json(usage: &Usage, measured: &Measured) -> serde_json::Value {
    let cpu = usage.cpu.as_secs_f64();
    json!({
        "cpu": cpu,
        "cpu_in_kernel": usage.kernel_share(),
        "cpu_per_operation": per(cpu, measured.operations as f64),
        "cpu_per_gib": per(cpu, measured.bytes as f64 / (1u64 << 30) as f64),
        "resident": usage.resident,
        "resident_peak": usage.resident_peak,
    })
}

fn print_json(options: &Options, measured: &Measured) {
    let seconds = measured.time.as_secs_f64();
    let latency = |quantile: f64| measured.latencies.value_at_quantile(quantile) as f64 / 1e9;
    let report = json!({
        "operation": if options.operation == Operation::Get { "get" } else { "put" },
        "size": options.size.as_u64(),
        "connections": options.connections,
        "objects": options.objects,
        "sse_c": options.kind() == "SSE-C",
        "seconds": seconds,
        "operations": measured.operations,
        "operations_per_second": measured.operations as f64 / seconds,
        "bytes_per_second": measured.bytes as f64 / seconds,
        "slow_down": measured.slow_down,
        "p50": latency(0.5),
        "p99": latency(0.99),
        "p999": latency(0.999),
        "max": measured.latencies.max() as f64 / 1e9,
        "server": measured.server.as_ref().map(|usage| usage_json(usage, measured)),
        "generator": usage_json(&measured.own, measured),
        "cores_busy": measured.cores.busy.as_secs_f64() / seconds,
        "cores_idle": measured.cores.idle.as_secs_f64() / seconds,
    });
    println!("{report}");
}

fn print(options: &Options, measured: &Measured) {
    let seconds = measured.time.as_secs_f64();
    let operation = if options.operation == Operation::Get { "get" } else { "put" };
    println!(
        "{operation} {} {}, {} connections, {seconds:.1} s",
        options.size.display().iec(),
        options.kind(),
        options.connections
    );
    let mib = measured.bytes as f64 / seconds / (1u64 << 20) as f64;
    println!("  {:.0} operations/s, {mib:.1} MiB/s", measured.operations as f64 / seconds);
    let latency = |quantile: f64| measured.latencies.value_at_quantile(quantile) as f64 / 1e6;
    println!(
        "  latency: p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, max {:.3} ms",
        latency(0.5),
        latency(0.99),
        latency(0.999),
        measured.latencies.max() as f64 / 1e6
    );
    if measured.slow_down > 0 {
        println!("  {} responses were 503 SlowDown", measured.slow_down);
    }
    let usage = |process: &str, usage: &Usage| {
        let cpu = usage.cpu.as_secs_f64();
        println!(
            "  {process}: {:.1} us of CPU time per operation, {:.3} s per GiB, {:.2} cores, {:.0} % in the kernel; \
             {} resident, peak {}",
            per(cpu, measured.operations as f64) * 1e6,
            per(cpu, measured.bytes as f64 / (1u64 << 30) as f64),
            cpu / seconds,
            usage.kernel_share() * 100.0,
            ByteSize(usage.resident).display().iec(),
            ByteSize(usage.resident_peak).display().iec()
        );
    };
    if let Some(server) = &measured.server {
        usage("server", server);
    }
    usage("generator", &measured.own);
    let idle = measured.cores.idle.as_secs_f64() / seconds;
    println!("  machine: {idle:.2} cores idle");
}

fn load(options: &Options) -> Result<()> {
    let store = options.store()?;
    let objects = options.objects()?;
    let run = options.run()?;
    store.make_bucket()?;
    let begun = Instant::now();
    if options.operation == Operation::Fill || (options.operation == Operation::Get && !options.filled) {
        store.fill(&objects, 0..objects.count, run.connections)?;
    }
    if options.operation == Operation::Fill {
        println!("{} objects in {:.1} s", objects.count, begun.elapsed().as_secs_f64());
        return Ok(());
    }
    let measured = store.run(&objects, &run)?;
    if options.json {
        print_json(options, &measured);
    } else {
        print(options, &measured);
    }
    Ok(())
}

fn main() -> ExitCode {
    match load(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keyhole-load: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }
}
