//! What is wrong is said, with file, line and key, and nothing else suffers.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use pharos_tests::api::Api;
use pharos_tests::program::Program;
use pharos_tests::wait::until;

#[track_caller]
fn refused(program: &'static str, config: &str, wants: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yml");
    std::fs::write(&file, config).unwrap();
    let storage = folder.path().join("storage");
    let (code, text) = Program::run(
        program,
        &[
            "--config.file",
            file.to_str().unwrap(),
            "--storage.path",
            storage.to_str().unwrap(),
            "--web.listen-address",
            "127.0.0.1:0",
        ],
    );
    assert_eq!(code, Some(2), "{program}: {text}");
    for want in wants {
        assert!(text.contains(want), "{program} should mention {want:?}: {text}");
    }
}

#[test]
fn a_broken_configuration_names_file_line_and_key() {
    refused(
        "pharos-alertmanager",
        "route:\n  receiver: a\n  colour: red\nreceivers:\n  - name: a\n",
        &["config.yml:3", "colour"],
    );
    refused(
        "pharos-alertmanager",
        "route:\n  receiver: missing\nreceivers:\n  - name: a\n",
        &["config.yml:2", "missing"],
    );
    refused(
        "pharos-collector",
        "global:\n  evaluation_interval: 5 parsecs\n",
        &["config.yml:2", "evaluation_interval"],
    );
    refused("pharos-collector", "globall: {}\n", &["config.yml:1", "globall"]);
    refused("pharos-agent", "colour: red\n", &["config.yml:1", "colour"]);
    refused("pharos-agent", "[", &["config.yml"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_names_the_flag_that_changes_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for program in ["pharos-agent", "pharos-collector", "pharos-alertmanager"] {
        let folder = tempfile::tempdir().unwrap();
        let storage = folder.path().join("storage");
        let (code, text) = Program::run(
            program,
            &["--web.listen-address", &address, "--storage.path", storage.to_str().unwrap()],
        );
        assert!(code.is_some_and(|code| code != 0), "{program}");
        assert!(text.contains("--web.listen-address"), "{program}: {text}");
    }
}

#[test]
fn an_address_that_is_none_is_the_users_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().to_str().unwrap();
    for program in ["pharos-agent", "pharos-collector", "pharos-alertmanager"] {
        let (code, text) =
            Program::run(program, &["--web.listen-address", "nonsense", "--storage.path", storage]);
        assert_eq!(code, Some(2), "{program}: {text}");
        assert!(text.contains("--web.listen-address") && text.contains("HOST:PORT"), "{program}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_reload_keeps_the_old_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yml");
    std::fs::write(&file, "route:\n  receiver: first\nreceivers:\n  - name: first\n").unwrap();
    let storage = folder.path().join("storage");
    let program = Program::start(
        "pharos-alertmanager",
        &[
            "--config.file",
            file.to_str().unwrap(),
            "--storage.path",
            storage.to_str().unwrap(),
            "--web.listen-address",
            "127.0.0.1:0",
        ],
        1,
    );
    let api = Api::new(program.url());
    until("readiness", async || api.get("/-/ready", &[]).await.filter(|(status, _)| *status == 200)).await;
    std::fs::write(&file, "route:\n  receiver: second\n").unwrap();
    let (status, text) = api.post("/-/reload", &serde_json::Value::Null).await.unwrap();
    assert_eq!(status, 500);
    assert!(text.contains("config.yml"), "{text}");
    let receivers = api.json("/api/v2/receivers", &[]).await.unwrap();
    assert_eq!(receivers[0]["name"], "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_get_prometheus_errors_and_harm_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("storage");
    let program = Program::start(
        "pharos-collector",
        &["--storage.path", storage.to_str().unwrap(), "--web.listen-address", "127.0.0.1:0"],
        1,
    );
    let api = Api::new(program.url());
    let queries = ["sum(", "up[99999999999999999999y]", r#"{a=~"((a{100}){100}){100}"}"#, "", "foo{"];
    for query in queries {
        let response = pharos_tests::api::client()
            .post(format!("{}/api/v1/query", program.url()))
            .form(&[("query", query)])
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        let answer: serde_json::Value = response.json().await.unwrap();
        let start: String = query.chars().take(40).collect();
        assert!(status == 400 || status == 422, "{start}: {status} {answer}");
        assert_eq!(answer["status"], "error", "{start}");
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()), "{start}");
    }
    // Monstrous but well-formed: an answer or an error, never a crash.
    let deep = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    for query in [deep, vec!["1"; 100_000].join("+"), format!("{}1", "-".repeat(100_000))] {
        let response = pharos_tests::api::client()
            .post(format!("{}/api/v1/query", program.url()))
            .form(&[("query", query.as_str())])
            .send()
            .await
            .unwrap();
        assert!(response.status().as_u16() < 500);
    }
    for (headers, body) in [
        (
            vec![("content-encoding", "snappy"), ("content-type", "application/x-protobuf")],
            b"garbage".to_vec(),
        ),
        (vec![("content-encoding", "snappy"), ("content-type", "application/x-protobuf")], Vec::new()),
    ] {
        let status = api.post_bytes("/api/v1/write", &headers, body).await.unwrap();
        assert!(status == 400 || status == 204, "{status}");
    }
    assert_eq!(api.value("vector(2)").await, Some(2.0));
}
