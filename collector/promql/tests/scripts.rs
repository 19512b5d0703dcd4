//! Runs PromQL scripts: ours in `tests/cases`, and those of Prometheus where they lie beside the
//! repository.

mod script;

use script::runner::run;
use std::path::{Path, PathBuf};

fn scripts_in(folder: &Path) -> Vec<PathBuf> {
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "test"))
        .collect();
    scripts.sort();
    scripts
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

fn check_all(scripts: &[PathBuf]) {
    let mut failures = Vec::new();
    for path in scripts {
        let text = std::fs::read_to_string(path).unwrap();
        let report = run(&text);
        eprintln!("{}: {} passed, {} failed", path.display(), report.passed, report.failures.len());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        failures.extend(report.failures.into_iter().map(|(line, error)| format!("{name}:{line}: {error}")));
    }
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn our_cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let scripts = scripts_in(&folder);
    assert!(!scripts.is_empty());
    check_all(&scripts);
}

#[test]
fn prometheus_cases() {
    let folder = conformance_folder().join("promqltest");
    if !folder.is_dir() {
        eprintln!("{} is not there: Prometheus' own scripts are not run", folder.display());
        return;
    }
    check_all(&scripts_in(&folder));
}
