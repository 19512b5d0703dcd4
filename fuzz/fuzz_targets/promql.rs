//! Feeds parser, printer and engine of the query language.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(difference) = pharos_promql::fuzz::query(bytes) {
        panic!("{difference}");
    }
});
