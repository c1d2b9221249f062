//! Tests of the engine on an in-memory disk, with and without failures.

mod bad_sectors;
mod changes;
mod check;
mod crash;
mod damage;
mod evictions;
mod history;
mod locks;
mod maintenance;
mod mirror;
mod objects;
mod order;
mod page_cache;
mod read_only;
mod reader;
mod removals;
mod reread;
mod room;
mod settings;
mod small;
mod space;
mod superblocks;
mod trouble;
mod unwritable;
mod uploads;
mod versions;
mod written;

mod support;
