//! The collector's metrics about itself, stored beside all others, so that rules and dashboards see them
//! without a scraper.

use crate::ingest::exposition;
use crate::ingest::series_writer::SeriesWriter;
use pharos_common::clock::SharedClock;
use pharos_common::self_metrics;
use pharos_common::shutdown::Shutdown;
use pharos_tsdb::Database;
use prometheus::Registry;
use std::time::Duration;

/// How often they are stored.
const EVERY: Duration = Duration::from_secs(5);
/// The label `job` of them.
const JOB: &str = "pharos-collector";

/// Stores the metrics of `registry` until shutdown. `instance` is where they can also be scraped.
pub(crate) async fn run(
    registry: Registry,
    database: Database,
    writer: SeriesWriter,
    clock: SharedClock,
    instance: String,
    shutdown: Shutdown,
) {
    loop {
        tokio::select! {
            () = clock.sleep(EVERY) => {}
            () = shutdown.cancelled() => return,
        }
        let text = String::from_utf8_lossy(&self_metrics::encode(&registry)).into_owned();
        let mut exposition = match exposition::parse(&text, exposition::Times::Milliseconds, clock.now_ms()) {
            Ok(exposition) => exposition,
            Err(error) => {
                tracing::error!(%error, "Self metrics cannot be read back");
                return;
            }
        };
        for sample in &mut exposition.samples {
            let mut labels = sample.labels.to_builder();
            labels.set("instance", &instance).set("job", JOB);
            sample.labels = labels.build();
        }
        for (metric, metadata) in exposition.metadata {
            database.set_metadata(&metric, metadata);
        }
        if let Err(error) = writer.write(&exposition.samples).await {
            tracing::warn!(%error, "Self metrics cannot be stored");
        }
    }
}
