//! Send buffers of TLS connections.

use std::cell::RefCell;
use std::rc::Rc;

use rustls::Error;

use super::limits::{RECORD_PLAIN, SEND_PLAIN};

/// Additional room for TLS's own messages: a key update, an alert.
pub(super) const MESSAGES: usize = 512;

/// Upper bound of a record's overhead: header, explicit nonce, inner type and tag are less than 40
/// bytes.
pub(super) const RECORD_OVERHEAD: usize = 64;

/// Length of the send buffer.
pub(super) const OUTGOING_LEN: usize = SEND_PLAIN + SEND_PLAIN / RECORD_PLAIN * RECORD_OVERHEAD + MESSAGES;

/// Unused send buffers that a worker keeps: half a megabyte, shared by its connections.
pub(super) const SPARE_MAX: usize = 8;

/// The send buffers of one worker. A connection has one while it sends, and none while it is idle.
#[derive(Clone, Default)]
pub(super) struct Spare(pub(super) Rc<RefCell<Vec<Vec<u8>>>>);

impl Spare {
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(OUTGOING_LEN))
    }

    pub(super) fn give_back(&self, memory: Vec<u8>) {
        let mut kept = self.0.borrow_mut();
        // A buffer that has grown for a long message is not kept.
        if memory.capacity() == OUTGOING_LEN && kept.len() < SPARE_MAX {
            kept.push(memory);
        }
    }
}

/// The send buffer of a connection.
pub(super) struct Outgoing {
    /// Its first `sendable` bytes must be sent before anything is awaited.
    pub(super) bytes: Vec<u8>,
    sendable: usize,
    /// The source of `bytes`, and its destination while nothing is sent.
    pub(super) spare: Spare,
}

impl Outgoing {
    pub(super) fn new(spare: Spare) -> Self {
        Outgoing { bytes: Vec::new(), sendable: 0, spare }
    }

    /// Appends what `encode` writes, with `len` bytes of room, or with the room that it requires
    /// (`Err(Some(_))`).
    pub(super) fn append(
        &mut self,
        len: usize,
        mut encode: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
    ) -> Result<(), Error> {
        let mut room = len;
        if self.bytes.capacity() == 0 {
            self.bytes = self.spare.take();
        }
        for _ in 0..2 {
            if self.bytes.len() < self.sendable + room {
                self.bytes.resize(self.sendable + room, 0);
            }
            match encode(&mut self.bytes[self.sendable..]) {
                Ok(len) => {
                    self.sendable += len;
                    return Ok(());
                }
                Err(Some(needed)) => room = needed,
                Err(None) => break,
            }
        }
        Err(Error::EncryptError)
    }

    /// Takes the bytes to send, which count as sent from then on; return the buffer with
    /// [`put_back`](Self::put_back).
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        if self.sendable == 0 {
            return None;
        }
        self.bytes.truncate(std::mem::take(&mut self.sendable));
        Some(std::mem::take(&mut self.bytes))
    }

    /// Returns the buffer for reuse. It contained only ciphertext.
    pub(super) fn put_back(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
    }

    /// Returns the buffer to the pool: an idle connection keeps none.
    pub(super) fn rest(&mut self) {
        let memory = std::mem::take(&mut self.bytes);
        if memory.capacity() > 0 {
            self.spare.give_back(memory);
        }
    }
}
