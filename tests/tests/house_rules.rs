//! The rules of the house, checked on the tree itself.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use pharos_tests::repository;
use std::path::{Path, PathBuf};

/// Files over this many lines hold more than one idea.
const LINES_MAX: usize = 700;

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "data" {
                rust_files(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    rust_files(&repository(), &mut files);
    files.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn files_are_short_and_named_after_what_they_hold() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{}: {lines} lines", path.display());
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        for vague in ["utils", "util", "helpers", "misc", "types", "consts"] {
            assert_ne!(name, vague, "{}", path.display());
        }
    }
}

#[test]
fn every_module_says_what_it_is() {
    for (path, text) in sources() {
        // Tests of a module stand below it and are told by it.
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let inner = name == "tests.rs" || name.ends_with("_tests.rs");
        let first = text.lines().next().unwrap_or_default();
        assert!(inner || first.starts_with("//!"), "{}: begins with {first:?}", path.display());
    }
}

#[test]
fn crates_depend_down_the_data_path_only() {
    let allowed: [(&str, &[&str]); 7] = [
        ("common", &[]),
        ("proto", &[]),
        ("collector/tsdb", &["pharos-common"]),
        ("collector/promql", &["pharos-common"]),
        ("agent", &["pharos-common", "pharos-proto"]),
        ("collector", &["pharos-common", "pharos-proto", "pharos-promql", "pharos-tsdb"]),
        ("alertmanager", &["pharos-common", "pharos-proto"]),
    ];
    for (folder, allowed) in allowed {
        let manifest = std::fs::read_to_string(repository().join(folder).join("Cargo.toml")).unwrap();
        let mut section = String::new();
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line.to_owned();
            }
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if section == "[dependencies]" && name.starts_with("pharos-") {
                assert!(allowed.contains(&name), "{folder} may not depend on {name}");
            }
        }
    }
}

#[test]
fn every_unsafe_block_tells_its_invariant() {
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains("unsafe {") && !code.contains('"') {
                let before = lines[number.saturating_sub(8)..number].join("\n");
                assert!(before.contains("SAFETY"), "{}:{}", path.display(), number + 1);
            }
        }
    }
}

#[test]
fn the_chart_ships_the_rules_and_dashboards_of_the_repository() {
    let status = std::process::Command::new("sh")
        .arg(repository().join("helm/sync.sh"))
        .arg("--check")
        .status()
        .unwrap();
    assert!(status.success(), "run helm/sync.sh");
}

#[test]
fn every_alert_has_its_runbook() {
    for entry in std::fs::read_dir(repository().join("rules")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yml") {
            continue;
        }
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            if let Some(page) = line.trim().strip_prefix("runbook_url: ") {
                assert!(repository().join(page).is_file(), "{}: {page}", path.display());
            }
        }
    }
}
