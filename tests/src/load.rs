//! Real load on this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Keeps every core busy until dropped.
#[derive(Debug)]
pub struct CpuBurn {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl CpuBurn {
    /// Starts two threads a core, so that the machine stays busy whatever else runs on it.
    pub fn start() -> CpuBurn {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let threads = (0..cores * 2)
            .map(|_| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || {
                    let mut number = 1u64;
                    while !stop.load(Ordering::Relaxed) {
                        for _ in 0..10_000 {
                            number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005));
                        }
                    }
                })
            })
            .collect();
        CpuBurn { stop, threads }
    }
}

impl Drop for CpuBurn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
