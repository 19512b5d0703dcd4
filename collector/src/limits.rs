//! Every bound of the collector that is no flag, in one place, with its unit and its reason.

use std::time::Duration;

/// Labels of one series, its name included. Prometheus' own series have fewer than 30.
pub const LABELS_PER_SERIES_MAX: usize = 128;

/// Length of a label's name.
pub const LABEL_NAME_BYTES_MAX: usize = 1_024;

/// Length of a label's value; command lines and paths stay below it.
pub const LABEL_VALUE_BYTES_MAX: usize = 16 << 10;

/// Length of a metric's help text that is kept.
pub const HELP_BYTES_MAX: usize = 4 << 10;

/// One message of the ingest stream: a definition of 256 columns with long labels fits many times.
pub const STREAM_MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Groups that one stream may define.
pub const STREAM_GROUPS_MAX: usize = 65_536;

/// Ticks of one stream that are stored but not yet durable. A group commit takes milliseconds, so this
/// is several seconds of backlog at any rate an agent sends.
pub const STREAM_TICKS_IN_FLIGHT_MAX: usize = 1_024;

/// Messages to one agent that wait to be sent.
pub const STREAM_REPLIES_QUEUED_MAX: usize = 256;

/// Time for an older connection of a stream to end after it was told to.
pub const STREAM_HANDOVER_TIME_MAX: Duration = Duration::from_secs(10);

/// Time for an agent's first message.
pub const STREAM_HELLO_TIME_MAX: Duration = Duration::from_secs(30);

/// How long the head of the answer to an agent waits for the first message behind it.
pub const STREAM_HEAD_TIME_MAX: Duration = Duration::from_millis(5);

/// How often an agent is told at most which of its series are near a threshold.
pub const HINTS_EVERY: Duration = Duration::from_millis(250);

/// How long such a hint holds; it is told again after half of that.
pub const HINT_VALID: Duration = Duration::from_secs(60);

/// Hints in one message; more follow with the next.
pub const HINTS_PER_MESSAGE_MAX: usize = 512;

/// Body of a write as it arrives, compressed or not.
pub const WRITE_BODY_BYTES_MAX: usize = 32 << 20;

/// Body of a write after decompression.
pub const WRITE_DECOMPRESSED_BYTES_MAX: usize = 128 << 20;

/// How much of its permitted rate a sender may send at once, in time: more than a sender of remote write gathers,
/// and what an agent has in flight.
pub const RATE_BURST: Duration = Duration::from_secs(10);

/// Senders whose rate is followed; when they are more, those that are not near their limit are forgotten.
pub const RATE_SENDERS_MAX: usize = 20_000;

/// How long an agent's stream that exceeds its rate is left unread at a time.
pub const RATE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Bodies of writes that are worked on at once; more are asked to come back.
pub const WRITES_AT_ONCE_MAX: usize = 64;

/// All bodies of writes that are in memory, as they arrived; more are asked to come back.
pub const WRITE_BODIES_BYTES_MAX: usize = 256 << 20;

/// A write whose body is larger is parsed off the runtime's threads: this takes some milliseconds.
pub const WRITE_ON_RUNTIME_BYTES_MAX: usize = 128 << 10;

/// How long a write waits for the storage to have room before it is asked to come back.
pub const WRITE_ROOM_TIME_MAX: Duration = Duration::from_secs(10);

/// How long an agent's stream that loads the past is left unread at a time while the storage has no room.
pub const STREAM_ROOM_TIME_MAX: Duration = Duration::from_secs(5);

/// Texts of one write of remote write 2.0 that its series refer to.
pub const SYMBOLS_PER_WRITE_MAX: usize = 2_000_000;

/// Samples of one write: an empty sample takes two bytes on the wire, but more in memory.
pub const SAMPLES_PER_WRITE_MAX: usize = 2_000_000;

/// Buckets of one native histogram, custom bounds included: far more than any client makes (160).
pub const HISTOGRAM_BUCKETS_MAX: usize = 2_048;

/// Rows that one append carries; larger writes are cut.
pub const ROWS_PER_APPEND_MAX: usize = 16_384;

/// The same in values: others append in between, after a few milliseconds.
pub const VALUES_PER_APPEND_MAX: usize = 64 << 10;

/// Series of remote write that are adopted into one group of the engine: as many as it allows.
pub const ADOPTED_COLUMNS_MAX: usize = 256;

