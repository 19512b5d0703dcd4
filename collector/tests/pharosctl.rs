//! `pharosctl` on a real collector's folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

mod support;

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
}

#[test]
fn a_folder_that_is_none_is_told() {
    let (code, text) = verify(Path::new("/nowhere"), &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("/nowhere"), "{text}");
}
