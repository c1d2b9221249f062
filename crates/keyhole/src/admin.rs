//! The admin listener: metrics, health and the status page over plain HTTP, read-only.
//!
//! It runs on its own thread, together with the sampling of the history, so it responds regardless
//! of the workers. Each connection is one request; the number of connections, the length of request
//! heads and the duration are limited.
//!
//! # Invariants
//! - Nothing can be changed, and no object, key name or credential is shown: bucket names and sizes
//!   are the most that can be learnt.
//! - Input is never copied into output, and the renderer escapes all output.
//! - A page of another origin learns nothing: there are no CORS headers. On a loopback address,
//!   only host names of this machine are accepted, so no other name can be made to point here (DNS
//!   rebinding).

mod exposition;
mod figures;
mod page;
mod plot;
mod tables;
mod view;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::status::{Monitor, SAMPLE_EVERY};

/// Limit of concurrent connections; a further one takes the place of the oldest, so that health
/// checks are answered although idle connections have taken all places.
pub(crate) const CONNECTIONS_MAX: usize = 32;

/// Timeout of a connection, from the accept until the reply is sent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Timeout of a request head.
pub(crate) const HEAD_PATIENCE: Duration = Duration::from_secs(5);

/// Limits of a request head in bytes and of its header lines.
pub(crate) const HEAD_MAX: usize = 16 << 10;
pub(crate) const HEADERS_MAX: usize = 64;

