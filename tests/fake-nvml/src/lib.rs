//! A shared object with NVML's C interface that does what a file beside it says: it answers made-up or
//! recorded values, fails with a given code, blocks, crashes, leaks, loses GPUs and tells of XIDs.
//!
//! It is loaded by the agent's real code through `--nvml.library`. [`control`] describes the file, [`calls`]
//! holds the functions, [`profile`] those of GPM, [`events`] those of events. Tests find the library with
//! the helper in `agent/tests/support/fake_nvml.rs`.
//!
//! All functions are `unsafe extern "C"` as NVML's are, and rely on what NVML documents: handles come from
//! this library, and pointers lead to writable memory of the documented type. The only caller is the reader.
#![expect(unsafe_code, reason = "a C interface is made of raw pointers")]
#![allow(
    non_snake_case,
    clippy::missing_safety_doc,
    missing_docs,
    unreachable_pub,
    reason = "names, contracts and documentation of the functions are NVML's"
)]

pub mod calls;
pub mod control;
pub mod events;
pub mod profile;
