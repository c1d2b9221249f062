//! The engine on a disk in memory: what it does when all goes well, and when it does not.

mod bad_sectors;
mod check;
mod crash;
mod damage;
mod maintenance;
mod objects;
mod order;
mod read_only;
mod reread;
mod small;
mod space;
mod superblocks;
mod trouble;
mod unwritable;
mod uploads;
mod versions;
mod written;

mod support;
