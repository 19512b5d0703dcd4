//! `POST /api/v1/read`: Prometheus' remote read. Selectors and ranges flow in, samples as they are stored flow
//! out: whole in one message, or streamed as chunks where the reader takes that.

mod bits;
mod chunk;
mod frame;

use super::answer::{ApiError, stream};
use crate::collector::Collector;
use crate::ingest::wire_histogram;
use crate::limits::{
    READ_BODY_BYTES_MAX, READ_FRAME_BYTES_MAX, READ_QUERIES_MAX, READS_AT_ONCE_MAX,
    WRITE_DECOMPRESSED_BYTES_MAX,
};
use crate::storage::DatabaseStorage;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use pharos_common::labels::Labels;
use pharos_common::matcher::{MatchOp, Matcher};
use pharos_common::sample::TimestampMs;
use pharos_common::server::BodyTooSlow;
use pharos_promql::QueryError;
use pharos_promql::storage::{Budget, Selection, SelectionHints, SeriesColumns, Storage};
use pharos_proto::prometheus as wire;
use prost::Message;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::Semaphore;

/// How samples are answered.
const SAMPLES: i32 = 0;
const STREAMED_CHUNKS: i32 = 1;

const STREAM_TYPE: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

/// Places for reads that are answered now.
#[derive(Debug)]
pub struct ReadPlaces(Arc<Semaphore>);

impl Default for ReadPlaces {
    fn default() -> Self {
        ReadPlaces(Arc::new(Semaphore::new(READS_AT_ONCE_MAX)))
    }
}

/// One selector and a range, both ends included.
struct Query {
    matchers: Vec<Matcher>,
    start_ms: TimestampMs,
    end_ms: TimestampMs,
}

/// What all queries of a request share.
struct Reader {
    storage: Arc<DatabaseStorage>,
    external: Labels,
    budget: Budget,
}

/// Stops the reading when nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// `/api/v1/read`
pub(crate) async fn read(State(collector): State<Arc<Collector>>, body: Body) -> Result<Response, ApiError> {
    let request = request(body).await?;
    let streams = match request.accepted_response_types.as_slice() {
        [] => false,
        accepted => {
            let known = accepted.iter().find(|&&kind| matches!(kind, SAMPLES | STREAMED_CHUNKS));
            let refused = || ApiError::bad_data("none of the accepted response types is known");
            *known.ok_or_else(refused)? == STREAMED_CHUNKS
        }
    };
    let external = collector.rules.context().external_labels();
    let queries = queries(&request, &external)?;
    let places = Arc::clone(&collector.reads.0);
    let place = places.acquire_owned().await.map_err(ApiError::internal)?;
    let options = collector.queries.engine().options();
    let cancelled = Arc::new(AtomicBool::new(false));
    let reader = Reader {
        storage: Arc::clone(collector.queries.storage()),
        external: Labels::clone(&external),
        budget: Budget::new(
            options.max_samples,
            Instant::now().checked_add(options.timeout),
            Arc::clone(&cancelled),
        ),
    };
    if streams {
        return Ok(stream(STREAM_TYPE, move |out| {
            let _place = place;
            for (number, query) in queries.iter().enumerate() {
                reader.write_chunks(query, number, out)?;
            }
            Ok(())
        }));
    }
    let _cancel = CancelOnDrop(cancelled);
    let work = tokio::task::spawn_blocking(move || {
        let _place = place;
        reader.answer(&queries)
    });
    let packed = work.await.map_err(ApiError::internal)??;
    let headers = [(header::CONTENT_TYPE, "application/x-protobuf"), (header::CONTENT_ENCODING, "snappy")];
    Ok((headers, packed).into_response())
}

async fn request(body: Body) -> Result<wire::ReadRequest, ApiError> {
    let too_large = || {
        let message = format!("the body is larger than {READ_BODY_BYTES_MAX} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "bad_data", message)
    };
    let malformed = |error: &dyn std::fmt::Display| ApiError::bad_data(format!("no remote read: {error}"));
    let body = match Limited::new(body, READ_BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
        Err(error) if BodyTooSlow::caused(&*error) => return Err(ApiError::too_slow()),
        Err(error) => return Err(malformed(&error)),
    };
    if snap::raw::decompress_len(&body).map_err(|error| malformed(&error))? > READ_BODY_BYTES_MAX {
        return Err(too_large());
    }
    let message = snap::raw::Decoder::new().decompress_vec(&body).map_err(|error| malformed(&error))?;
    let request = wire::ReadRequest::decode(message.as_slice()).map_err(|error| malformed(&error))?;
    match request.queries.len() {
        0..=READ_QUERIES_MAX => Ok(request),
        count => Err(ApiError::bad_data(format!("{count} queries; at most {READ_QUERIES_MAX} are answered"))),
    }
}

/// The queries without matchers that speak of external labels: those are not stored, but all series have them.
fn queries(request: &wire::ReadRequest, external: &Labels) -> Result<Vec<Query>, ApiError> {
    let matcher = |matcher: &wire::LabelMatcher| {
        let op = match matcher.r#type {
            0 => MatchOp::Equal,
            1 => MatchOp::NotEqual,
            2 => MatchOp::Regex,
            3 => MatchOp::NotRegex,
            other => return Err(ApiError::bad_data(format!("unknown type of matcher {other}"))),
        };
        Matcher::new(&*matcher.name, op, &*matcher.value)
            .map_err(|error| ApiError::bad_data(error.to_string()))
    };
    let query = |query: &wire::Query| {
        let is_external = |matcher: &wire::LabelMatcher| {
            matcher.r#type == 0 && external.get(&matcher.name) == Some(&*matcher.value)
        };
        let matchers = query.matchers.iter().filter(|wanted| !is_external(wanted)).map(matcher);
        Ok(Query {
            matchers: matchers.collect::<Result<_, ApiError>>()?,
            start_ms: query.start_timestamp_ms,
            end_ms: query.end_timestamp_ms,
        })
    };
    request.queries.iter().map(query).collect()
}

