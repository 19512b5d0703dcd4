//! Samplers that hang, budgets that are too small, hints that come: the scheduler goes on.

use super::*;
use crate::board::Board;
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::own_metrics::OwnMetrics;
use crate::sampler::Sampler;
use pharos_common::clock::SharedClock;
use std::sync::Arc;

/// A sampler that hangs until the test lets go.
struct Hanging;

static HOLD: std::sync::Mutex<()> = std::sync::Mutex::new(());

impl Sampler for Hanging {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let _held = HOLD.lock().unwrap();
        if groups.iter().next().is_none() {
            groups.define("hanging", Vec::new(), vec![ColumnSpec::plain("node_load1")]);
        }
        Ok(())
    }
}

#[test]
fn a_hanging_sampler_is_named_and_delays_nobody() {
    use crate::directory::Directory;
    use pharos_common::clock::{Clock as _, ManualClock};
    static KIND: SamplerKind = SamplerKind {
        name: "hanging",
        default_on: true,
        may_block: true,
        fastest_ms: None,
        grid_ms: 1_000,
        build: |_| Box::new(Hanging),
    };
    let config = crate::AgentOptions::default().load().unwrap();
    let loadavg = crate::sampler::find("loadavg").unwrap();
    let filesystem = crate::sampler::find("filesystem").unwrap();
    let samplers = [&KIND, loadavg, filesystem].map(|kind| PlannedSampler { kind, rate: Rate::fixed(1_000) });
    let clock = ManualClock::new(500);
    let metrics = OwnMetrics::register(&prometheus::Registry::new()).unwrap();
    let board = Board::new(Directory::new("n", 0, []));
    let shared = Shared::new(board, metrics, Arc::clone(&clock) as SharedClock);
    let plan = Plan { samplers: samplers.into(), ..config.plan };
    let mut scheduler = Scheduler::new(&plan, shared.clone(), None);
    let status = |name: &str| {
        shared.statuses.list().into_iter().find(|status| status.name == name).unwrap_or_default()
    };
    let hung = || shared.metrics.hung.with_label_values(&["hanging"]).get();

    let held = HOLD.lock().unwrap();
    for second in 1..=5 {
        clock.advance(Duration::from_secs(1));
        scheduler.tick();
        assert_eq!(status("loadavg").readings, second);
    }
    assert_eq!(hung(), 1);
    assert!(status("hanging").hangs_for_seconds.is_some());
    assert_eq!(status("hanging").missed_ticks, 4);
    let latest = shared.board.latest(clock.now_ms());
    let failed = latest.iter().any(|posted| {
        let columns = posted.definition.message.columns.iter().zip(&posted.values);
        columns.into_iter().any(|(column, value)| {
            column.name == "node_scrape_collector_success"
                && column.labels.iter().any(|label| label.value == "hanging")
                && *value == 0.0
        })
    });
    assert!(failed, "a hanging sampler has not succeeded");
    // Others that may hang have moved to another thread, and go on while this one still hangs.
    let before = status("filesystem").readings;
    while status("filesystem").readings < before + 3 {
        clock.advance(Duration::from_secs(1));
        scheduler.tick();
    }
    assert_eq!(hung(), 1);

    // When it answers in time again it is back among the others, and nothing is left of its own thread.
    drop(held);
    while hung() == 1 || status("hanging").readings < 3 || scheduler.lanes.len() > 1 {
        clock.advance(Duration::from_secs(1));
        scheduler.tick();
        std::thread::yield_now();
    }
}

/// A sampler of which a test says whether its readings may hang; it notes on which thread it reads.
struct Guarded;

static MAY_HANG: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(true);
static READ_BY: std::sync::Mutex<Vec<std::thread::ThreadId>> = std::sync::Mutex::new(Vec::new());

