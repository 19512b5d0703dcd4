//! The program itself: flags, exit codes, and an end that loses nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pharos-collector"));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[test]
fn a_broken_configuration_exits_2_naming_file_line_column_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pharos.yml");
    std::fs::write(&file, "global:\n  evaluation_interval: often\n").unwrap();
    let output = program()
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.path={}/data", folder.path().display()))
        .arg("--web.listen-address=127.0.0.1:0")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr);
    let want = format!("{}:2:24: global.evaluation_interval: ", file.display());
    assert!(errors.contains(&want), "{errors}");
}

#[test]
fn it_says_where_it_listens_and_ends_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = program()
        .arg(format!("--storage.path={}/data", folder.path().display()))
        .arg("--web.listen-address=127.0.0.1:0")
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("Listening on")).unwrap();
    assert!(line.contains("address=127.0.0.1:"), "{line}");
    lines.find(|line| line.contains("Configuration in force")).unwrap();
    let killed = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert!(lines.any(|line| line.contains("Collector ended")));
    assert!(child.wait().unwrap().success());
}
