//! `pharosctl` on a real collector's folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

mod support;

use pharos_collector::Options;
use pharos_common::clock::SystemClock;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{TestCollector, options};

fn verify(folder: &Path, more: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pharosctl"))
        .args(["storage", "verify"])
        .arg(folder)
        .args(more)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn block(folder: &Path) -> PathBuf {
    let blocks = std::fs::read_dir(folder.join("blocks")).unwrap();
    blocks
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "block"))
        .unwrap()
}

#[tokio::test]
async fn a_storage_folder_is_verified_while_the_collector_runs_and_damage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let collector = TestCollector::start(folder.path()).await;
    let storage = options(folder.path()).storage_path;
    assert_eq!(collector.import("temperature{node=\"a\"} 42.5\n").await, 204);
    assert_eq!(collector.post("/api/v1/admin/tsdb/flush", &[]).await.0, 200);
    assert_eq!(collector.import("temperature{node=\"b\"} 17\n").await, 204);
    let (code, text) = verify(&storage, &["--all"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains(".block") && text.contains("journal") && text.contains("0 with something wrong"),
        "{text}"
    );
    collector.stop().await;

    let block = block(&storage);
    let mut bytes = std::fs::read(&block).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&block, bytes).unwrap();
    let (code, text) = verify(&storage, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(block.to_str().unwrap()) && text.contains("DAMAGED"), "{text}");
    std::fs::remove_file(&block).unwrap();
    let (code, text) = verify(&storage, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(block.to_str().unwrap()) && text.contains("MISSING"), "{text}");
}

/// All files of a folder and of those in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_snapshot_of_a_running_collector_answers_as_it_did_then() {
    let folder = tempfile::tempdir().unwrap();
    let with_admin = |name: &str| Options {
        storage_path: folder.path().join(name),
        enable_admin_api: true,
        ..options(folder.path())
    };
    let collector = TestCollector::start_with(with_admin("data"), SystemClock::shared()).await;
    assert_eq!(collector.import("kept{node=\"a\"} 42.5\nkept{node=\"b\"} 7\ndeleted 1\n").await, 204);
    let deletion = [("match[]", "{__name__=~\"deleted|kept\",node!=\"a\"}")];
    let url = format!("{}/api/v1/admin/tsdb/delete_series", collector.url);
    assert_eq!(collector.client.post(url).form(&deletion).send().await.unwrap().status(), 204);
    assert_eq!(collector.import("late{node=\"c\"} 3\n").await, 204);
    let (status, answer) = collector.post("/api/v1/admin/tsdb/snapshot", &[]).await;
    assert_eq!(status, 200, "{answer}");
    let name = answer["data"]["name"].as_str().unwrap();
    let question = "/api/v1/query?query=max_over_time({__name__!=\"\"}[1h])";
    let wanted = collector.data(question).await["result"].take();
    // What comes after the snapshot is not in it, and does not change it.
    assert_eq!(collector.import("after 1\n").await, 204);
    let backup = folder.path().join("backup");
    copy(&folder.path().join("data/snapshots").join(name), &backup);
    let (code, text) = verify(&backup, &["--all"]);
    assert_eq!(code, Some(0), "{text}");
    collector.stop().await;

    let restored = TestCollector::start_with(with_admin("backup"), SystemClock::shared()).await;
    // Beside those that the collector tells about itself.
    let imported = |result: &serde_json::Value| -> Vec<(String, String)> {
        let mut all: Vec<_> = result
            .as_array()
            .unwrap()
            .iter()
            .map(|series| (series["metric"].to_string(), series["value"][1].to_string()))
            .filter(|(metric, _)| {
                ["\"a\"", "\"b\"", "\"c\"", "deleted", "after"].iter().any(|of| metric.contains(of))
            })
            .collect();
        all.sort();
        all
    };
    let answered = restored.data(question).await["result"].take();
    assert_eq!(imported(&answered), imported(&wanted));
    assert_eq!(imported(&answered).len(), 2);
    restored.stop().await;
}

#[tokio::test]
async fn a_folder_of_a_newer_program_is_refused_with_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let storage = options(folder.path()).storage_path;
    std::fs::create_dir_all(&storage).unwrap();
    std::fs::write(storage.join("VERSION"), "9\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pharos-collector"))
        .args(["--web.listen-address", "127.0.0.1:0", "--storage.path"])
        .arg(&storage)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(text.contains("storage format 9 is newer than this program knows (2); upgrade Pharos"), "{text}");
    let (code, text) = verify(&storage, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("format 9 is newer than this program"), "{text}");
}

#[test]
fn a_folder_that_is_none_is_told() {
    let (code, text) = verify(Path::new("/nowhere"), &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("/nowhere"), "{text}");
}
