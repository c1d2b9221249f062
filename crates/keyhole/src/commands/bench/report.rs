//! The figures of `keyhole bench` and their tables.

use std::fmt;
use std::thread;

use comfy_table::{CellAlignment, Table};
use keyhole_core::limits::CHUNK_LEN;
use serde::Serialize;

/// The measured operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Subject {
    /// Chunks of up to 16 KiB by the accelerated engine.
    Accelerated,
    /// Chunks of up to 16 KiB by the portable engine.
    Portable,
    /// Whole messages, including key derivation, by the accelerated engine.
    AcceleratedMessage,
    /// Whole messages, including key derivation, by the portable engine.
    PortableMessage,
    /// Plain AES-256-GCM of AWS-LC, in one call.
    AwsLcGcm,
    /// The `aes-gcm` crate, in one call.
    AesGcmCrate,
    /// AES-256 in counter mode of AWS-LC, without authentication.
    AwsLcCtr,
    /// A memory copy.
    Memcpy,
}

impl Subject {
    pub(crate) const ALL: [Subject; 8] = [
        Subject::Accelerated,
        Subject::Portable,
        Subject::AcceleratedMessage,
        Subject::PortableMessage,
        Subject::AwsLcGcm,
        Subject::AesGcmCrate,
        Subject::AwsLcCtr,
        Subject::Memcpy,
    ];
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Subject::Accelerated => "Keyhole accelerated, chunks",
            Subject::Portable => "Keyhole portable, chunks",
            Subject::AcceleratedMessage => "Keyhole accelerated, messages",
            Subject::PortableMessage => "Keyhole portable, messages",
            Subject::AwsLcGcm => "aws-lc-rs AES-256-GCM",
            Subject::AesGcmCrate => "aes-gcm AES-256-GCM",
            Subject::AwsLcCtr => "aws-lc-rs AES-256-CTR",
            Subject::Memcpy => "memcpy",
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    Seal,
    Open,
}

/// One figure.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct BenchFigure {
    pub(crate) subject: Subject,
    pub(crate) operation: Operation,
    pub(crate) size: usize,
    pub(crate) cores: usize,
    /// 10^9 bytes per second, for all the cores together.
    pub(crate) gb_per_s: f64,
}

/// The properties of the machine.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    /// Supported instructions for AES and GHASH.
    pub(crate) instructions: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
pub(crate) struct BenchReport {
    pub(crate) machine: Machine,
    pub(crate) figures: Vec<BenchFigure>,
}

impl Machine {
    /// Returns the properties of this machine.
    pub(super) fn here() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Machine {
            processor: model.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            instructions: instructions(),
        }
    }
}

/// Returns the instructions for AES and GHASH that the processor and the system support.
fn instructions() -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut note = |name, has: bool| found.extend(has.then_some(name));
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        note("AES-NI", has!("aes"));
        note("PCLMULQDQ", has!("pclmulqdq"));
        note("VAES (256 bits)", has!("vaes") && has!("avx2"));
        note("VAES (512 bits)", has!("vaes") && has!("avx512f"));
        note("VPCLMULQDQ", has!("vpclmulqdq"));
    }
    #[cfg(target_arch = "aarch64")]
    {
        use std::arch::is_aarch64_feature_detected as has;
        note("ARMv8 AES", has!("aes"));
        note("ARMv8 PMULL", has!("pmull"));
    }
    if found.is_empty() {
        found.push("none known: AES in software");
    }
    found
}

impl BenchReport {
    /// Prints all figures as tables.
    pub(super) fn print(&self, cores: &[usize], sizes: &[usize]) {
        let Machine { processor, cores: all, instructions } = &self.machine;
        println!("{processor}, {all} cores; {}", instructions.join(", "));
        for &cores in cores {
            for operation in [Operation::Seal, Operation::Open] {
                let what = format!("{operation:?}").to_lowercase();
                let plural = if cores == 1 { "" } else { "s" };
                println!("\n{what}, GB/s, {cores} core{plural}");
                println!("{}", self.table(operation, cores, sizes));
            }
        }
        println!();
        self.print_ratios();
    }

    /// Prints the ratios of the engines to their baselines, at the length of a chunk.
    fn print_ratios(&self) {
        for (ours, theirs) in [(Subject::Accelerated, Subject::AwsLcGcm), (Subject::Portable, Subject::AesGcmCrate)] {
            for operation in [Operation::Seal, Operation::Open] {
                let figure = |subject| self.figure(subject, operation, CHUNK_LEN, 1);
                if let (Some(our), Some(their)) = (figure(ours), figure(theirs)) {
                    let what = format!("{operation:?}").to_lowercase();
                    println!("{what}, 16 KiB, 1 core: {ours} at {:.2} of {theirs}", our / their);
                }
            }
        }
    }

    fn table(&self, operation: Operation, cores: usize, sizes: &[usize]) -> Table {
        let mut table = Table::new();
        table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
        let size_text = |size: &usize| bytesize::ByteSize(*size as u64).display().iec().to_string();
        table.set_header(std::iter::once(String::new()).chain(sizes.iter().map(size_text)));
        for subject in Subject::ALL {
            let figure = |size: &usize| self.figure(subject, operation, *size, cores);
            let text = |figure: Option<f64>| figure.map_or(String::new(), |figure| format!("{figure:.2}"));
            table.add_row(std::iter::once(subject.to_string()).chain(sizes.iter().map(figure).map(text)));
        }
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        table
    }

    /// Returns one figure, if it was measured.
    pub(crate) fn figure(&self, subject: Subject, operation: Operation, size: usize, cores: usize) -> Option<f64> {
        let mut figures = self.figures.iter();
        let found = figures.find(|figure| {
            (figure.subject, figure.operation, figure.size, figure.cores) == (subject, operation, size, cores)
        });
        found.map(|figure| figure.gb_per_s)
    }
}
