//! The real binary, with real clients and with requests that no client would send.

mod commands;
mod errors;
mod guide;
mod objects;
mod resources;
mod secrets;
mod start;
