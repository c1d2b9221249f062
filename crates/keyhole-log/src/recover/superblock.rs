//! Reading and writing of the two superblock copies.

use super::rebuild;
use crate::disk::{Disk, is_unreadable, read_again};
use crate::error::{Damage, Error};
use crate::limits::{PAGE, SUPERBLOCK_AT};
use crate::wire::superblock::{Invalid, Superblock, VERSION};

/// Reported if neither copy can be read.
const BOTH_SUPERBLOCKS: &str = "both superblocks (run `keyhole check --repair`)";

/// Result of reading both copies.
pub(super) enum Copies {
    /// The current superblock, and the copy that is bad or outdated and must be rewritten.
    Usable(Superblock, Option<usize>),
    /// Neither copy is usable. Holds the error unless the superblock can be rebuilt.
    Lost(Error),
}

/// Returns the current superblock, and the copy that is bad or outdated, if any.
pub(super) async fn read<D: Disk>(disk: &D) -> Result<(Superblock, Option<usize>), Error> {
    match copies(disk).await? {
        Copies::Usable(superblock, bad) => Ok((superblock, bad)),
        Copies::Lost(error) => Err(error),
    }
}

/// Reads both copies.
///
/// # Errors
/// `UnsupportedVersion` if a valid copy, or both copies, have another version; `Io`.
pub(super) async fn copies<D: Disk>(disk: &D) -> Result<Copies, Error> {
    let mut copies = Vec::with_capacity(2);
    let len = disk.len().await?;
    for offset in SUPERBLOCK_AT {
        if offset + PAGE as u64 > len {
            copies.push(Err(Invalid::Foreign { empty: len == 0 }));
            continue;
        }
        let (result, buf) = read_again(disk, offset, disk.buffer(), 0..PAGE).await;
        copies.push(match result {
            Ok(()) => Superblock::parse(&buf.as_ref()[..PAGE]),
            Err(error) if is_unreadable(&error) => Err(Invalid::Damaged),
            Err(error) => return Err(error.into()),
        });
    }
    let Ok([a, b]) = <[_; 2]>::try_from(copies) else { unreachable!("there are two copies") };
    // A valid copy of another version decides, whatever the other copy holds.
    for copy in [&a, &b] {
        if let Err(Invalid::Version { found, sound: true }) = *copy {
            return Err(Error::UnsupportedVersion { found, supported: VERSION });
        }
    }
    match (a, b) {
        (Ok(a), Ok(b)) if a.epoch == b.epoch => Ok(Copies::Usable(a, None)),
        (Ok(a), Ok(b)) if a.epoch > b.epoch => Ok(Copies::Usable(a, Some(1))),
        (Ok(_), Ok(b)) => Ok(Copies::Usable(b, Some(0))),
        (Ok(a), Err(_)) => Ok(Copies::Usable(a, Some(1))),
        (Err(_), Ok(b)) => Ok(Copies::Usable(b, Some(0))),
        // Two copies that name the same other version are unlikely to be two
        // damaged ones of this version.
        (Err(a @ Invalid::Version { .. }), Err(b)) if a == b => Err(refusal(a, b)),
        (Err(a), Err(b)) => Ok(Copies::Lost(match refusal(a, b) {
            Error::Foreign(_) if rebuild::begins(disk, len).await? => Damage::error(BOTH_SUPERBLOCKS, SUPERBLOCK_AT[0]),
            error => error,
        })),
    }
}

/// Returns the error for a file without a usable superblock.
fn refusal(a: Invalid, b: Invalid) -> Error {
    match (a, b) {
        (Invalid::Version { found, .. }, _) | (_, Invalid::Version { found, .. }) => {
            Error::UnsupportedVersion { found, supported: VERSION }
        }
        (Invalid::Damaged, _) | (_, Invalid::Damaged) => Damage::error(BOTH_SUPERBLOCKS, SUPERBLOCK_AT[0]),
        (Invalid::Foreign { empty: true }, Invalid::Foreign { empty: true }) => Error::Foreign("it is empty"),
        _ => Error::Foreign("it has no superblock"),
    }
}

/// Writes one copy durably.
pub(super) async fn write<D: Disk>(disk: &D, superblock: &Superblock, copy: usize) -> Result<(), Error> {
    let mut buf = disk.buffer();
    superblock.emit(D::slice(&mut buf, 0..PAGE));
    let (result, _) = disk.write(SUPERBLOCK_AT[copy], buf, 0..PAGE).await;
    result?;
    Ok(disk.sync().await?)
}

/// Writes both copies of a rebuilt superblock. Returns the copy that could not be written, if any.
pub(super) async fn write_rebuilt<D: Disk>(disk: &D, superblock: &Superblock) -> Result<Option<usize>, Error> {
    match write(disk, superblock, 0).await {
        Ok(()) => {}
        Err(Error::Io(_)) => return write(disk, superblock, 1).await.map(|()| Some(0)),
        Err(error) => return Err(error),
    }
    match write(disk, superblock, 1).await {
        Ok(()) => Ok(None),
        Err(Error::Io(_)) => Ok(Some(1)),
        Err(error) => Err(error),
    }
}

/// Writes both copies, the second after the first is durable, so that one of them is valid at any
/// time. `first` is the copy that is bad or outdated, if any.
pub(super) async fn write_both<D: Disk>(disk: &D, superblock: &Superblock, first: usize) -> Result<(), Error> {
    write(disk, superblock, first).await?;
    write(disk, superblock, 1 - first).await
}
