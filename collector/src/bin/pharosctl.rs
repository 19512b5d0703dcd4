//! `pharosctl`: looks after what Pharos keeps, from the command line.

use clap::{Parser, Subcommand};
use pharos_collector::ByteSize;
use pharos_common::storage_io::DiskIo;
use pharos_tsdb::{Database, FileCheck, Verdict};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Looks after what Pharos keeps
#[derive(Debug, Parser)]
#[command(name = "pharosctl", version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Work on a collector's storage folder
    #[command(subcommand)]
    Storage(Storage),
}

#[derive(Debug, Subcommand)]
enum Storage {
    /// Checks every checksum and that no block is missing, and says what is wrong where
    ///
    /// Changes nothing and takes no lock: it checks the folder of a running collector, a snapshot, or a backup.
    /// Ends with 1 if anything is damaged or of a newer format.
    Verify {
        /// The folder, as in the collector's --storage.path
        folder: PathBuf,
        /// Print all files, not only those that something is wrong with
        #[arg(long)]
        all: bool,
    },
}

fn main() -> ExitCode {
    let Command::Storage(Storage::Verify { folder, all }) = Options::parse().command;
    match verify(&folder, all, &mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(io::stderr(), "{}: {error}", folder.display());
            ExitCode::from(2)
        }
    }
}

/// Whether nothing is wrong.
fn verify(folder: &Path, all: bool, out: &mut impl Write) -> anyhow::Result<bool> {
    if !folder.join("VERSION").is_file() {
        anyhow::bail!("no VERSION is there, so it is no storage folder; give the collector's --storage.path");
    }
    let checks = Database::verify(&DiskIo, folder)?;
    let mut wrong = 0;
    for FileCheck { path, bytes, verdict } in &checks {
        let (bad, text) = match verdict {
            Verdict::Whole => (false, "whole".to_owned()),
            Verdict::Missing => (
                true,
                "MISSING: put it back from a snapshot; to forget it, remove the file manifest".to_owned(),
            ),
            Verdict::Gone => (false, "gone meanwhile, as files of a running collector go".to_owned()),
            Verdict::Torn { bytes } => (
                false,
                format!("its last {bytes} bytes are a record cut short: nothing that was acknowledged"),
            ),
            Verdict::Damaged { what } => (true, format!("DAMAGED: {what}")),
            Verdict::Newer { version } => (true, format!("format {version} is newer than this program")),
        };
        wrong += usize::from(bad);
        if bad || all || matches!(verdict, Verdict::Torn { .. }) {
            writeln!(out, "{} ({}): {text}", path.display(), ByteSize(*bytes))?;
        }
    }
    let total: u64 = checks.iter().map(|check| check.bytes).sum();
    writeln!(out, "{} files, {}: {wrong} with something wrong", checks.len(), ByteSize(total))?;
    Ok(wrong == 0)
}
