//! `keyhole-report`: all end-to-end figures with their limits, floors and the figures of nginx and
//! SeaweedFS.
//!
//! All servers run at the same time and are measured in turns, since figures from different minutes
//! on a shared machine are not comparable. Bare programs measure the floors in the same turns. All
//! data are in a temporary directory.

// The engine and the buffer are modules of the binary, which has no library.
#[path = "../../crates/keyhole/src/engine/accelerated.rs"]
#[allow(unsafe_code)]
mod accelerated;
mod bare;
#[path = "../../crates/keyhole/src/commands/bench/bytes.rs"]
mod bytes;
mod document;
mod figures;
mod flame;
mod floor;
mod limits;
mod machine;
mod memory;
mod nginx;
mod node;
mod plot;
mod plots;
mod results;
mod rig;
mod scenario;
mod seaweedfs;
mod shipping;
mod sink;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytesize::ByteSize;

use self::document::Subject;
use self::figures::Figures;
use self::flame::Flames;
use self::machine::Machine;
use self::rig::{Amounts, Rig};
use crate::{Error, Result};

pub use self::bare::{COMMAND as BARE_COMMAND, serve as serve_bare};
pub use self::shipping::{ShippingOptions, measure_shipping};

/// Options of the report.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program to measure.
    pub keyhole: PathBuf,
    /// The program with profile-guided optimisation, if any.
    pub packaged: Option<PathBuf>,
    /// An earlier program to compare with, if any.
    pub baseline: Option<PathBuf>,
    /// The program of SeaweedFS, if it is to be measured.
    pub seaweedfs: Option<PathBuf>,
    /// Where to create the temporary directory for all data.
    pub directory: PathBuf,
    /// The page to write; plots are written to the same directory.
    pub results: PathBuf,
    /// The file with the hand-written remarks on the figures.
    pub remarks: PathBuf,
    /// Number of turns, of which the medians are reported.
    pub turns: usize,
    /// Duration of each measurement in a turn.
    pub time: Duration,
    /// Whether to run briefly on small stores, as a functional check.
    pub is_quick: bool,
    /// Where to write flame graphs, if at all.
    pub flame: Option<PathBuf>,
}

/// Measures everything, writes the page and its plots, and prints the missed limits.
///
/// # Errors
/// A server cannot be started, does not answer, or answers with wrong bytes, or there is not enough
/// space.
pub fn run(options: &Options) -> Result<()> {
    let amounts = Amounts::new(options.is_quick);
    check_room(&options.directory, amounts.room)?;
    let remarks = read_remarks(options)?;
    let machine = Machine::here(&options.directory)?;
    let flames = options.flame.as_deref().map(Flames::new).transpose()?;
    let program = stripped(options, &options.keyhole)?;
    let packaged = options.packaged.as_deref().map(|program| stripped(options, program)).transpose()?.flatten();
    let mut rig = Rig::start(options, &amounts)?;
    rig.fill()?;
    let results = rig.measure(options, machine.cores)?;
    if let Some(flames) = flames {
        rig.record(&flames)?;
    }
    let mut sizes = rig.sizes()?;
    sizes.program = program;
    sizes.packaged = packaged;
    let versions = rig.versions();
    rig.stop()?;

    let figures = Figures { results: &results, counts: &amounts.counts, sizes };
    let subject = Subject {
        machine: &machine,
        versions: &versions,
        limited_by: memory::Limit::name(),
        turns: options.turns,
        seconds: options.time.as_secs_f64(),
        is_quick: options.is_quick,
    };
    let page = document::page(&subject, &figures, &remarks);
    document::write(&page, &plots::plots(&subject, &figures), &options.results)?;
    let all = figures.all();
    all.iter().for_each(|figure| println!("{figure}"));
    let missed = all.iter().filter(|figure| !figure.holds()).count();
    println!("{missed} of {} limits missed; written to {}", all.len(), options.results.display());
    Ok(())
}

/// Inserts the current remarks into the existing page, without measuring.
///
/// # Errors
/// The page does not exist, or was not written by this program.
pub fn renew_remarks(options: &Options) -> Result<()> {
    let failed = |error| Error::of(options.results.display(), error);
    let page = fs::read_to_string(&options.results).map_err(failed)?;
    let page = document::with_remarks(&page, &read_remarks(options)?)?;
    fs::write(&options.results, page).map_err(failed)
}

fn read_remarks(options: &Options) -> Result<String> {
    fs::read_to_string(&options.remarks).map_err(|error| Error::of(options.remarks.display(), error))
}

fn check_room(directory: &Path, room: u64) -> Result<()> {
    let failed = |error| Error::of(directory.display(), error);
    let system = rustix::fs::statvfs(directory).map_err(|error| failed(std::io::Error::from(error)))?;
    let free = system.f_bavail * system.f_frsize;
    if free < room {
        let free = ByteSize(free).display().iec();
        let room = ByteSize(room).display().iec();
        let what = format!("not enough space: {free} free, {room} needed; choose another --directory");
        return Err(Error::of(directory.display(), what));
    }
    Ok(())
}

/// Returns the size of the program without symbols; `None` without a program to strip it.
fn stripped(options: &Options, program: &Path) -> Result<Option<u64>> {
    let directory = tempfile::tempdir_in(&options.directory)?;
    let copy = directory.path().join("keyhole");
    match Command::new("strip").arg("-o").arg(&copy).arg(program).status() {
        Ok(status) if status.success() => Ok(Some(fs::metadata(&copy)?.len())),
        Ok(status) => Err(Error::new(format!("strip failed: {status}"))),
        Err(error) => {
            eprintln!("keyhole-report: cannot run strip: {error}; install binutils to measure the program");
            Ok(None)
        }
    }
}
