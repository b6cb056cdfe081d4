#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pigeonfs_fuzz::options(bytes));