impl Sampler for Guarded {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        if groups.iter().next().is_none() {
            groups.define("guarded", Vec::new(), vec![ColumnSpec::plain("node_load5")]);
        }
        READ_BY.lock().unwrap().push(std::thread::current().id());
        Ok(())
    }

    fn may_hang(&mut self) -> bool {
        MAY_HANG.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[test]
fn a_reading_that_cannot_hang_wakes_no_other_thread() {
    static KIND: SamplerKind = SamplerKind {
        name: "guarded",
        default_on: true,
        may_block: true,
        fastest_ms: None,
        grid_ms: 1_000,
        build: |_| Box::new(Guarded),
    };
    let (mut scheduler, shared, clock) =
        rig(|plan| plan.samplers = vec![PlannedSampler { kind: &KIND, rate: Rate::fixed(1_000) }]);
    let status =
        || shared.statuses.list().into_iter().find(|status| status.name == "guarded").unwrap_or_default();
    let mut tick = |may_hang: bool| {
        MAY_HANG.store(may_hang, std::sync::atomic::Ordering::Relaxed);
        let before = status().readings;
        while status().readings == before {
            clock.advance(Duration::from_secs(1));
            scheduler.tick();
        }
        *READ_BY.lock().unwrap().last().unwrap() == std::thread::current().id()
    };
    assert_eq!([true, false, false, true, false].map(&mut tick), [false, true, true, false, true]);
}

/// A gauge that a test sets, read by a sampler that may go to 10 Hz.
struct Gauge;

static LEVEL: std::sync::Mutex<f64> = std::sync::Mutex::new(50.0);

impl Sampler for Gauge {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        if groups.iter().next().is_none() {
            groups.define("gauge", Vec::new(), vec![ColumnSpec::plain("DCGM_FI_DEV_GPU_TEMP")]);
        }
        let handle = groups.handle_of("gauge").unwrap();
        groups.group(handle).unwrap().put(0, *LEVEL.lock().unwrap());
        Ok(())
    }
}

static GAUGE: SamplerKind = SamplerKind {
    name: "gauge",
    default_on: true,
    may_block: false,
    fastest_ms: Some(100),
    grid_ms: 1_000,
    build: |_| Box::new(Gauge),
};

fn rig(plan: impl FnOnce(&mut Plan)) -> (Scheduler, Shared, Arc<pharos_common::clock::ManualClock>) {
    use crate::directory::Directory;
    let mut config = crate::AgentOptions::default().load().unwrap();
    config.plan.samplers = vec![PlannedSampler { kind: &GAUGE, rate: GAUGE.default_rate() }];
    plan(&mut config.plan);
    let clock = pharos_common::clock::ManualClock::new(500);
    let metrics = OwnMetrics::register(&prometheus::Registry::new()).unwrap();
    let board = Board::new(Directory::new("n", 0, []));
    let shared = Shared::new(board, metrics, Arc::clone(&clock) as SharedClock);
    (Scheduler::new(&config.plan, shared.clone(), None), shared, clock)
}

/// Names and times of the samples that a frame would carry now.
fn collected(shared: &Shared) -> Vec<(String, i64, f64)> {
    use prost::Message as _;
    let Some(draft) = shared.board.collect() else { return Vec::new() };
    let tick = pharos_proto::v1::Tick::decode(draft.readings.as_slice()).unwrap();
    let name = |group: u32| {
        let mut definitions = draft.definitions.definitions.iter();
        let definition = definitions.find(|definition| definition.group() == group).unwrap();
        definition.message.columns[0].name.clone()
    };
    let samples = tick.readings.iter().map(|reading| {
        let value = f64::from_le_bytes(reading.values[..8].try_into().unwrap());
        (name(reading.group), reading.timestamp_ms, value)
    });
    samples.filter(|(name, ..)| name.starts_with("DCGM")).collect()
}

