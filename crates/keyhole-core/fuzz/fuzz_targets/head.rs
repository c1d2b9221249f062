#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyhole_core_fuzz::head(data));
