#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyhole_s3_fuzz::xml_versions(data));
