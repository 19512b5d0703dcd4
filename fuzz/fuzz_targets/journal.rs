//! Feeds the reader `journal` of the storage engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pharos_tsdb::fuzz::read("journal", bytes));
