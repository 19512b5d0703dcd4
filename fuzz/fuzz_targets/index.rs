//! Feeds the reader `index` of the storage engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pharos_tsdb::fuzz::read("index", bytes));
