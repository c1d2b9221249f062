//! Options for the linker.

use std::env;
use std::process::Command;

/// The first version of glibc that starts programs with packed relative relocations: that of
/// Debian 12.
const GLIBC_RELR: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Packed, these relocations take 5 KB in place of 400 KB, and the start reads as much less.
    // A cross build does not know the C library that its program will start with.
    let is_native = env::var_os("HOST") == env::var_os("TARGET");
    if is_native && glibc_version().is_some_and(|version| version >= GLIBC_RELR) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Returns the version of this machine's glibc; `None` for another C library.
fn glibc_version() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.trim().strip_prefix("glibc ")?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
