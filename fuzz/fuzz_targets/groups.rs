//! libFuzzer's driver of the target of this name; the body is in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::run("groups", data));
