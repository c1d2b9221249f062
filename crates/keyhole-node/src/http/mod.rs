//! HTTP/1.1 over one connection: request heads and bodies in, responses out.

mod connection;
mod receiver;
mod response;
mod send;

pub(crate) use connection::Connection;
pub(crate) use receiver::Receiver;
pub(crate) use response::{Response, ResponseSource};
pub(crate) use send::ReplyContext;
