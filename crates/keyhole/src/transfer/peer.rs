//! The node's view of the other end of a transfer.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::protocol::{FRAME_HEAD, FileEnd, FrameKind, PATIENCE, frame_head, out_of_turn, parse_frame_head};

/// The node's view of the other end of the connection.
pub(crate) struct Peer {
    stream: UnixStream,
}

impl Peer {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Peer { stream }
    }

    /// Sends a message.
    pub(crate) async fn send(&self, message: &impl Serialize) -> io::Result<()> {
        self.send_as(FrameKind::Message, message).await
    }

    /// Ends the bytes of a file.
    pub(crate) async fn end(&self, end: &FileEnd) -> io::Result<()> {
        self.send_as(FrameKind::End, end).await
    }

    async fn send_as(&self, kind: FrameKind, message: &impl Serialize) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        self.write(&[&frame_head(kind, bytes.len())[..], &bytes].concat()).await
    }

    /// Sends bytes of a file.
    pub(crate) async fn data(&self, bytes: &[u8]) -> io::Result<()> {
        self.write(&frame_head(FrameKind::Data, bytes.len())).await?;
        self.write(bytes).await
    }

    /// Waits until bytes are available or the peer is gone.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        timeout(PATIENCE, self.stream.readable()).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// Receives the next frame, which must be a message.
    pub(crate) async fn message<T: DeserializeOwned>(&self) -> io::Result<T> {
        match self.head().await? {
            (FrameKind::Message, len) => self.rest(len).await,
            _ => Err(out_of_turn()),
        }
    }

    /// Receives the header of the next frame.
    pub(crate) async fn head(&self) -> io::Result<(FrameKind, usize)> {
        let mut head = [0; FRAME_HEAD];
        self.read(&mut head).await?;
        parse_frame_head(head)
    }

    /// Receives the payload of a message.
    pub(crate) async fn rest<T: DeserializeOwned>(&self, len: usize) -> io::Result<T> {
        let mut bytes = vec![0; len];
        self.read(&mut bytes).await?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Fills `to` completely.
    pub(crate) async fn read(&self, to: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < to.len() {
            self.readable().await?;
            match self.stream.try_read(&mut to[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => filled += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            timeout(PATIENCE, self.stream.writable()).await.map_err(|_| io::ErrorKind::TimedOut)??;
            match self.stream.try_write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