impl Reader {
    /// Calls `visit` with every series of a query, sorted by labels.
    fn visit<E: From<QueryError>>(
        &self,
        query: &Query,
        mut visit: impl FnMut(SeriesColumns) -> Result<(), E>,
    ) -> Result<(), E> {
        let selection = Selection {
            matchers: &query.matchers,
            start_ms: query.start_ms,
            end_ms: query.end_ms,
            hints: SelectionHints::default(),
        };
        let mut set = self.storage.select(&selection, &self.budget).map_err(QueryError::from)?;
        while let Some(series) = set.next_series().map_err(QueryError::from)? {
            let cost = series.cost();
            visit(series)?;
            self.budget.put_back(cost);
        }
        Ok(())
    }

    /// The series' labels with the external ones.
    fn labels(&self, labels: &Labels) -> Vec<wire::Label> {
        let label =
            |(name, value): (&str, &str)| wire::Label { name: name.to_owned(), value: value.to_owned() };
        if self.external.is_empty() {
            return labels.iter().map(label).collect();
        }
        let mut all = self.external.to_builder();
        labels.iter().for_each(|(name, value)| {
            all.set(name, value);
        });
        all.build().iter().map(label).collect()
    }

    /// All samples in one message, compressed.
    fn answer(&self, queries: &[Query]) -> Result<Vec<u8>, ApiError> {
        let mut response = wire::ReadResponse::default();
        let mut held = 0;
        for query in queries {
            let mut result = wire::QueryResult::default();
            self.visit(query, |series| {
                // The message holds them, too, until it is sent.
                held += series.cost();
                self.budget.take(series.cost()).map_err(QueryError::from)?;
                result.timeseries.push(self.series(&series));
                Ok::<_, ReadFault>(())
            })?;
            response.results.push(result);
        }
        self.budget.put_back(held);
        if response.encoded_len() > WRITE_DECOMPRESSED_BYTES_MAX * 8 {
            return Err(ApiError::bad_data(
                "the answer is too large for one message; ask for streamed chunks",
            ));
        }
        snap::raw::Encoder::new().compress_vec(&response.encode_to_vec()).map_err(ApiError::internal)
    }

    fn series(&self, series: &SeriesColumns) -> wire::TimeSeries {
        let samples = series.timestamps.iter().zip(&series.values);
        let sample = |(&timestamp, &value): (&TimestampMs, &f64)| wire::Sample { value, timestamp };
        wire::TimeSeries {
            labels: self.labels(&series.labels),
            samples: samples.map(sample).collect(),
            exemplars: Vec::new(),
            histograms: series.histograms.iter().map(wire_histogram::to_wire).collect(),
        }
    }

    /// A query's series as frames.
    fn write_chunks(&self, query: &Query, number: usize, out: &mut dyn io::Write) -> io::Result<()> {
        let send = |labels: &[wire::Label], chunks: Vec<wire::Chunk>, out: &mut dyn io::Write| {
            let series = wire::ChunkedSeries { labels: labels.to_vec(), chunks };
            let message =
                wire::ChunkedReadResponse { chunked_series: vec![series], query_index: number as i64 };
            frame::write(out, &message.encode_to_vec())
        };
        let outcome = self.visit(query, |series| {
            let labels = self.labels(&series.labels);
            let floats = series
                .timestamps
                .chunks(chunk::SAMPLES_PER_CHUNK)
                .zip(series.values.chunks(chunk::SAMPLES_PER_CHUNK))
                .map(|(timestamps, values)| chunk::of_floats(timestamps, values));
            let mut histograms = series.histograms.iter().map(chunk::of_histogram).peekable();
            let (mut chunks, mut bytes) = (Vec::new(), 0);
            let mut add = |chunk: wire::Chunk, chunks: &mut Vec<wire::Chunk>| {
                bytes += chunk.encoded_len();
                chunks.push(chunk);
                if bytes < READ_FRAME_BYTES_MAX / 2 {
                    return Ok(());
                }
                bytes = 0;
                send(&labels, std::mem::take(chunks), out)
            };
            // Chunks go out in the order of time.
            for floats in floats {
                while let Some(earlier) = histograms.next_if(|chunk| chunk.max_time_ms < floats.min_time_ms) {
                    add(earlier, &mut chunks)?;
                }
                add(floats, &mut chunks)?;
            }
            histograms.try_for_each(|chunk| add(chunk, &mut chunks))?;
            match chunks.is_empty() {
                true => Ok(()),
                false => send(&labels, chunks, out),
            }
            .map_err(ReadFault::from)
        });
        outcome.map_err(|fault| match fault {
            ReadFault::Query(error) => io::Error::other(error),
            ReadFault::Io(error) => error,
        })
    }
}

/// Why a read broke off.
#[derive(Debug)]
enum ReadFault {
    Query(QueryError),
    Io(io::Error),
}

impl From<QueryError> for ReadFault {
    fn from(error: QueryError) -> Self {
        ReadFault::Query(error)
    }
}

impl From<io::Error> for ReadFault {
    fn from(error: io::Error) -> Self {
        ReadFault::Io(error)
    }
}

impl From<ReadFault> for ApiError {
    fn from(fault: ReadFault) -> Self {
        match fault {
            ReadFault::Query(error) => super::query::api_error(&error.into()),
            ReadFault::Io(error) => ApiError::internal(error),
        }
    }
}