#[test]
fn a_hint_makes_samples_between_grid_points_and_the_grid_stays() {
    let (mut scheduler, shared, clock) = rig(|_| {});
    let step = |scheduler: &mut Scheduler, ms: u64| {
        clock.advance(Duration::from_millis(ms));
        scheduler.tick();
        collected(&shared)
    };
    let grid = step(&mut scheduler, 500);
    assert_eq!(grid.len(), 1);
    assert_eq!((grid[0].0.as_str(), grid[0].1), ("DCGM_FI_DEV_GPU_TEMP", 1_000));
    assert!(step(&mut scheduler, 100).is_empty());
    let definitions = shared.board.definitions();
    let mut definitions = definitions.definitions.iter();
    let group = definitions.find(|definition| definition.key == "gauge").unwrap().group();
    let hint = pharos_proto::v1::Hint { group, column: 0, urgency: 0.8, valid_ms: 1_500 };
    assert!(shared.hints.put(vec![hint]));
    scheduler.take_hints();
    let status = shared.statuses.list().into_iter().find(|status| status.name == "gauge").unwrap();
    assert_eq!((status.interval_ms, status.grid_ms, status.reason), (100, 1_000, Reason::Hint));
    for at in (1_200..2_000).step_by(100) {
        let fast = step(&mut scheduler, 100);
        assert_eq!((fast[0].0.as_str(), fast[0].1), ("DCGM_FI_DEV_GPU_TEMP:fast", at));
    }
    let grid = step(&mut scheduler, 100);
    assert_eq!((grid[0].0.as_str(), grid[0].1), ("DCGM_FI_DEV_GPU_TEMP", 2_000));
    // The hint ends: the fast series ends with a stale marker, the grid goes on.
    let mut rest = Vec::new();
    for _ in 0..25 {
        rest.extend(step(&mut scheduler, 100));
    }
    let stale = |value: f64| pharos_common::sample::is_stale_nan(value);
    let fast: Vec<_> = rest.iter().filter(|(name, ..)| name.ends_with(":fast")).collect();
    assert!(fast.last().is_some_and(|(_, _, value)| stale(*value)));
    assert_eq!(fast.iter().filter(|(_, _, value)| stale(*value)).count(), 1);
    let grid: Vec<i64> = rest.iter().filter(|(name, ..)| !name.ends_with(":fast")).map(|one| one.1).collect();
    assert_eq!(grid, [3_000, 4_000]);
    // `/metrics` shows the series themselves only.
    let shown = shared.board.latest(4_500);
    assert!(
        shown.iter().flat_map(|posted| &posted.definition.message.columns).all(|c| !c.name.contains(':'))
    );
}

/// A gauge of one test's own, which makes it jump.
struct Jumping;

static JUMPING: std::sync::Mutex<f64> = std::sync::Mutex::new(50.0);

impl Sampler for Jumping {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        if groups.iter().next().is_none() {
            groups.define("jumping", Vec::new(), vec![ColumnSpec::plain("DCGM_FI_DEV_GPU_TEMP")]);
        }
        let handle = groups.handle_of("jumping").unwrap();
        groups.group(handle).unwrap().put(0, *JUMPING.lock().unwrap());
        Ok(())
    }
}

