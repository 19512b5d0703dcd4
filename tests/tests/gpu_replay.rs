//! An agent that plays a recorded node with eight GPUs, beside the host it runs on, into a real collector.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

use pharos_tests::api::Api;
use pharos_tests::program::Program;
use pharos_tests::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn recorded_gpus_and_the_host_beside_them_reach_the_collector() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let collector = Program::start(
        "pharos-collector",
        &["--storage.path", &path("collector"), "--web.listen-address", "127.0.0.1:0"],
        1,
    );
    let trace = pharos_tests::repository().join("agent/traces/h100x8-training.trace");
    let address = collector.address().to_string();
    let _agent = Program::start(
        "pharos-agent",
        &[
            "--storage.path",
            &path("agent"),
            "--web.listen-address",
            "127.0.0.1:0",
            "--collector.address",
            &address,
            "--node.name",
            "n",
            "--gpu.replay",
            trace.to_str().unwrap(),
        ],
        1,
    );
    let api = Api::new(collector.url());
    // No job and no process holds these GPUs: what lists them is empty, and must keep nothing else back.
    for (query, want) in [("count(DCGM_FI_DEV_GPU_TEMP)", 8.0), ("count(node_load1)", 1.0)] {
        until(query, async || api.value(query).await.filter(|&count| count == want)).await;
    }
}
