//! The real binary, with real clients and with requests that no client would send.

mod attributes;
mod checksums;
mod clients;
mod commands;
mod device;
mod errors;
mod firmware;
mod forms;
mod guide;
mod hosts;
mod lifecycle;
mod model;
mod names;
mod objects;
mod operate;
mod policy;
mod resources;
mod sealed;
mod secrets;
mod signatures;
mod start;
mod status;
mod tags;
mod tls;
mod trio;
mod uploads;
