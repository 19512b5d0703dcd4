//! Throws changed bytes at every reader: the same ones in every run, more of them for as many seconds a
//! reader as `PHAROS_FUZZ_SECONDS` says. A failure prints the seed of the bytes, which `PHAROS_FUZZ_SEED`
//! takes. The targets in `fuzz/` feed the same readers by coverage.

#![allow(clippy::panic, reason = "a failed step fails the test")]

use pharos_tsdb::fuzz::{TARGETS, Target};
use std::time::{Duration, Instant};

/// Inputs a reader gets in any case.
const INPUTS_MIN: u64 = 400;
/// Changes made to an input at once.
const CHANGES_MAX: u64 = 6;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20) as usize % limit.max(1)
    }
}

/// Numbers at which readers go wrong, if they do.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0x80, 0xff, 0xffff_ffff, u64::MAX, 1 << 63];

/// Bytes made from a seed: flipped, overwritten with edges, cut, doubled, spliced.
fn changed(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds.get(random.below(seeds.len())).cloned().unwrap_or_default();
    for _ in 0..1 + random.below(CHANGES_MAX as usize) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            2 if !bytes.is_empty() => bytes[at] = random.below(256) as u8,
            3 => {
                let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
                let end = (at + 1 + random.below(8)).min(bytes.len());
                bytes[at..end].copy_from_slice(&edge[..end - at]);
            }
            4 => bytes.truncate(at),
            5 => {
                let end = (at + random.below(64)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

fn seconds() -> Option<Duration> {
    std::env::var("PHAROS_FUZZ_SECONDS").ok()?.parse().ok().map(Duration::from_secs)
}

fn feed(target: &Target) {
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{}: nothing to begin from", target.name);
    seeds.iter().for_each(|seed| (target.read)(seed));
    if let Some(seed) = std::env::var("PHAROS_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return (target.read)(&changed(&seeds, &mut Random(seed)));
    }
    let begin = Instant::now();
    for number in 0.. {
        if number >= INPUTS_MIN && seconds().is_none_or(|seconds| begin.elapsed() >= seconds) {
            return;
        }
        let seed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bytes = changed(&seeds, &mut Random(seed));
        let read = target.read;
        if std::panic::catch_unwind(|| read(&bytes)).is_err() {
            panic!("{} panics; PHAROS_FUZZ_SEED={seed} makes the bytes again", target.name);
        }
    }
}

#[test]
fn no_reader_panics_whatever_it_is_fed() {
    for target in &TARGETS {
        feed(target);
    }
}
