//! The command's end of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::protocol::{Reply, Request};
use super::{REPLY_MAX, short};

/// Timeout of the node's silence: long operations send progress every second.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends a request to the node at this socket and returns the final reply, or `None` if no node
/// runs. Passes earlier replies to `on_reply`.
pub(crate) fn ask(socket: &Path, request: &Request, on_reply: &mut dyn FnMut(Reply)) -> Result<Option<Reply>, String> {
    Ok(begin(socket, request, on_reply)?.map(|(reply, _)| reply))
}

/// As [`ask`]; also returns the connection, positioned after the final reply.
pub(crate) fn begin(
    socket: &Path,
    request: &Request,
    on_reply: &mut dyn FnMut(Reply),
) -> Result<Option<(Reply, BufReader<UnixStream>)>, String> {
    let stream = match connect(socket) {
        Ok(stream) => stream,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                return Ok(None);
            }
            io::ErrorKind::PermissionDenied => {
                let socket = socket.display();
                return Err(format!("cannot reach the node at {socket}: {error}; run as the node's user, or as root"));
            }
            _ => return Err(format!("cannot reach the node at {}: {error}", socket.display())),
        },
    };
    converse(stream, request, on_reply).map(Some).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "the node ended before it answered; see its log".to_owned()
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer from the node for {} s; see its log", PATIENCE.as_secs())
        }
        _ => format!("invalid answer from the node: {error}"),
    })
}

/// Returns whether a node accepts connections at this socket.
pub(crate) fn is_served(socket: &Path) -> bool {
    connect(socket).is_ok()
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let (name, _directory) = short(socket)?;
    UnixStream::connect(name)
}

fn converse(
    mut stream: UnixStream,
    request: &Request,
    on_reply: &mut dyn FnMut(Reply),
) -> io::Result<(Reply, BufReader<UnixStream>)> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut replies = BufReader::new(stream);
    loop {
        line.clear();
        (&mut replies).take(REPLY_MAX as u64).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            let (cut, long) = (io::ErrorKind::UnexpectedEof, io::ErrorKind::InvalidData);
            return Err(if line.len() < REPLY_MAX { cut.into() } else { long.into() });
        }
        let reply: Reply = serde_json::from_slice(&line)?;
        if !reply.goes_on() {
            return Ok((reply, replies));
        }
        on_reply(reply);
    }
}
