//! Tables of S3's rules on a whole node in memory: a simulated disk, connections of bytes, and a
//! fixed clock.

mod access;
mod allocations;
mod audit;
mod bounds;
mod buckets;
mod checksums;
mod conditional_deletes;
mod conditions;
mod cors;
mod echo;
mod errors;
mod etags;
mod evicted;
mod guard;
mod lifecycle;
mod names;
mod one_reading;
mod part_lists;
mod policy;
mod ranges;
mod receiving;
mod requests;
mod sse_c;
mod support;
mod tamper;
mod uploads;
mod versions;
