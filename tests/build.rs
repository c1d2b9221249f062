//! Enables the tests of a binary that skips syncs, if there is one.

fn main() {
    println!("cargo::rerun-if-env-changed=KEYHOLE_BIN_SKIP_SYNC");
    println!("cargo::rustc-check-cfg=cfg(has_skip_sync)");
    if std::env::var_os("KEYHOLE_BIN_SKIP_SYNC").is_some() {
        println!("cargo::rustc-cfg=has_skip_sync");
    }
}
