#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyhole_remote_fuzz::fields(data));
