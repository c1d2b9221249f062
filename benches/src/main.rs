//! Drives an S3 endpoint with objects of one size over a number of connections, and says what it took: operations and bytes a
//! second, latencies, and the CPU time and memory of the server and of this program. `keyhole-load --help`.
//!
//! Requests are signed before the clock starts. Every byte that comes back is compared with what was sent.

mod process;
mod wire;
mod work;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Parser, ValueEnum};
use keyhole_tests::sigv4::Signer;
use serde_json::json;

use crate::process::Usage;
use crate::wire::{Connector, Error};
use crate::work::{Measured, Plan};

/// What is asked of the endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Operation {
    /// PutObject, over a few keys for each connection.
    Put,
    /// GetObject, of objects that are put before the clock starts.
    Get,
}

/// Measures an S3 endpoint: puts or gets of objects of one size, over so many connections, for a time.
#[derive(Parser, Debug)]
#[command(name = "keyhole-load", version)]
struct Options {
    /// What to measure.
    operation: Operation,
    /// Where the endpoint listens: http://HOST:PORT or https://HOST:PORT.
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// The bucket, which is made if it is not there.
    #[arg(long, default_value = "load")]
    bucket: String,
    /// The access key to sign with.
    #[arg(long, env = "AWS_ACCESS_KEY_ID", value_name = "KEY")]
    access_key: String,
    /// Its secret.
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true, value_name = "SECRET")]
    secret_key: String,
    /// The region to sign for.
    #[arg(long, env = "AWS_DEFAULT_REGION", default_value = "us-east-1")]
    region: String,
    /// Bytes of each object.
    #[arg(long, default_value = "1MiB")]
    size: ByteSize,
    /// Connections, each with one request under way.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Objects of each connection.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    objects: u32,
    /// How long to measure.
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    seconds: f64,
    /// How long to run before that.
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    warmup: f64,
    /// Without a customer key: objects are stored in the clear.
    #[arg(long)]
    plain: bool,
    /// What comes back is not compared.
    #[arg(long)]
    unchecked: bool,
    /// The process of the server, on this machine: its CPU time and memory are told.
    #[arg(long)]
    pid: Option<u32>,
    /// The certificates to trust, in PEM; for https.
    #[arg(long, value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
    /// As JSON, times in seconds and sizes in bytes.
    #[arg(long)]
    json: bool,
}

impl Options {
    fn plan(&self) -> Result<Plan, Error> {
        let (is_tls, authority) = match self.endpoint.trim_end_matches('/').split_once("://") {
            Some(("http", authority)) => (false, authority),
            Some(("https", authority)) => (true, authority),
            _ => {
                return Err(Error::new(format!(
                    "{}: an endpoint is http://HOST:PORT or https://HOST:PORT",
                    self.endpoint
                )));
            }
        };
        let address = resolve(authority)?;
        let connector = match (is_tls, &self.ca_bundle) {
            (false, _) => Connector::plain(address),
            (true, Some(file)) => Connector::tls(address, authority, file)?,
            (true, None) => return Err(Error::new("https needs --ca-bundle: the certificates to trust")),
        };
        let positive = |name: &str, seconds: f64| {
            let time = Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero());
            time.ok_or_else(|| Error::new(format!("--{name} {seconds}: it is a time in seconds, above 0")))
        };
        Ok(Plan {
            connector: Arc::new(connector),
            authority: authority.to_owned(),
            signer: Signer {
                access_key: self.access_key.clone(),
                secret_key: self.secret_key.clone(),
                region: self.region.clone(),
            },
            bucket: self.bucket.clone(),
            reads: self.operation == Operation::Get,
            size: usize::try_from(self.size.as_u64()).map_err(|_| Error::new("--size: too long for this machine"))?,
            connections: self.connections.into(),
            objects: self.objects as usize,
            warmup: positive("warmup", self.warmup)?,
            time: positive("seconds", self.seconds)?,
            sealed: !self.plain,
            checked: !self.unchecked,
            server: self.pid,
        })
    }
}

fn resolve(authority: &str) -> Result<SocketAddr, Error> {
    let addresses = authority.to_socket_addrs().map_err(|error| Error::new(format!("{authority}: {error}")))?;
    addresses.into_iter().next().ok_or_else(|| Error::new(format!("{authority} has no address")))
}

fn per(usage: f64, of: f64) -> f64 {
    if of > 0.0 { usage / of } else { 0.0 }
}

/// CPU time by operation and by GiB, and memory.
fn usage_json(usage: &Usage, measured: &Measured) -> serde_json::Value {
    let cpu = usage.cpu.as_secs_f64();
    json!({
        "cpu": cpu,
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
        "sse_c": !options.plain,
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
    });
    println!("{report}");
}

fn print(options: &Options, measured: &Measured) {
    let seconds = measured.time.as_secs_f64();
    let kind = if options.plain { "plain" } else { "SSE-C" };
    let operation = if options.operation == Operation::Get { "get" } else { "put" };
    println!(
        "{operation} {} {kind}, {} connections, {seconds:.1} s",
        options.size.display().iec(),
        options.connections
    );
    let mib = measured.bytes as f64 / seconds / (1u64 << 20) as f64;
    println!("  {:.0} operations/s, {mib:.1} MiB/s", measured.operations as f64 / seconds);
    let latency = |quantile: f64| measured.latencies.value_at_quantile(quantile) as f64 / 1e6;
    println!(
        "  latency: p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, at most {:.3} ms",
        latency(0.5),
        latency(0.99),
        latency(0.999),
        measured.latencies.max() as f64 / 1e6
    );
    if measured.slow_down > 0 {
        println!("  {} answers were 503 SlowDown", measured.slow_down);
    }
    let usage = |who: &str, usage: &Usage| {
        let cpu = usage.cpu.as_secs_f64();
        println!(
            "  {who}: {:.1} us of CPU an operation, {:.3} s a GiB, {:.2} cores; {} resident, at most {}",
            per(cpu, measured.operations as f64) * 1e6,
            per(cpu, measured.bytes as f64 / (1u64 << 30) as f64),
            cpu / seconds,
            ByteSize(usage.resident).display().iec(),
            ByteSize(usage.resident_peak).display().iec()
        );
    };
    if let Some(server) = &measured.server {
        usage("server", server);
    }
    usage("generator", &measured.own);
}

fn main() -> ExitCode {
    let options = Options::parse();
    match options.plan().and_then(|plan| plan.run()) {
        Ok(measured) if options.json => print_json(&options, &measured),
        Ok(measured) => print(&options, &measured),
        Err(error) => {
            eprintln!("keyhole-load: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