/// Label sets of remote write that are recognised by their bytes.
pub const SERIES_CACHE_ENTRIES_MAX: usize = 2_000_000;

/// Memory for the keys of that cache.
pub const SERIES_CACHE_BYTES_MAX: usize = 512 << 20;

/// How far ahead of the server's clock a sample may be.
pub const FUTURE_MS_MAX: i64 = 24 * 3_600 * 1_000;

/// Body of a form (`POST /api/v1/query`).
pub const FORM_BYTES_MAX: usize = 10 << 20;

/// Points of one series in an answer of `query_range`, as in Prometheus.
pub const POINTS_PER_SERIES_MAX: i64 = 11_000;

/// Size of the chunks in which an answer is written.
pub const ANSWER_CHUNK_BYTES: usize = 64 << 10;

/// Points of an answer that is written where it is made, in well under a millisecond.
pub const SMALL_ANSWER_POINTS_MAX: usize = 8_000;

/// Chunks that wait for a slow reader.
pub const ANSWER_CHUNKS_QUEUED_MAX: usize = 8;

/// Body of a remote read, compressed or not: matchers of a few queries.
pub const READ_BODY_BYTES_MAX: usize = 4 << 20;

/// Queries of one remote read. Prometheus sends one.
pub const READ_QUERIES_MAX: usize = 100;

/// Remote reads that are answered at once, as in Prometheus.
pub const READS_AT_ONCE_MAX: usize = 10;

/// A frame of a streamed remote read, as in Prometheus.
pub const READ_FRAME_BYTES_MAX: usize = 1 << 20;

/// Lines of the query log that wait to be written.
pub const QUERY_LOG_LINES_QUEUED_MAX: usize = 4_096;

/// The same in bytes: a query may be as long as a form.
pub const QUERY_LOG_BYTES_QUEUED_MAX: usize = 16 << 20;

/// Queries that wait for a place, as a multiple of those that run; more are refused.
pub const QUERIES_WAITING_FACTOR: usize = 50;

/// Batches of arrived samples that wait to be judged. When they are this many, ingest waits.
pub const ARRIVALS_QUEUED_MAX: usize = 512;

/// A sample further ahead of the clock than this is stored but not judged.
pub const JUDGED_AHEAD_MS_MAX: i64 = 10_000;

/// How long a rule over several series waits for those of its tick that are still to come.
pub const TICK_WAIT_MS_MAX: i64 = 100;

/// Alerts that wait for one alertmanager. While every alertmanager has this many, further ones stay due with their
/// rules; one that has them alone refuses the newest, which come again within a minute.
pub const ALERTS_QUEUED_MAX: usize = 10_000;

/// Size of one alertmanager's queue on disk, with what it has taken already.
pub const OUTBOX_BYTES_MAX: u64 = 64 << 20;

/// The same while nothing waits.
pub const OUTBOX_IDLE_BYTES_MAX: u64 = 256 << 10;

/// Alerts in one request to an alertmanager.
pub const ALERTS_PER_REQUEST_MAX: usize = 64;

/// Time for one request to an alertmanager.
pub const ALERT_REQUEST_TIME_MAX: Duration = Duration::from_secs(10);

/// Samples that one evaluation of a group keeps for its other rules.
pub const SHARED_SAMPLES_MAX: usize = 4_000_000;

/// Rule queries that run at once.
pub const RULE_QUERIES_AT_ONCE_MAX: usize = 4;

/// A node that promised readings counts as gone after this many of its intervals without one ...
pub const MISSED_INTERVALS_MAX: u32 = 3;

/// ... but not before this time: an agent that restarts is not gone.
pub const MISSED_TIME_MIN: Duration = Duration::from_secs(5);

/// A node that did not report for this long is no longer expected.
pub const NODE_FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// Nodes that should report, of a file or of Kubernetes.
pub const EXPECTED_NODES_MAX: usize = 100_000;

/// How long one watch of Kubernetes' nodes lasts; the next one goes on where it ended.
pub const KUBERNETES_WATCH: Duration = Duration::from_secs(300);

/// Wait before Kubernetes is asked again; doubled after each failure.
pub const KUBERNETES_RETRY_FIRST: Duration = Duration::from_millis(500);

/// The longest such wait.
pub const KUBERNETES_RETRY_LONGEST: Duration = Duration::from_secs(60);

/// One event of a watch: a whole node with all its images takes some tens of kilobytes.
pub const KUBERNETES_LINE_BYTES_MAX: usize = 4 << 20;