/// Delay before the next accept after a failed one (too many open files).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The content security policy of the page: only its own style and script.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Starts the thread that samples the history and serves `listener`, if there is one.
pub(crate) fn start(monitor: Arc<Monitor>, listener: Option<StdListener>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = match listener {
        Some(listener) => {
            listener.set_nonblocking(true)?;
            let _guard = runtime.enter();
            let address = listener.local_addr()?;
            Some((TcpListener::from_std(listener)?, address))
        }
        None => None,
    };
    let run = move || {
        LocalSet::new().block_on(&runtime, async move {
            if let Some((listener, address)) = listener {
                spawn_local(accept(listener, Rc::new(Site { monitor: monitor.clone(), address })));
            }
            let mut ticks = interval(SAMPLE_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The first tick completes immediately.
            ticks.tick().await;
            loop {
                ticks.tick().await;
                monitor.sample();
            }
        })
    };
    thread::Builder::new().name("admin".to_owned()).spawn(run).map(drop)
}

/// The state that requests are answered from.
struct Site {
    monitor: Arc<Monitor>,
    address: SocketAddr,
}

type HttpReply = Response<Full<Bytes>>;

async fn accept(listener: TcpListener, site: Rc<Site>) {
    let mut open: VecDeque<JoinHandle<()>> = VecDeque::with_capacity(CONNECTIONS_MAX);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() == CONNECTIONS_MAX
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                let site = site.clone();
                open.push_back(spawn_local(async move {
                    let _ = timeout(PATIENCE, serve(stream, site)).await;
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection on the admin listener");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, site: Rc<Site>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let reply = site.answer(&request);
        async move { Ok::<_, Infallible>(reply) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = served.await {
        tracing::debug!(%error, "admin connection failed");
    }
}

impl Site {
    fn answer<B>(&self, request: &Request<B>) -> HttpReply {
        let reply = match self.refusal(request) {
            Some((status, text)) => plain(status, text),
            None => self.resource(request),
        };
        // hyper omits the body of replies to HEAD.
        with_headers(reply)
    }

    /// Returns the refusal of a request, if it is not answered.
    fn refusal<B>(&self, request: &Request<B>) -> Option<(StatusCode, &'static str)> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Some((StatusCode::METHOD_NOT_ALLOWED, "Method not allowed: use GET or HEAD.\n"));
        }
        let mut hosts = request.headers().get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) if !self.address.ip().is_loopback() || is_this_machine(host) => None,
            (Some(_), None) => {
                Some((StatusCode::MISDIRECTED_REQUEST, "Unknown host name: use an IP address or localhost.\n"))
            }
            // Browsers, the targets of DNS rebinding, do not use HTTP/1.0.
            (None, None) if request.version() == Version::HTTP_10 => None,
            _ => Some((StatusCode::BAD_REQUEST, "Exactly one Host header is required.\n")),
        }
    }

    fn resource<B>(&self, request: &Request<B>) -> HttpReply {
        match request.uri().path() {
            "/" => match page::render(&self.monitor) {
                Ok(html) => typed("text/html; charset=utf-8", html.into()),
                Err(error) => failed(&error),
            },
            "/status.css" => typed("text/css; charset=utf-8", page::STYLE.into()),
            "/status.js" => typed("text/javascript; charset=utf-8", page::SCRIPT.into()),
            "/icon.svg" => typed("image/svg+xml", page::ICON.into()),
            "/status.json" => match serde_json::to_vec(&self.monitor.status().without_keys()) {
                Ok(json) => typed("application/json", json.into()),
                Err(error) => failed(&error),
            },
            "/metrics" => {
                let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
                match exposition::encode(&self.monitor.status(), accept.unwrap_or_default()) {
                    Ok((content_type, text)) => typed(content_type, text.into()),
                    Err(error) => failed(&error),
                }
            }
            "/health/live" => {
                let status = self.monitor.status();
                if status.live {
                    plain(StatusCode::OK, "live\n")
                } else {
                    plain(StatusCode::SERVICE_UNAVAILABLE, "a worker has stalled: restart the node\n")
                }
            }
            "/health/ready" => {
                let status = self.monitor.status();
                let reasons: Vec<String> =
                    status.reasons().map(|condition| format!("{}: {}\n", condition.name, condition.text)).collect();
                if status.ready {
                    plain(StatusCode::OK, "ready\n")
                } else {
                    plain(StatusCode::SERVICE_UNAVAILABLE, reasons.concat())
                }
            }
            _ => plain(StatusCode::NOT_FOUND, "/, /status.json, /metrics, /health/live, /health/ready\n"),
        }
    }
}

/// Returns whether a Host header names this machine in a way that cannot be redirected: localhost
/// or an IP address.
fn is_this_machine(host: &HeaderValue) -> bool {
    let Some(authority) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> HttpReply {
    let mut reply = typed("text/plain; charset=utf-8", text.into());
    *reply.status_mut() = status;
    reply
}

fn failed(error: &dyn std::fmt::Display) -> HttpReply {
    tracing::error!(%error, "cannot answer an admin request");
    plain(StatusCode::INTERNAL_SERVER_ERROR, "Internal error. See the log of the node.\n")
}

fn typed(content_type: &'static str, body: Bytes) -> HttpReply {
    let mut reply = Response::new(Full::new(body));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

fn with_headers(mut reply: HttpReply) -> HttpReply {
    let not_allowed = reply.status() == StatusCode::METHOD_NOT_ALLOWED;
    let headers = reply.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    if not_allowed {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{NodeFacts, Phase};

    fn site(address: &str) -> Site {
        let monitor = Monitor::new(NodeFacts { workers: 1, ..NodeFacts::default() });
        Site { monitor, address: address.parse().unwrap() }
    }

    fn ask(site: &Site, method: &str, path: &str, hosts: &[&str]) -> HttpReply {
        let mut request = Request::builder().method(method).uri(path);
        for host in hosts {
            request = request.header("Host", *host);
        }
        site.answer(&request.body(()).unwrap())
    }

    #[test]
    fn unsafe_requests_are_refused() {
        let local = site("127.0.0.1:9001");
        let open = site("0.0.0.0:9001");
        for (host, of_local) in [
            ("127.0.0.1:9001", 200),
            ("localhost:8080", 200),
            ("LOCALHOST", 200),
            ("[::1]:9001", 200),
            ("10.1.2.3", 200),
            ("evil.example", 421),
            ("localhost.evil.example:9001", 421),
            ("127.0.0.1.evil.example", 421),
            ("", 421),
            ("a b", 421),
        ] {
            assert_eq!(ask(&local, "GET", "/health/live", &[host]).status(), of_local, "{host}");
            assert_eq!(ask(&open, "GET", "/health/live", &[host]).status(), 200, "{host}");
        }
        assert_eq!(ask(&local, "GET", "/health/live", &[]).status(), 400);
        assert_eq!(ask(&open, "GET", "/health/live", &["a", "a"]).status(), 400);
        let old = Request::builder().version(Version::HTTP_10).uri("/health/live").body(()).unwrap();
        assert_eq!(local.answer(&old).status(), 200);
    }

    #[test]
    fn replies_are_read_only_and_uncacheable() {
        let site = site("127.0.0.1:9001");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"] {
            let reply = ask(&site, method, "/", &["localhost"]);
            assert_eq!(
                (reply.status().as_u16(), &reply.headers()["allow"]),
                (405, &HeaderValue::from_static("GET, HEAD"))
            );
        }
        for path in
            ["/", "/status.css", "/status.js", "/icon.svg", "/status.json", "/metrics", "/health/live", "/absent"]
        {
            for method in ["GET", "HEAD"] {
                let reply = ask(&site, method, path, &["localhost"]);
                assert_eq!(reply.status(), if path == "/absent" { 404 } else { 200 }, "{path}");
                let header = |name: &str| reply.headers()[name].to_str().unwrap().to_owned();
                assert_eq!(header("cache-control"), "no-store");
                assert_eq!(header("x-content-type-options"), "nosniff");
                assert_eq!(header("referrer-policy"), "no-referrer");
                assert!(header("content-security-policy").starts_with("default-src 'none'; style-src 'self';"));
                assert!(!reply.headers().contains_key("access-control-allow-origin"));
            }
        }
    }

    #[test]
    fn readiness_follows_the_life_of_the_node() {
        let site = site("127.0.0.1:9001");
        let ready = || ask(&site, "GET", "/health/ready", &["localhost"]).status();
        assert_eq!(ready(), 503);
        site.monitor.enter_phase(Phase::Serving);
        assert_eq!(ready(), 200);
        site.monitor.enter_phase(Phase::Draining);
        assert_eq!(ready(), 503);
    }
}
