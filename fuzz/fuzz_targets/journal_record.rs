//! Feeds the reader `journal_record` of the storage engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pharos_tsdb::fuzz::read("journal_record", bytes));
