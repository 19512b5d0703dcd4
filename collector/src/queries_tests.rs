use super::*;
use crate::metrics::Metrics;
use pharos_common::clock::ManualClock;
use pharos_common::labels::Labels;
use pharos_common::storage_io::MemoryIo;
use pharos_promql::parse;
use pharos_promql::storage::{Budget, Selection, SeriesColumns, SeriesSet, StorageError};
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::thread::ThreadId;

const NOW_MS: i64 = 1_000_000;

fn queries() -> Queries {
    let clock = ManualClock::new(NOW_MS);
    let options = pharos_tsdb::Options { housekeeping: false, ..pharos_tsdb::Options::default() };
    let (database, _) =
        Database::open(Arc::new(MemoryIo::new()), Path::new("/data"), options, clock.clone()).unwrap();
    Queries::new(
        database,
        EngineOptions::default(),
        4,
        Arc::new(Metrics::register(&prometheus::Registry::new()).unwrap()),
        clock,
        Shutdown::new(),
    )
}

/// What a storage does when it is asked.
#[derive(Clone, Copy, Debug)]
enum Does {
    Answer,
    Panic,
    NeedFiles,
}

#[derive(Debug)]
struct Scripted {
    does: Does,
    asked: AtomicU32,
    answered_on: std::sync::Mutex<Option<ThreadId>>,
}

impl Scripted {
    fn new(does: Does) -> Arc<Self> {
        Arc::new(Scripted { does, asked: AtomicU32::new(0), answered_on: Default::default() })
    }
}

impl Storage for Scripted {
    fn select<'s>(
        &'s self,
        _: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.does {
            Does::Panic => panic!("a mistake"),
            Does::NeedFiles if !budget.may_read_files() => return Err(StorageError::NotInMemory),
            _ => {}
        }
        *self.answered_on.lock().unwrap() = Some(std::thread::current().id());
        let labels = Labels::from_pairs([("__name__", "up")]);
        let series = SeriesColumns::floats(labels, [NOW_MS].into(), vec![1.0]);
        Ok(Box::new(vec![series].into_iter()))
    }
}

/// Asks until the query is known to be quick, whatever the machine is doing.
async fn become_quick(queries: &Queries) {
    let expr = parse("up").unwrap();
    queries.run_rule_over(Scripted::new(Does::Answer), expr, NOW_MS, || Origin::Own).await.unwrap();
    queries.quick.took(queries.quick.key("up", When::Instant(NOW_MS)), Duration::ZERO);
}

#[tokio::test]
async fn a_panic_ends_its_query_and_nothing_else() {
    let queries = queries();
    for is_quick in [false, true] {
        if is_quick {
            become_quick(&queries).await;
        }
        let failing =
            queries.run_rule_over(Scripted::new(Does::Panic), parse("up").unwrap(), NOW_MS, || Origin::Own);
        let error = failing.await.unwrap_err();
        assert!(matches!(&error, QueryFailure::Crashed(text) if text == "a mistake"), "{error:?}");
        assert_eq!(error.to_string(), "unexpected error: a mistake");
        assert_eq!(queries.metrics.queries_running.get(), 0);
        assert_eq!(queries.rule_places.available_permits(), RULE_QUERIES_AT_ONCE_MAX);
    }
    become_quick(&queries).await;
}

#[tokio::test]
async fn a_quick_query_that_must_read_files_goes_to_a_thread_of_its_own() {
    let queries = queries();
    let here = Some(std::thread::current().id());
    become_quick(&queries).await;
    let in_memory = Scripted::new(Does::Answer);
    let expr = || parse("up").unwrap();
    queries.run_rule_over(Arc::clone(&in_memory), expr(), NOW_MS, || Origin::Own).await.unwrap();
    assert_eq!(*in_memory.answered_on.lock().unwrap(), here);
    become_quick(&queries).await;
    let on_disk = Scripted::new(Does::NeedFiles);
    queries.run_rule_over(Arc::clone(&on_disk), expr(), NOW_MS, || Origin::Own).await.unwrap();
    assert_eq!(on_disk.asked.load(Ordering::Relaxed), 2);
    assert_ne!(*on_disk.answered_on.lock().unwrap(), here);
}
