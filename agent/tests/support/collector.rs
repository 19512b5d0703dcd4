//! A collector that speaks `pharos.v1.Ingest` over a real socket, checks everything that the protocol
//! promises, and can be cut off, slowed down and brought back.

use pharos_proto::v1::agent_message::Message;
use pharos_proto::v1::collector_message::Message as Reply;
use pharos_proto::v1::ingest_server::{Ingest, IngestServer};
use pharos_proto::v1::{
    Acknowledge, AgentMessage, CollectorMessage, DefineGroup, Hint, Hints, Lane, Throttle, Tick, Welcome,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// What the collector has made durable and seen; outlives its server.
#[derive(Clone, Default)]
pub struct Store(Arc<Mutex<Inner>>);

#[derive(Default)]
pub struct Inner {
    /// Marks of each stream: live, backfill.
    pub marks: HashMap<Vec<u8>, (u64, u64)>,
    /// Stored frames by lane, in order of arrival.
    pub frames: Vec<(Lane, u64)>,
    /// Frames that arrived a second time and were not stored.
    pub repeated: u64,
    /// Samples by series.
    pub samples: BTreeMap<String, BTreeMap<i64, u64>>,
    pub nodes: BTreeSet<String>,
    pub connections: u64,
    /// Streams that agents ended, and that did not break.
    pub ended: u64,
    /// Frames after which the connection breaks, once.
    pub break_after: Option<u64>,
    /// What to ask for right after Welcome.
    pub throttle_ms: Option<u32>,
    /// Whether acknowledgements are held back.
    pub silent: bool,
    /// The frame that is refused whenever it comes.
    pub refuse: Option<u64>,
    /// Whether every connection ends with an error when its first frame comes.
    pub failing: bool,
    /// Name of a series whose group is over a threshold, as soon as it has a reading.
    pub hint: Option<String>,
}

impl Store {
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Sequences stored on any lane.
    pub fn sequences(&self) -> BTreeSet<u64> {
        self.lock().frames.iter().map(|(_, sequence)| *sequence).collect()
    }

    pub fn count(&self, lane: Lane) -> usize {
        self.lock().frames.iter().filter(|(of, _)| *of == lane).count()
    }
}

/// A running collector.
pub struct Server {
    pub address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Listens on a free port, or on the one given.
    pub async fn start(store: Store, address: Option<SocketAddr>) -> Self {
        let address = address.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener: TcpListener = socket.listen(16).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let service = IngestServer::new(Collector { store, stop: stop.clone() });
        let server = tonic::transport::Server::builder().add_service(service);
        let ended = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                served = server.serve_with_incoming(TcpListenerStream::new(listener)) => served.unwrap(),
                () = ended.cancelled() => {}
            }
        });
        Server { address, stop, task }
    }

    /// Ends as if killed: connections break, nothing more is acknowledged.
    pub async fn kill(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

struct Collector {
    store: Store,
    stop: CancellationToken,
}

type Replies = Pin<Box<dyn Stream<Item = Result<CollectorMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Ingest for Collector {
    type PushStream = Replies;

    async fn push(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Replies>, Status> {
        let (replies, out) = mpsc::channel(16);
        let connection = Connection { store: self.store.clone(), replies, groups: HashMap::new() };
        let (stop, incoming) = (self.stop.clone(), request.into_inner());
        tokio::spawn(async move {
            tokio::select! {
                () = connection.run(incoming) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(out))))
    }
}

struct Connection {
    store: Store,
    replies: mpsc::Sender<Result<CollectorMessage, Status>>,
    groups: HashMap<u32, DefineGroup>,
}

impl Connection {
    async fn run(mut self, mut incoming: Streaming<AgentMessage>) {
        let Ok(Some(AgentMessage { message: Some(Message::Hello(hello)) })) = incoming.message().await else {
            panic!("a connection starts with Hello");
        };
        assert_eq!(hello.stream_id.len(), 16);
        let stream = hello.stream_id.to_vec();
        let (marks, throttle) = {
            let mut store = self.store.lock();
            store.connections += 1;
            store.nodes.insert(hello.node);
            (*store.marks.entry(stream.clone()).or_default(), store.throttle_ms)
        };
        let welcome = Welcome { version: "test".into(), live_durable: marks.0, backfill_durable: marks.1 };
        self.reply(Reply::Welcome(welcome)).await;
        if let Some(pause_backfill_ms) = throttle {
            self.reply(Reply::Throttle(Throttle { pause_backfill_ms, reason: "test".into() })).await;
        }
        let mut highest = HashMap::new();
        loop {
            let message = match incoming.message().await {
                Ok(Some(message)) => message,
                Ok(None) => {
                    self.store.lock().ended += 1;
                    return;
                }
                Err(_) => return,
            };
            match message.message.unwrap() {
                Message::Hello(_) => panic!("Hello comes once"),
                Message::DefineGroup(group) => {
                    assert!(group.columns.len() <= 256);
                    self.groups.insert(group.group, group);
                }
                Message::AlterGroup(alter) => {
                    let group = self.groups.get_mut(&alter.group).expect("only defined groups are altered");
                    group.columns.retain(|column| !alter.remove.contains(&column.id));
                    group.columns.extend(alter.add);
                }
                Message::Tick(tick) => {
                    let lane = tick.lane();
                    let last = highest.insert(lane, tick.sequence);
                    assert!(last.is_none_or(|last| last < tick.sequence), "sequences rise within a lane");
                    if self.store.lock().refuse == Some(tick.sequence) {
                        let status = Status::invalid_argument("this frame is wrong, and always will be");
                        let _ = self.replies.send(Err(status)).await;
                        return;
                    }
                    if self.store.lock().failing {
                        let _ = self.replies.send(Err(Status::internal("nothing works"))).await;
                        return;
                    }
                    if !self.take(&stream, &tick) {
                        return;
                    }
                    let hinted = self.hinted();
                    if let Some(group) = hinted {
                        let hint = Hint { group, column: 0, urgency: 1.0, valid_ms: 60_000 };
                        self.reply(Reply::Hints(Hints { hints: vec![hint] })).await;
                    }
                    let sequence = tick.sequence;
                    if !self.store.lock().silent {
                        self.reply(Reply::Acknowledge(Acknowledge { lane: lane.into(), sequence })).await;
                    }
                }
            }
        }
    }

    /// The group that the test wants to be hinted at, once.
    fn hinted(&self) -> Option<u32> {
        let mut store = self.store.lock();
        let name = store.hint.as_ref()?;
        let has = |group: &&DefineGroup| group.columns.iter().any(|column| column.name == *name);
        let group = self.groups.values().find(has)?.group;
        store.hint = None;
        Some(group)
    }

    /// Stores a frame unless it is known; `false` breaks the connection, the frame stored but not
    /// acknowledged.
    fn take(&self, stream: &[u8], tick: &Tick) -> bool {
        let mut store = self.store.lock();
        let marks = store.marks.get_mut(stream).unwrap();
        let mark = if tick.lane() == Lane::Live { &mut marks.0 } else { &mut marks.1 };
        if tick.sequence <= *mark {
            store.repeated += 1;
            return true;
        }
        *mark = tick.sequence;
        store.frames.push((tick.lane(), tick.sequence));
        for reading in &tick.readings {
            let group = self.groups.get(&reading.group).expect("groups are defined before their readings");
            assert!(reading.interval_ms > 0);
            let mut values = reading.values.chunks_exact(8);
            for (at, column) in group.columns.iter().enumerate() {
                let here = reading.present.is_empty() || reading.present[at / 8] >> (at % 8) & 1 == 1;
                if !here {
                    continue;
                }
                let value =
                    u64::from_le_bytes(values.next().expect("a value per column").try_into().unwrap());
                let labels = group.labels.iter().chain(&column.labels);
                let mut labels: Vec<String> =
                    labels.map(|label| format!("{}={}", label.name, label.value)).collect();
                labels.sort();
                let series = format!("{}{{{}}}", column.name, labels.join(","));
                let before =
                    store.samples.entry(series.clone()).or_default().insert(reading.timestamp_ms, value);
                assert_eq!(before, None, "{series} has two samples at {}", reading.timestamp_ms);
            }
            assert_eq!(values.len(), 0, "more values than columns");
        }
        let total = store.frames.len() as u64;
        match store.break_after {
            Some(limit) if total >= limit => {
                store.break_after = None;
                false
            }
            _ => true,
        }
    }

    async fn reply(&self, message: Reply) {
        let _ = self.replies.send(Ok(CollectorMessage { message: Some(message) })).await;
    }
}
