//! The agent: one small process per node that samples it every second and pushes to a collector.
//!
//! What the kernel and the GPU driver know flows in through [`samplers`], one module per source; the
//! [`schedule`] gives each its ticks. Readings land on the [`board`], from where `/metrics` shows the latest
//! ([`exposition`], [`http`]) and every tick takes what is new as one [`frame`]. Frames go to the [`spool`],
//! which keeps them in a journal until a collector has made them durable, and out through the [`push`]
//! client. The [`recorder`] keeps the last minute finely; [`hints`] of the collector make samplers faster. [`directory`] numbers groups and columns; [`options`] and [`config`] say what runs. [`run()`] starts
//! and ends it all.

pub mod board;
mod clock_watch;
pub mod config;
pub mod directory;
pub mod doorbell;
pub mod error;
pub mod exposition;
pub mod frame;
pub mod group;
pub mod hints;
pub mod http;
pub mod kernel_files;
pub mod node_exporter_flags;
pub mod options;
pub mod own_metrics;
pub mod push;
pub mod recorder;
pub mod run;
pub mod sampler;
pub mod samplers;
pub mod scan;
pub mod schedule;
pub mod spool;
pub mod status;
pub mod switches;
mod system_calls;
pub mod web_options;

pub use config::AgentConfig;
pub use error::AgentError;
pub use options::AgentOptions;
pub use run::{Agent, AgentStatus, run, start, start_on};
pub use samplers::gpu::options::GpuOptions;
pub use samplers::gpu::reader::run_if_asked as run_gpu_reader_if_asked;
pub use status::GpuState;
