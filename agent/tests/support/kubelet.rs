//! A kubelet as far as the agent asks one: `v1.PodResourcesLister/List` by gRPC on a socket.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::body::Body;

#[derive(Clone, PartialEq, prost::Message)]
struct ListPodResourcesRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct ListPodResourcesResponse {
    #[prost(message, repeated, tag = "1")]
    pod_resources: Vec<PodResources>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodResources {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(message, repeated, tag = "3")]
    containers: Vec<ContainerResources>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerResources {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    devices: Vec<ContainerDevices>,
    /// The agent does not ask for them; a kubelet sends them.
    #[prost(int64, repeated, tag = "3")]
    cpu_ids: Vec<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerDevices {
    #[prost(string, tag = "1")]
    resource_name: String,
    #[prost(string, repeated, tag = "2")]
    device_ids: Vec<String>,
}

/// A running kubelet; ends when dropped.
pub struct Kubelet {
    _runtime: tokio::runtime::Runtime,
}

impl Kubelet {
    /// Serves on `socket`. Each pod: namespace, name, and the device that its container `main` has.
    pub fn start(socket: &Path, pods: &[(&str, &str, &str)]) -> Self {
        let pod_resources = pods.iter().map(|(namespace, name, device)| PodResources {
            name: (*name).to_owned(),
            namespace: (*namespace).to_owned(),
            containers: vec![ContainerResources {
                name: "main".to_owned(),
                devices: vec![ContainerDevices {
                    resource_name: "nvidia.com/gpu".to_owned(),
                    device_ids: vec![(*device).to_owned()],
                }],
                cpu_ids: vec![0, 1],
            }],
        });
        let service = Lister(ListPodResourcesResponse { pod_resources: pod_resources.collect() });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _inside = runtime.enter();
            tokio::net::UnixListener::bind(socket).unwrap()
        };
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
        runtime.spawn(server);
        Kubelet { _runtime: runtime }
    }
}

#[derive(Clone)]
struct Lister(ListPodResourcesResponse);

impl tonic::server::NamedService for Lister {
    const NAME: &'static str = "v1.PodResourcesLister";
}

impl tower::Service<http::Request<Body>> for Lister {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        struct List(ListPodResourcesResponse);
        impl tonic::server::UnaryService<ListPodResourcesRequest> for List {
            type Response = ListPodResourcesResponse;
            type Future = Ready<Result<tonic::Response<ListPodResourcesResponse>, tonic::Status>>;
            fn call(&mut self, _: tonic::Request<ListPodResourcesRequest>) -> Self::Future {
                ready(Ok(tonic::Response::new(self.0.clone())))
            }
        }
        let list = List(self.0.clone());
        Box::pin(async move {
            assert_eq!(request.uri().path(), "/v1.PodResourcesLister/List");
            let codec =
                tonic_prost::ProstCodec::<ListPodResourcesResponse, ListPodResourcesRequest>::default();
            Ok(tonic::server::Grpc::new(codec).unary(list, request).await)
        })
    }
}