#[test]
fn readings_between_grid_points_leave_with_the_grids_unless_a_threshold_is_near() {
    static KIND: SamplerKind = SamplerKind { name: "jumping", build: |_| Box::new(Jumping), ..GAUGE };
    let (mut scheduler, shared, clock) =
        rig(|plan| plan.samplers = vec![PlannedSampler { kind: &KIND, rate: KIND.default_rate() }]);
    let io = Arc::new(pharos_common::storage_io::MemoryIo::new());
    let (limits, metrics) = (crate::spool::SpoolLimits::default(), shared.metrics.clone());
    let folder = std::path::Path::new("/agent");
    let opened = crate::spool::open(io, folder, limits, metrics, Arc::clone(&shared.clock)).unwrap();
    let (spool, thread) = crate::spool::start(opened).unwrap();
    let (live, mut out) = tokio::sync::mpsc::channel(64);
    spool.connected(0, 0, live);
    scheduler.spool = Some(spool.clone());
    // How many readings of the gauge, on the grid or between, each frame of these turns has.
    let mut turns = |scheduler: &mut Scheduler, count: usize, ms: u64| {
        let mut frames = Vec::new();
        for _ in 0..count {
            clock.advance(Duration::from_millis(ms));
            scheduler.turn();
            while let Ok(frame) = out.try_recv() {
                use prost::Message as _;
                spool.acknowledged(pharos_proto::v1::Lane::Live, frame.sequence);
                let definitions = &frame.definitions.definitions;
                let ours = |group: u32| {
                    let definition = definitions.iter().find(|definition| definition.group() == group);
                    definition.unwrap().message.columns[0].name.starts_with("DCGM")
                };
                let tick = pharos_proto::v1::Tick::decode(frame.readings).unwrap();
                frames.push(tick.readings.iter().filter(|reading| ours(reading.group)).count());
            }
        }
        frames
    };
    assert_eq!(turns(&mut scheduler, 1, 500), [1]);
    assert_eq!(turns(&mut scheduler, 29, 1_000), [1; 29]);
    *JUMPING.lock().unwrap() = 95.0;
    assert_eq!(turns(&mut scheduler, 1, 1_000), [1]);
    assert_eq!(scheduler.tasks[0].decision.reason, Reason::Volatile);
    // Its first readings in between bring new definitions.
    assert_eq!(turns(&mut scheduler, 10, 100).iter().sum::<usize>(), 10);
    assert_eq!(turns(&mut scheduler, 20, 100), [10, 10]);
    scheduler.tasks[0].pace.hint(0, 0.9, 60_000, shared.clock.now_ms());
    assert_eq!(turns(&mut scheduler, 10, 100), [1; 10]);
    drop(scheduler);
    drop(spool);
    thread.join().unwrap();
}

#[test]
fn a_budget_that_is_too_small_slows_samplers_and_says_so() {
    // No reading is free, so every sampler is slowed in time.
    let (mut scheduler, shared, clock) = rig(|plan| plan.cpu_budget = Some(1e-12));
    for _ in 0..40 {
        clock.advance(Duration::from_secs(1));
        scheduler.tick();
    }
    let status = shared.statuses.list().into_iter().find(|status| status.name == "gauge").unwrap();
    assert!(status.interval_ms >= 2_000, "{status:?}");
    assert_eq!(status.reason, Reason::Budget);
    assert!(shared.metrics.cpu_used.get() > 0.0);
    assert!(shared.metrics.rate_changes.with_label_values(&["gauge", "budget"]).get() >= 1);
    assert_eq!(shared.metrics.intervals.with_label_values(&["gauge"]).get(), status.interval_ms as f64 / 1e3);
}

#[test]
fn the_budget_does_not_charge_samplers_for_what_the_callers_thread_does_between_ticks() {
    let (mut scheduler, shared, clock) = rig(|plan| plan.cpu_budget = Some(0.02));
    let busy = CpuClock::start();
    while busy.elapsed() < budget::WINDOW.mul_f64(0.025) {}
    let ticks = CpuClock::start();
    while shared.metrics.cpu_budget.get() == 0.0 {
        clock.advance(Duration::from_secs(1));
        scheduler.tick();
    }
    let share = ticks.elapsed().as_secs_f64() / budget::WINDOW.as_secs_f64();
    assert!(shared.metrics.cpu_used.get() <= share);
    let status = shared.statuses.list().into_iter().find(|status| status.name == "gauge").unwrap();
    assert_eq!((status.interval_ms, status.reason), (1_000, Reason::Grid));
}

#[test]
fn a_reading_that_does_not_come_in_time_ends_its_series() {
    let (mut scheduler, shared, clock) = rig(|_| {});
    clock.advance(Duration::from_millis(500));
    scheduler.tick();
    assert_eq!(collected(&shared).len(), 1);
    assert_eq!(shared.board.expire(1_000 + 2_500), 0);
    assert_eq!(shared.board.expire(1_000 + 2_501), 2 + 1, "the gauge, and what tells of its sampler");
    let ended = collected(&shared);
    assert!(pharos_common::sample::is_stale_nan(ended[0].2));
    assert!(shared.board.latest(3_600).is_empty());
}
