#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| workhall_tests::fuzz::target("args")(data));
