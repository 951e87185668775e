#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tuyen_tests::fuzz::check_or_abort(tuyen_tests::fuzz::enrolfile, data));
