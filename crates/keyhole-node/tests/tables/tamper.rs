//! Tampering with the object file: an attacker with the disk changes it and makes the checksums right.
//!
//! `fields` changes each field of each structure: no read may return other bytes than were stored.
//! `promises` performs each attack that part 7 of the format of sealed objects lists as possible.

mod fields;
mod fixture;
mod promises;
mod reads;
