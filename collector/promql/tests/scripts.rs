//! Runs PromQL scripts: ours in `tests/cases`, and those of Prometheus where they lie beside the
//! repository.

mod script;

use script::runner::run;
use std::path::{Path, PathBuf};

fn scripts_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut scripts = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "test") {
            scripts.push(path);
        }
    }
    scripts.sort();
    Ok(scripts)
}

/// `shared/conformance` beside the repository (or beside the folder of worktrees it is in).
fn conformance_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("PHAROS_CONFORMANCE_DIR") {
        return PathBuf::from(folder);
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let candidates = ["../shared/conformance", "../../shared/conformance"].map(|path| repository.join(path));
    candidates.iter().find(|path| path.is_dir()).unwrap_or(&candidates[0]).clone()
}

/// Runs scripts and gives the cases that fail.
fn failures(scripts: &[PathBuf]) -> std::io::Result<Vec<String>> {
    let mut failures = Vec::new();
    for path in scripts {
        let report = run(&std::fs::read_to_string(path)?);
        eprintln!("{}: {} passed, {} failed", path.display(), report.passed, report.failures.len());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        failures.extend(report.failures.into_iter().map(|(line, error)| format!("{name}:{line}: {error}")));
    }
    Ok(failures)
}

#[test]
fn our_cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let scripts = scripts_in(&folder).unwrap();
    assert!(!scripts.is_empty());
    let failures = failures(&scripts).unwrap();
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn prometheus_cases() {
    let folder = conformance_folder().join("promqltest");
    if !folder.is_dir() {
        eprintln!("{} is not there: Prometheus' own scripts are not run", folder.display());
        return;
    }
    let failures = failures(&scripts_in(&folder).unwrap()).unwrap();
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}
