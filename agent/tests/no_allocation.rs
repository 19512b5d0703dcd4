//! Hot samplers allocate nothing once they know their devices: a counting allocator watches a tick.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![expect(unsafe_code, reason = "an allocator that counts can only be written with unsafe code")]

mod support;

use pharos_agent::group::GroupSet;
use pharos_agent::kernel_files::ReadBuffer;
use pharos_agent::sampler::SAMPLERS;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use support::{Bench, config, fixtures, host_flags};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches only a
// const-initialised thread local of a type without a destructor, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract, and `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

fn check(flags: &[&str]) {
    let options = config(flags).plan.options;
    for kind in SAMPLERS.iter().filter(|kind| !kind.may_block) {
        let mut sampler = (kind.build)(&options);
        let (mut buffer, mut groups) = (ReadBuffer::default(), GroupSet::default());
        let mut read = || {
            groups.begin();
            let outcome = sampler.sample(&mut buffer, &mut groups);
            groups.published();
            outcome
        };
        // The first readings find devices and grow buffers. What fails here fails on this machine.
        if read().and_then(|()| read()).is_err() {
            continue;
        }
        for round in 0..20 {
            let count = allocations(|| read().unwrap());
            assert_eq!(count, 0, "{} allocates in round {round}", kind.name);
        }
    }
}

#[test]
fn hot_samplers_allocate_nothing_on_this_machine() {
    check(&["--node.name=node-1"]);
}

#[test]
fn hot_samplers_allocate_nothing_on_the_fake_host() {
    let flags = host_flags(&fixtures());
    check(&flags.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_whole_tick_allocates_only_the_frame() {
    let hot = SAMPLERS.iter().filter(|kind| !kind.may_block && Path::new("/proc").exists());
    let on: Vec<String> = hot.map(|kind| format!("--sampler.{}", kind.name)).collect();
    let flags = host_flags(&fixtures());
    let all = ["--collector.disable-defaults"].into_iter().chain(flags.iter().chain(&on).map(String::as_str));
    let mut bench = Bench::new(&all.collect::<Vec<_>>());
    for _ in 0..5 {
        bench.tick();
        bench.shared.board.collect();
    }
    let count = allocations(|| {
        // Only what a second brings: the readings and the frame, which is handed over to the journal.
        bench.clock.advance(std::time::Duration::from_secs(1));
        bench.scheduler.tick();
        assert!(bench.shared.board.collect().is_some());
    });
    assert!(count <= 1, "{count} allocations in a tick");
}

#[test]
fn the_gpu_sampler_allocates_nothing_while_nothing_changes() {
    let fake = support::fake_nvml::FakeNvml::new("gpus 8\nprocess * 42 1000000\nstatic\n");
    let flags = fake.flags();
    let options = config(&flags.iter().map(String::as_str).collect::<Vec<_>>()).plan.options;
    let mut sampler = (pharos_agent::sampler::find("gpu").unwrap().build)(&options);
    let (mut buffer, mut groups) = (ReadBuffer::default(), GroupSet::default());
    let mut read = || {
        groups.begin();
        sampler.sample(&mut buffer, &mut groups).unwrap();
        let samples: usize = groups.iter().map(|group| group.present().len()).sum();
        groups.published();
        samples
    };
    // Until the reader is up and has told of all GPUs with their profiles and links.
    while read() < 8 * 180 {
        std::thread::yield_now();
    }
    let mut quiet = 0;
    for _ in 0..20 {
        quiet += u32::from(allocations(|| assert!(read() > 0)) == 0);
    }
    // Every tenth reading looks at the bus, and every thirtieth at the reader's memory.
    assert!(quiet >= 16, "only {quiet} of 20 readings allocate nothing");
}
