//! A TCP proxy that records everything that passes through it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A proxy on the loopback interface. It runs until the process ends.
pub struct Recorder {
    address: SocketAddr,
    recorded: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    /// Starts a proxy for the service at an address.
    pub fn start(service: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let recorded = Arc::new(Mutex::new(Vec::new()));
        let record = recorded.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A service that is down closes the connection.
                let Ok(server) = TcpStream::connect(service) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let from = from.try_clone().expect("a connection");
                    let to = to.try_clone().expect("a connection");
                    let record = record.clone();
                    thread::spawn(move || pass(from, to, &record));
                }
            }
        });
        Recorder { address, recorded }
    }

    /// Returns the endpoint URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns a copy of all bytes so far: those of one direction of a connection may be interrupted
    /// by those of others.
    pub fn recorded(&self) -> Vec<u8> {
        self.recorded.lock().expect("no holder panics").clone()
    }
}

/// Passes on and records the bytes of one direction.
fn pass(mut from: TcpStream, mut to: TcpStream, record: &Mutex<Vec<u8>>) {
    let mut buf = vec![0; 64 << 10];
    while let Ok(len) = from.read(&mut buf)
        && len > 0
    {
        record.lock().expect("no holder panics").extend_from_slice(&buf[..len]);
        if to.write_all(&buf[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
