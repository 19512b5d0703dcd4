//! Folders of `/sys` that list devices. Devices come and go rarely, and listing costs more than reading
//! their files, so a folder is listed anew only now and then.

use crate::error::SampleError;
use std::fs::DirEntry;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Readings between two looks: a device that comes is seen ten seconds later. One that goes is missed at
/// once, for its files answer no more.
const READINGS_BETWEEN_LOOKS: u32 = 10;

/// A folder and the names in it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    names: Vec<String>,
    countdown: u32,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Folder { path, names: Vec::new(), countdown: 0 }
    }

    /// Whether the next reading lists the folder.
    pub(super) fn look_is_due(&self) -> bool {
        self.countdown == 0
    }

    /// The folder's path, and the names that were in it at the last look, sorted. A folder that is not there
    /// is empty.
    pub(super) fn names(&mut self, keep: fn(&DirEntry) -> bool) -> Result<(&Path, &[String]), SampleError> {
        if self.countdown == 0 {
            self.names = self.list(keep)?;
            self.countdown = READINGS_BETWEEN_LOOKS;
        }
        self.countdown -= 1;
        Ok((&self.path, &self.names))
    }

    /// That there is neither an entry nor a folder, if so; `absent` says what that means.
    pub(super) fn missing(&self, absent: &'static str) -> Result<(), SampleError> {
        if self.names.is_empty() && !self.path.exists() { Err(SampleError::Absent(absent)) } else { Ok(()) }
    }

    fn list(&self, keep: fn(&DirEntry) -> bool) -> Result<Vec<String>, SampleError> {
        let fault = |source| SampleError::Read { path: self.path.clone(), source };
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(fault(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(fault)?;
            if keep(&entry)
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}
