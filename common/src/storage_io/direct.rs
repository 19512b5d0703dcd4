//! A log's file that is written past the page cache.
//!
//! A log that is synced after every few kilobytes would hand the disk its last page again and again: the cache
//! knows only whole pages. Written directly, a sync costs what was appended, rounded up to sectors. The sector that
//! the end lies in is written again with what follows; behind the end it holds zeros, which the file loses when it
//! is closed, and which whoever reads it after a crash has to expect.

use super::disk::at;
use super::{IoError, IoResult, WritableFile};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What disks write at once; where they want more, writes are refused and the page cache is used.
const SECTOR_BYTES: usize = 512;

/// Where the system wants the memory to begin that is written.
const MEMORY_ALIGNMENT: usize = 4096;

/// Memory that is kept from write to write.
const MEMORY_BYTES_KEPT: usize = 4 << 20;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct DirectFile {
    file: File,
    path: PathBuf,
    /// Bytes that were appended; the file is longer by what fills its last sector.
    length: u64,
    /// The appended bytes of the last sector, if it is not full.
    tail: Vec<u8>,
    /// Aligned by whoever uses it; kept for its memory.
    memory: Vec<u8>,
    /// Writes go by the page cache, for the file system knows no other way.
    cached: bool,
}

impl DirectFile {
    /// Opens an existing file to append to it.
    pub(super) fn append(path: &Path) -> IoResult<Self> {
        let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path);
        let (file, cached) = match direct {
            Ok(file) => (file, false),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                (OpenOptions::new().write(true).open(path).map_err(at("open", path))?, true)
            }
            Err(error) => return Err(IoError::new("open", path, error)),
        };
        let length = file.metadata().map_err(at("stat", path))?.len();
        let mut opened =
            DirectFile { file, path: path.to_owned(), length, tail: Vec::new(), memory: Vec::new(), cached };
        opened.read_tail().map_err(at("read", path))?;
        Ok(opened)
    }

    /// Takes the last sector's bytes from the file, as long as it is.
    fn read_tail(&mut self) -> io::Result<()> {
        self.tail.resize((self.length % SECTOR_BYTES as u64) as usize, 0);
        if self.tail.is_empty() {
            return Ok(());
        }
        // By the cache, which does not ask for whole sectors.
        let from = self.length - self.tail.len() as u64;
        File::open(&self.path)?.read_exact_at(&mut self.tail, from)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let used = self.tail.len() + bytes.len();
        let sectors = used.next_multiple_of(SECTOR_BYTES);
        let from = self.length - self.tail.len() as u64;
        self.memory.clear();
        self.memory.resize(sectors + MEMORY_ALIGNMENT, 0);
        let start = self.memory.as_ptr().align_offset(MEMORY_ALIGNMENT).min(MEMORY_ALIGNMENT);
        let (before, behind) = self.memory[start..].split_at_mut(self.tail.len());
        before.copy_from_slice(&self.tail);
        behind[..bytes.len()].copy_from_slice(bytes);
        let whole = &self.memory[start..start + sectors];
        match self.file.write_all_at(whole, from) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && !self.cached => {
                self.file = OpenOptions::new().write(true).open(&self.path)?;
                self.cached = true;
                self.file.write_all_at(whole, from)?;
            }
            outcome => outcome?,
        }
        self.tail.clear();
        self.tail.extend_from_slice(&self.memory[start + used / SECTOR_BYTES * SECTOR_BYTES..start + used]);
        if self.memory.len() > MEMORY_BYTES_KEPT {
            self.memory = Vec::new();
        }
        self.length += bytes.len() as u64;
        Ok(())
    }
}

impl WritableFile for DirectFile {
    fn write_all(&mut self, bytes: &[u8]) -> IoResult<()> {
        self.write(bytes).map_err(at("write", &self.path))
    }

    fn sync(&mut self) -> IoResult<()> {
        self.file.sync_data().map_err(at("sync", &self.path))
    }

    fn truncate(&mut self, length: u64) -> IoResult<()> {
        self.file.set_len(length).map_err(at("truncate", &self.path))?;
        self.length = length;
        self.read_tail().map_err(at("read", &self.path))
    }
}

impl Drop for DirectFile {
    fn drop(&mut self) {
        if !self.tail.is_empty() {
            // Zeros that stay are no harm.
            let _ = self.file.set_len(self.length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_ends_where_its_bytes_end_once_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, b"head").unwrap();
        let mut file = DirectFile::append(&path).unwrap();
        file.write_all(&[7; 600]).unwrap();
        file.sync().unwrap();
        let open = std::fs::read(&path).unwrap();
        assert_eq!((&open[..4], &open[4..604]), (b"head".as_slice(), [7; 600].as_slice()));
        assert!(open[604..].iter().all(|&byte| byte == 0));
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap().len(), 604);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_is_appended_is_there(
            steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..1500), 0u8..8), 1..8),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log");
            std::fs::write(&path, b"").unwrap();
            let mut want: Vec<u8> = Vec::new();
            let mut file = DirectFile::append(&path).unwrap();
            for (bytes, then) in steps {
                file.write_all(&bytes).unwrap();
                want.extend(&bytes);
                match then {
                    0 => {
                        want.truncate(want.len() / 2);
                        file.truncate(want.len() as u64).unwrap();
                    }
                    1 => {
                        drop(file);
                        file = DirectFile::append(&path).unwrap();
                    }
                    _ => {}
                }
                let have = std::fs::read(&path).unwrap();
                prop_assert_eq!(&have[..want.len()], &want[..]);
                prop_assert!(have[want.len()..].iter().all(|&byte| byte == 0));
            }
            drop(file);
            prop_assert_eq!(std::fs::read(&path).unwrap(), want);
        }
    }
}
