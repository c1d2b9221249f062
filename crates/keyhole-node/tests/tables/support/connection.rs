//! The client's end of a connection in memory.

use std::io::{self, Read, Write};
use std::rc::Rc;

use super::MemoryNode;
use super::stream::{End, Pipe};

/// A connection to a node. Reading runs the node until it has sent bytes or ended the connection.
pub(crate) struct Connection<'n> {
    node: &'n MemoryNode,
    pipe: Rc<Pipe>,
}

impl<'n> Connection<'n> {
    pub(super) fn new(node: &'n MemoryNode, pipe: Rc<Pipe>) -> Self {
        Connection { node, pipe }
    }

    /// Ends the client's direction.
    pub(crate) fn end(&self) {
        self.pipe.is_shut.set(true);
        self.pipe.wake();
    }

    /// Lets the node wait while the client has so many bytes to receive.
    pub(crate) fn limit(&self, room: usize) {
        self.pipe.room.set(room);
    }

    /// Ends the client's direction and runs the node to the end of the connection. Returns how the
    /// node ended it.
    pub(crate) fn shut_down(&self) -> End {
        self.end();
        self.node.run_until(|| self.pipe.end.get().is_some());
        self.pipe.end.get().expect("an end")
    }
}

impl Read for Connection<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.node.run_until(|| !self.pipe.from_node.borrow().is_empty() || self.pipe.end.get().is_some());
        let len = self.pipe.from_node.borrow_mut().read(buf)?;
        self.pipe.wake_writer();
        Ok(len)
    }
}

impl Write for Connection<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.pipe.to_node.borrow_mut().extend(buf);
        self.pipe.wake();
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
