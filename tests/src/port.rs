//! Ports for servers that are started later, or restarted.

use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports that the system does not choose itself (`ip_local_port_range` begins at 32768).
const FIRST: u32 = 15_000;
const COUNT: u32 = 15_000;

/// Returns a free port. No other test of this process gets it, nor a listener without a fixed port.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + number % COUNT).expect("a port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
