//! A folder with the fake NVML library and the file that tells it what to do.
//!
//! Cargo builds the library because the tests depend on its crate, and leaves it beside the tests' own
//! executables. Each test gets a link to it in a folder of its own, so tests do not see each other's file.

use std::path::{Path, PathBuf};

/// The library in a folder of its own.
pub struct FakeNvml {
    folder: tempfile::TempDir,
}

impl FakeNvml {
    /// A library that does as `control` says.
    pub fn new(control: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(built_library(), folder.path().join("libnvidia-ml.so.1")).unwrap();
        let fake = FakeNvml { folder };
        fake.control(control);
        fake
    }

    /// Changes what it does, at once and whole.
    pub fn control(&self, text: &str) {
        let path = self.folder.path().join("fake-nvml.conf");
        let next = path.with_extension("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, path).unwrap();
    }

    /// Flags that make the agent read through it, and nothing of this machine.
    pub fn flags(&self) -> Vec<String> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        vec![
            format!("--nvml.library={}", path("libnvidia-ml.so.1")),
            format!("--gpu.reader-program={}", env!("CARGO_BIN_EXE_pharos-agent")),
            format!("--path.kmsg={}", path("kmsg")),
            format!("--gpu.release-file={}", path("release")),
            format!("--gpu.pod-resources-socket={}", path("kubelet.sock")),
            format!("--path.sysfs={}", path("sys")),
            format!("--path.procfs={}", path("proc")),
            format!("--path.rootfs={}", path("root")),
            "--node.name=node-1".to_owned(),
            "--collector.disable-defaults".to_owned(),
            "--sampler.gpu".to_owned(),
        ]
    }

    /// A file of this folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a line to the kernel log that the flags name.
    pub fn log(&self, line: &str) {
        use std::io::Write;
        let file = std::fs::OpenOptions::new().create(true).append(true).open(self.path("kmsg"));
        writeln!(file.unwrap(), "{line}").unwrap();
    }
}

fn built_library() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    // target/PROFILE/deps/TEST-HASH, or target/PROFILE/PROGRAM.
    let candidates =
        exe.ancestors().skip(1).take(2).flat_map(|folder| [folder.join("deps"), folder.to_owned()]);
    let found =
        candidates.map(|folder: PathBuf| folder.join("libpharos_fake_nvml.so")).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("libpharos_fake_nvml.so is not beside {}", Path::new(&exe).display()))
}
