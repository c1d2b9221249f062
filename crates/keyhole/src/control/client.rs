//! The command's end of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::error::ControlError;
use super::protocol::{Reply, Request};
use super::{PATIENCE, REPLY_MAX, short};

/// A final reply, and the connection that it came over.
pub(crate) struct Answered {
    pub(crate) reply: Reply,
    /// Positioned after the reply.
    pub(crate) connection: BufReader<UnixStream>,
}

/// Sends a request to the node at this socket and returns the final reply, or `None` if no node
/// runs. Passes earlier replies to `on_reply`.
pub(crate) fn ask(
    socket: &Path,
    request: &Request,
    on_reply: &mut dyn FnMut(Reply),
) -> Result<Option<Reply>, ControlError> {
    Ok(begin(socket, request, on_reply)?.map(|answered| answered.reply))
}

/// As [`ask`]; also returns the connection.
pub(crate) fn begin(
    socket: &Path,
    request: &Request,
    on_reply: &mut dyn FnMut(Reply),
) -> Result<Option<Answered>, ControlError> {
    let stream = match connect(socket) {
        Ok(stream) => stream,
        Err(source) => {
            let socket = socket.to_owned();
            return match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => Ok(None),
                io::ErrorKind::PermissionDenied => Err(ControlError::Permission { socket, source }),
                _ => Err(ControlError::Unreachable { socket, source }),
            };
        }
    };
    converse(stream, request, on_reply).map(Some).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            ControlError::Ended
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ControlError::Timeout,
        _ => ControlError::Invalid(error),
    })
}

/// Returns whether a node accepts connections at this socket.
pub(crate) fn is_served(socket: &Path) -> bool {
    connect(socket).is_ok()
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let name = short(socket)?;
    UnixStream::connect(&name.path)
}

fn converse(mut stream: UnixStream, request: &Request, on_reply: &mut dyn FnMut(Reply)) -> io::Result<Answered> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut connection = BufReader::new(stream);
    loop {
        line.clear();
        (&mut connection).take(REPLY_MAX as u64).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            let is_cut = line.len() < REPLY_MAX;
            return Err(if is_cut { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::InvalidData }.into());
        }
        let reply: Reply = serde_json::from_slice(&line)?;
        if !reply.goes_on() {
            return Ok(Answered { reply, connection });
        }
        on_reply(reply);
    }
}
