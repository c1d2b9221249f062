//! The command's end of a transfer: to the node that serves the store, or to a thread that opens
//! the store and does the node's part.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use keyhole_log::Log;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::LocalSet;

use super::error::TransferError;
use super::node::serve;
use super::protocol::{Direction, FRAME_HEAD, FileEnd, FrameKind, PATIENCE, frame_head, out_of_turn, parse_frame_head};
use crate::background::{self, Finished};
use crate::control::{self, Answered, Reply, Request};
use crate::error::SystemError;
use crate::platform::AnyDisk;
use crate::store::{self, OpenedStore, StoreLocation, StoreOptions};

/// The connection.
pub(crate) struct Channel {
    stream: UnixStream,
    replies: BufReader<UnixStream>,
    /// The thread that opens the store, if no node serves it.
    alone: Option<thread::JoinHandle<Result<(), TransferError>>>,
}

/// A piece of a file's bytes, or their end.
#[derive(Debug)]
pub(crate) enum Piece {
    /// This many bytes in the buffer.
    Data(usize),
    /// The end of the file.
    End(FileEnd),
}

impl Channel {
    /// Starts a transfer: asks the node that serves the store, or opens the store.
    pub(crate) fn open(location: &StoreLocation, direction: Direction) -> Result<Self, TransferError> {
        let request = match &direction {
            Direction::Export(scope) => Request::Export(scope.clone()),
            Direction::Import => Request::Import {},
        };
        let answered = control::begin(&location.socket(), &request, &mut |_| {})?;
        let mut alone = None;
        let replies = match answered {
            Some(Answered { reply: Reply::Ready {}, connection }) => connection,
            Some(Answered { reply: Reply::Failed { message }, .. }) => return Err(TransferError::Refused(message)),
            Some(_) => return Err(TransferError::UnexpectedReply),
            None => {
                let StoreThread { stream, thread } = open_alone(location, direction)?;
                alone = Some(thread);
                BufReader::new(stream)
            }
        };
        let failed = |error| SystemError::new("cannot use the connection to the store", error);
        // The other side uses the same timeout for this one.
        replies.get_ref().set_read_timeout(Some(PATIENCE + Duration::from_secs(10))).map_err(failed)?;
        let stream = replies.get_ref().try_clone().map_err(failed)?;
        Ok(Channel { stream, replies, alone })
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        self.send_as(FrameKind::Message, message)
    }

    /// Ends the bytes of a file.
    pub(crate) fn end(&mut self, end: &FileEnd) -> io::Result<()> {
        self.send_as(FrameKind::End, end)
    }

    fn send_as(&mut self, kind: FrameKind, message: &impl Serialize) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        self.stream.write_all(&[&frame_head(kind, bytes.len())[..], &bytes].concat())
    }

    /// Sends bytes of a file.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(&frame_head(FrameKind::Data, bytes.len()))?;
        self.stream.write_all(bytes)
    }

    /// Receives the next frame, which must be a message.
    pub(crate) fn message<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        match self.head()? {
            (FrameKind::Message, len) => self.rest(len),
            _ => Err(out_of_turn()),
        }
    }

    /// Receives the next bytes of a file into `buf`, or their end.
    pub(crate) fn piece(&mut self, buf: &mut Vec<u8>) -> io::Result<Piece> {
        match self.head()? {
            (FrameKind::Data, len) => {
                buf.resize(len, 0);
                self.replies.read_exact(buf)?;
                Ok(Piece::Data(len))
            }
            (FrameKind::End, len) => Ok(Piece::End(self.rest(len)?)),
            (FrameKind::Message, _) => Err(out_of_turn()),
        }
    }

    fn head(&mut self) -> io::Result<(FrameKind, usize)> {
        let mut head = [0; FRAME_HEAD];
        self.replies.read_exact(&mut head)?;
        parse_frame_head(head)
    }

    fn rest<T: DeserializeOwned>(&mut self, len: usize) -> io::Result<T> {
        let mut bytes = vec![0; len];
        self.replies.read_exact(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Closes the connection, and waits until the store is closed if this command has opened it.
    pub(crate) fn close(self) -> Result<(), TransferError> {
        let Channel { stream, replies, alone } = self;
        drop((stream, replies));
        match alone.map(thread::JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(_)) => Err(TransferError::StorePanicked),
        }
    }
}

/// The thread that serves the store, and this end of the connection to it.
struct StoreThread {
    stream: UnixStream,
    thread: thread::JoinHandle<Result<(), TransferError>>,
}

/// Opens the store as a node with one worker would, and serves one connection on a thread.
fn open_alone(location: &StoreLocation, direction: Direction) -> Result<StoreThread, TransferError> {
    let read_only = matches!(direction, Direction::Export(_)).then_some(store::ONLY_LOOKS);
    let store = store::open(location, &StoreOptions { read_only, ..StoreOptions::default() })?;
    if store.damaged > 0 {
        let damaged = store.damaged;
        let data = location.data.display();
        eprintln!("keyhole: opening the store found damage in {damaged} places; see `keyhole check {data}`");
    }
    let failed = |error| SystemError::new("cannot begin", error);
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    theirs.set_nonblocking(true).map_err(failed)?;
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| SystemError::new("cannot start a runtime", error))?;
        LocalSet::new().block_on(&runtime, serve_alone(&store, &direction, theirs))
    };
    let thread = thread::Builder::new().name("store".to_owned()).spawn(run).map_err(failed)?;
    Ok(StoreThread { stream: ours, thread })
}

async fn serve_alone(store: &OpenedStore, direction: &Direction, stream: UnixStream) -> Result<(), TransferError> {
    let disk = store::plain_disk(&store.medium)?;
    let stream = tokio::net::UnixStream::from_std(stream).map_err(TransferError::Connection)?;
    let work = async |log: &Log<AnyDisk>| serve(log, direction, stream, None, None).await;
    let Finished { result, is_checkpointed } = background::with_log(store.store.clone(), disk, work).await;
    if !is_checkpointed {
        eprintln!("keyhole: the last checkpoint was not written; the next start takes longer");
    }
    match result {
        // The command closed the connection early and reports the reason itself.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        served => served.map_err(TransferError::lost),
    }
}
