//! Which pod has which GPU, as the kubelet's pod-resources socket tells.
//!
//! A thread asks now and then; the sampler looks at the last answer and never waits. The messages are those of
//! `kubelet/pkg/apis/podresources/v1`, cut down to the fields that are used.

use super::workloads::PodName;
use hyper_util::rt::TokioIo;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

/// From one question to the next.
const INTERVAL: Duration = Duration::from_secs(10);
/// The kubelet answers from memory; longer means that it does not.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Answers of a node with thousands of pods stay below.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Devices of a node, replicas of time-slicing included.
const DEVICES_MAX: usize = 8_192;

#[derive(Clone, PartialEq, prost::Message)]
struct ListRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    pods: Vec<Pod>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pod {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(message, repeated, tag = "3")]
    containers: Vec<Container>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Container {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    devices: Vec<Devices>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Devices {
    #[prost(string, tag = "1")]
    resource_name: String,
    #[prost(string, repeated, tag = "2")]
    device_ids: Vec<String>,
}

/// A GPU or a MIG instance that a container has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Allocation {
    /// UUID of the GPU or the MIG instance.
    pub(super) uuid: String,
    /// Whether it is one of several replicas: time-slicing or MPS.
    pub(super) replica: bool,
    /// Who has it.
    pub(super) owner: PodName,
}

/// The last answer, with a number that changes when it does.
#[derive(Debug, Default)]
pub(super) struct Allocations {
    latest: Mutex<(u64, Arc<Vec<Allocation>>)>,
}

impl Allocations {
    /// Starts asking, for as long as somebody holds the result.
    pub(super) fn watch(socket: PathBuf) -> io::Result<Arc<Self>> {
        let allocations = Arc::new(Allocations::default());
        let weak = Arc::downgrade(&allocations);
        std::thread::Builder::new().name("pharos-pods".into()).spawn(move || run(socket, &weak))?;
        Ok(allocations)
    }

    pub(super) fn latest(&self) -> (u64, Arc<Vec<Allocation>>) {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        (latest.0, Arc::clone(&latest.1))
    }

    fn set(&self, new: Vec<Allocation>) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if *latest.1 != new {
            *latest = (latest.0 + 1, Arc::new(new));
        }
    }
}

fn run(socket: PathBuf, allocations: &Weak<Allocations>) {
    let (mut runtime, mut failing) = (None, false);
    loop {
        // A node without a kubelet has no socket; it may get one.
        if socket.exists() {
            let answer = match &runtime {
                Some(runtime) => ask_in_time(runtime, &socket),
                None => match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(new) => ask_in_time(runtime.insert(new), &socket),
                    Err(error) => Err(error.into()),
                },
            };
            let Some(allocations) = allocations.upgrade() else { return };
            match answer {
                Ok(list) => {
                    failing = false;
                    allocations.set(list);
                }
                Err(error) => {
                    // What was true a while ago may be wrong now.
                    allocations.set(Vec::new());
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(socket = %socket.display(), %error, "The kubelet does not tell which pod has which GPU");
                    }
                }
            }
        } else if allocations.strong_count() == 0 {
            return;
        }
        std::thread::sleep(INTERVAL);
    }
}

type AskError = Box<dyn std::error::Error + Send + Sync>;

fn ask_in_time(runtime: &Runtime, socket: &Path) -> Result<Vec<Allocation>, AskError> {
    let asked = async { tokio::time::timeout(ANSWER_TIME_MAX, ask(socket.to_owned())).await };
    runtime.block_on(asked).unwrap_or_else(|_| Err("it does not answer".into()))
}

async fn ask(socket: PathBuf) -> Result<Vec<Allocation>, AskError> {
    // The address is not used: the connector goes to the socket.
    let channel: Channel = Endpoint::from_static("http://kubelet")
        .connect_with_connector(tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(tokio::net::UnixStream::connect(socket).await?)) }
        }))
        .await?;
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    client.ready().await?;
    let path = http::uri::PathAndQuery::from_static("/v1.PodResourcesLister/List");
    let codec = tonic_prost::ProstCodec::<ListRequest, ListResponse>::default();
    let answer = client.unary(tonic::Request::new(ListRequest {}), path, codec).await?;
    Ok(allocations(answer.into_inner()))
}

fn allocations(answer: ListResponse) -> Vec<Allocation> {
    let mut found = Vec::new();
    for pod in &answer.pods {
        for container in &pod.containers {
            let gpus =
                container.devices.iter().filter(|devices| devices.resource_name.starts_with("nvidia.com/"));
            for id in gpus.flat_map(|devices| &devices.device_ids) {
                if found.len() >= DEVICES_MAX {
                    break;
                }
                // The device plugin names replicas UUID::NUMBER.
                let (uuid, replica) = match id.split_once("::") {
                    Some((uuid, _)) => (uuid, true),
                    None => (id.as_str(), false),
                };
                let (namespace, pod) = (pod.namespace.clone(), pod.name.clone());
                let owner = PodName { namespace, pod, container: container.name.clone() };
                found.push(Allocation { uuid: uuid.to_owned(), replica, owner });
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> ListResponse {
        let container = |ids: &[&str], resource: &str| Container {
            name: "main".into(),
            devices: vec![Devices {
                resource_name: resource.into(),
                device_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            }],
        };
        let pod = |name: &str, container| Pod {
            name: name.into(),
            namespace: "ml".into(),
            containers: vec![container],
        };
        ListResponse {
            pods: vec![
                pod("a", container(&["GPU-1"], "nvidia.com/gpu")),
                pod("b", container(&["GPU-2::0", "GPU-2::1"], "nvidia.com/gpu.shared")),
                pod("c", container(&["MIG-3"], "nvidia.com/mig-1g.10gb")),
                pod("d", container(&["eth0"], "example.com/nic")),
            ],
        }
    }

    #[test]
    fn gpus_instances_and_replicas_have_their_pods() {
        let found = allocations(answer());
        let lines: Vec<String> =
            found.iter().map(|one| format!("{} {} {}", one.uuid, one.replica, one.owner.pod)).collect();
        assert_eq!(lines, ["GPU-1 false a", "GPU-2 true b", "MIG-3 false c"]);
    }

    #[derive(Clone)]
    struct Kubelet;

    impl tower::Service<http::Request<tonic::body::Body>> for Kubelet {
        type Response = http::Response<tonic::body::Body>;
        type Error = std::convert::Infallible;
        type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
            struct List;
            impl tonic::server::UnaryService<ListRequest> for List {
                type Response = ListResponse;
                type Future = std::future::Ready<Result<tonic::Response<ListResponse>, tonic::Status>>;
                fn call(&mut self, _: tonic::Request<ListRequest>) -> Self::Future {
                    std::future::ready(Ok(tonic::Response::new(answer())))
                }
            }
            Box::pin(async move {
                assert_eq!(request.uri().path(), "/v1.PodResourcesLister/List");
                let codec = tonic_prost::ProstCodec::<ListResponse, ListRequest>::default();
                Ok(tonic::server::Grpc::new(codec).unary(List, request).await)
            })
        }
    }

    impl tonic::server::NamedService for Kubelet {
        const NAME: &'static str = "v1.PodResourcesLister";
    }

    #[tokio::test]
    async fn a_kubelet_is_asked_over_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("kubelet.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(Kubelet).serve_with_incoming(incoming);
        let server = tokio::spawn(server);
        assert_eq!(ask(socket).await.unwrap().len(), 3);
        server.abort();
    }

    #[tokio::test]
    async fn a_socket_without_a_kubelet_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(ask(folder.path().join("kubelet.sock")).await.is_err());
    }
}
