//! Versions: each operation in each state of a bucket, on plain objects and on sealed ones with another
//! key for each version.

mod deletions;
mod fixture;
mod lifecycle;
mod lists;
mod locks;
mod ransom;
mod reads;
mod refusals;
mod writes;
