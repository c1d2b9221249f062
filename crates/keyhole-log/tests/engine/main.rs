//! The engine on a disk in memory: what it does when all goes well, and when it does not.

mod check;
mod crash;
mod damage;
mod maintenance;
mod objects;
mod order;
mod small;
mod trouble;
mod uploads;
mod versions;

mod support;
