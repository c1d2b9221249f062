//! `keyhole bench-disk`: measures the object file on the disk of a directory.
//!
//! It measures the production disk access and engine, including maintenance. All files are in a
//! temporary directory. Compared subjects are measured in turns within one run: on a shared
//! machine, figures of different runs are not comparable.

mod commits;
mod directory;
mod fill;
mod node;
mod report;
mod rig;
mod startup;
mod stream;

use self::directory::ScratchDirectory;
use self::report::DiskReport;
use super::Result;
use crate::cli::bench::BenchDiskOptions;

pub(crate) fn run(options: &BenchDiskOptions) -> Result<()> {
    if let Some(what) = &options.populate {
        return startup::populate(&options.directory, what);
    }
    let directory = ScratchDirectory::new(&options.directory)?;
    let mut report = DiskReport::default();
    let all = options.all;
    if options.commits || all {
        commits::run(&directory, options.turns, &mut report)?;
    }
    if options.stream || all {
        stream::run(&directory, options.turns, &mut report)?;
    }
    if options.startup || all {
        startup::run(&directory, options.objects, options.large, &mut report)?;
    }
    if options.fill || all {
        fill::run(&directory, options.size, &mut report)?;
    }
    let text = if options.json { serde_json::to_string_pretty(&report)? } else { report.table().to_string() };
    super::operate::print(&format!("{text}\n"));
    Ok(())
}
