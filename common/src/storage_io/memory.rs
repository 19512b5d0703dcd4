//! A file system in memory that can lose power and fill up: what tests of durability run on.
//!
//! It keeps two states: what programs see, and what a power cut would leave. Contents move from the one
//! to the other by `sync`, names by `sync_dir`; a power cut shows the harshest file system that POSIX
//! allows, the one on which nothing unsynced survives.

use super::{FolderLock, IoError, IoResult, ReadableFile, StorageIo, WritableFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A file system in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryIo {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Inode>,
    folders: BTreeSet<PathBuf>,
    durable_files: BTreeMap<PathBuf, Inode>,
    locked: BTreeSet<PathBuf>,
    operations: u64,
    fail_from: Option<(u64, ErrorKind)>,
    capacity_bytes: Option<u64>,
    flipped_writes: Option<&'static str>,
}

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

type Inode = Arc<Mutex<Content>>;

#[derive(Debug, Default, Clone)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug)]
struct MemoryFile {
    io: MemoryIo,
    path: PathBuf,
    inode: Inode,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryIo {
    /// An empty file system.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is left after a power cut now: only what was synced. The original is not touched, but its
    /// programs should not go on.
    #[must_use]
    pub fn after_power_cut(&self) -> MemoryIo {
        let state = lock(&self.state);
        let survive = |inode: &Inode| {
            let durable = lock(inode).durable.clone();
            Arc::new(Mutex::new(Content { seen: durable.clone(), durable }))
        };
        let files: BTreeMap<PathBuf, Inode> =
            state.durable_files.iter().map(|(path, inode)| (path.clone(), survive(inode))).collect();
        MemoryIo {
            state: Arc::new(Mutex::new(State {
                durable_files: files.clone(),
                files,
                folders: state.folders.clone(),
                ..State::default()
            })),
        }
    }

    /// As [`MemoryIo::after_power_cut`], on a file system that had written part of what nobody synced: of
    /// each file's unsynced bytes a prefix, and some of the names, chosen by `seed`.
    #[must_use]
    pub fn after_torn_power_cut(&self, seed: u64) -> MemoryIo {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |limit: usize| {
            random ^= random >> 12;
            random ^= random << 25;
            random ^= random >> 27;
            (random >> 8) as usize % limit
        };
        let left = self.after_power_cut();
        let mut names = lock(&self.state).durable_files.clone();
        for (path, inode) in &lock(&self.state).files {
            if below(2) == 0 {
                names.insert(path.clone(), Arc::clone(inode));
            }
        }
        let files: BTreeMap<PathBuf, Inode> = names
            .into_iter()
            .map(|(path, inode)| {
                let content = lock(&inode);
                let mut bytes = content.durable.clone();
                if let Some(unsynced) = content.seen.strip_prefix(content.durable.as_slice()) {
                    bytes.extend_from_slice(&unsynced[..below(unsynced.len() + 1)]);
                }
                (path, Arc::new(Mutex::new(Content { seen: bytes.clone(), durable: bytes })))
            })
            .collect();
        let mut state = lock(&left.state);
        state.files = files.clone();
        state.durable_files = files;
        drop(state);
        left
    }

    /// As [`MemoryIo::after_power_cut`], on a disk that had written some of the sectors of what nobody synced, in any
    /// order, chosen by `seed`; the names are all there. What was not written of a file is zeros, and a file ends
    /// behind the last sector that was.
    #[must_use]
    pub fn after_sector_power_cut(&self, seed: u64) -> MemoryIo {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut is_written = || {
            random ^= random >> 12;
            random ^= random << 25;
            random ^= random >> 27;
            random >> 8 & 1 == 1
        };
        let left = self.after_power_cut();
        let survive = |(path, inode): (&PathBuf, &Inode)| {
            let content = lock(inode);
            let mut bytes = content.durable.clone();
            if content.seen.starts_with(&bytes) {
                let synced = bytes.len();
                for start in (synced / SECTOR_BYTES * SECTOR_BYTES..content.seen.len()).step_by(SECTOR_BYTES)
                {
                    let from = start.max(synced);
                    let end = (start + SECTOR_BYTES).min(content.seen.len());
                    if from < end && is_written() {
                        bytes.resize(from.max(bytes.len()), 0);
                        bytes.extend_from_slice(&content.seen[from..end]);
                        bytes.resize(start + SECTOR_BYTES, 0);
                    }
                }
            }
            (path.clone(), Arc::new(Mutex::new(Content { seen: bytes.clone(), durable: bytes })))
        };
        let files: BTreeMap<PathBuf, Inode> = lock(&self.state).files.iter().map(survive).collect();
        let mut state = lock(&left.state);
        state.files = files.clone();
        state.durable_files = files;
        drop(state);
        left
    }

    /// Operations so far that change something.
    pub fn operations(&self) -> u64 {
        lock(&self.state).operations
    }

    /// Lets every changing operation fail from number `operation` on (counted as
    /// [`MemoryIo::operations`]); `None` ends the trouble.
    pub fn fail_from(&self, operation: Option<u64>, kind: ErrorKind) {
        lock(&self.state).fail_from = operation.map(|operation| (operation, kind));
    }

    /// Limits the bytes all files together may have; writes beyond fail as on a full disk.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        lock(&self.state).capacity_bytes = bytes;
    }

    /// Flips a bit of everything that is written to files whose names end so, as bad memory or a bad cable
    /// does; `None` ends the trouble.
    pub fn flip_writes(&self, name_end: Option<&'static str>) {
        lock(&self.state).flipped_writes = name_end;
    }

    /// Changes bytes behind the programs' back, as a failing disk does.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let inode = lock(&self.state).files.get(path).cloned();
        if let Some(inode) = inode {
            let mut content = lock(&inode);
            change(&mut content.seen);
            content.durable = content.seen.clone();
        }
    }

    /// All files, sorted by path.
    pub fn paths(&self) -> Vec<PathBuf> {
        lock(&self.state).files.keys().cloned().collect()
    }

    fn changing(&self, operation: &'static str, path: &Path) -> IoResult<MutexGuard<'_, State>> {
        let mut state = lock(&self.state);
        state.operations += 1;
        match state.fail_from {
            Some((from, kind)) if state.operations > from => Err(IoError::new(operation, path, kind.into())),
            _ => Ok(state),
        }
    }
}

fn missing(operation: &'static str, path: &Path) -> IoError {
    IoError::new(operation, path, Error::from(ErrorKind::NotFound))
}

impl StorageIo for MemoryIo {
    fn create_dir_all(&self, path: &Path) -> IoResult<()> {
        let mut state = self.changing("create folder", path)?;
        // Folders are made once at the start; that they survive is not what the tests are about.
        state.folders.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, path: &Path) -> IoResult<Vec<String>> {
        let state = lock(&self.state);
        if !state.folders.contains(path) {
            return Err(missing("list", path));
        }
        let names: BTreeSet<String> = state
            .files
            .keys()
            .chain(&state.folders)
            .filter(|candidate| candidate.parent() == Some(path))
            .filter_map(|candidate| Some(candidate.file_name()?.to_str()?.to_owned()))
            .collect();
        Ok(names.into_iter().collect())
    }

    fn create(&self, path: &Path) -> IoResult<Box<dyn WritableFile>> {
        let mut state = self.changing("create", path)?;
        if state.files.contains_key(path) {
            return Err(IoError::new("create", path, ErrorKind::AlreadyExists.into()));
        }
        let inode = Inode::default();
        state.files.insert(path.to_owned(), Arc::clone(&inode));
        Ok(Box::new(MemoryFile { io: self.clone(), path: path.to_owned(), inode }))
    }

    fn append(&self, path: &Path) -> IoResult<Box<dyn WritableFile>> {
        let state = lock(&self.state);
        let inode = state.files.get(path).cloned().ok_or_else(|| missing("open", path))?;
        Ok(Box::new(MemoryFile { io: self.clone(), path: path.to_owned(), inode }))
    }

    fn open(&self, path: &Path) -> IoResult<Arc<dyn ReadableFile>> {
        let state = lock(&self.state);
        let inode = state.files.get(path).cloned().ok_or_else(|| missing("open", path))?;
        Ok(Arc::new(MemoryFile { io: self.clone(), path: path.to_owned(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> IoResult<()> {
        let mut state = self.changing("rename", from)?;
        if state.folders.contains(from) {
            if state.files.keys().any(|path| path.starts_with(to)) {
                return Err(IoError::new("rename", from, ErrorKind::DirectoryNotEmpty.into()));
            }
            let moved = |path: &Path| path.strip_prefix(from).ok().map(|rest| to.join(rest));
            state.folders = state.folders.iter().map(|path| moved(path).unwrap_or(path.clone())).collect();
            let files = std::mem::take(&mut state.files);
            state.files =
                files.into_iter().map(|(path, inode)| (moved(&path).unwrap_or(path), inode)).collect();
            // A folder's own entries were synced under the old name; the rename moves them whole.
            let durable = std::mem::take(&mut state.durable_files);
            state.durable_files =
                durable.into_iter().map(|(path, inode)| (moved(&path).unwrap_or(path), inode)).collect();
            return Ok(());
        }
        let inode = state.files.remove(from).ok_or_else(|| missing("rename", from))?;
        state.files.insert(to.to_owned(), inode);
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> IoResult<()> {
        let mut state = self.changing("link", from)?;
        let inode = state.files.get(from).cloned().ok_or_else(|| missing("link", from))?;
        state.files.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> IoResult<()> {
        let mut state = self.changing("remove", path)?;
        state.files.remove(path).map(drop).ok_or_else(|| missing("remove", path))
    }

    fn remove_dir_all(&self, path: &Path) -> IoResult<()> {
        let mut state = self.changing("remove", path)?;
        state.files.retain(|candidate, _| !candidate.starts_with(path));
        state.folders.retain(|candidate| !candidate.starts_with(path));
        Ok(())
    }

    fn lock(&self, path: &Path) -> IoResult<Box<dyn FolderLock>> {
        if !lock(&self.state).locked.insert(path.to_owned()) {
            return Err(IoError::new("lock", path, ErrorKind::WouldBlock.into()));
        }
        Ok(Box::new(MemoryLock { io: self.clone(), path: path.to_owned() }))
    }

    fn sync_dir(&self, path: &Path) -> IoResult<()> {
        let mut state = self.changing("sync folder", path)?;
        let inside = |candidate: &Path| candidate.parent() == Some(path);
        let gone: Vec<PathBuf> = state
            .durable_files
            .keys()
            // A folder removed whole takes its entries along when its parent is synced.
            .filter(|candidate| candidate.starts_with(path) && !state.files.contains_key(*candidate))
            .cloned()
            .collect();
        for candidate in gone {
            state.durable_files.remove(&candidate);
        }
        let here: Vec<(PathBuf, Inode)> = state
            .files
            .iter()
            .filter(|(candidate, _)| inside(candidate))
            .map(|(candidate, inode)| (candidate.clone(), Arc::clone(inode)))
            .collect();
        state.durable_files.extend(here);
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryLock {
    io: MemoryIo,
    path: PathBuf,
}

impl FolderLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        lock(&self.io.state).locked.remove(&self.path);
    }
}

impl WritableFile for MemoryFile {
    fn write_all(&mut self, bytes: &[u8]) -> IoResult<()> {
        let state = self.io.changing("write", &self.path)?;
        let mut room = bytes.len();
        if let Some(capacity) = state.capacity_bytes {
            let used: usize = state.files.values().map(|inode| lock(inode).seen.len()).sum();
            room = (capacity as usize).saturating_sub(used);
        }
        // A full disk takes what fits and refuses the rest: a torn write.
        let mut content = lock(&self.inode);
        let start = content.seen.len();
        content.seen.extend_from_slice(&bytes[..room.min(bytes.len())]);
        if state.flipped_writes.is_some_and(|end| self.path.to_string_lossy().ends_with(end)) {
            let middle = start + (content.seen.len() - start) / 2;
            content.seen[middle..].iter_mut().take(1).for_each(|byte| *byte ^= 8);
        }
        drop(content);
        if room < bytes.len() {
            return Err(IoError::new("write", &self.path, ErrorKind::StorageFull.into()));
        }
        Ok(())
    }

    fn sync(&mut self) -> IoResult<()> {
        let _state = self.io.changing("sync", &self.path)?;
        let mut content = lock(&self.inode);
        content.durable = content.seen.clone();
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> IoResult<()> {
        let _state = self.io.changing("truncate", &self.path)?;
        lock(&self.inode).seen.resize(length as usize, 0);
        Ok(())
    }
}

impl ReadableFile for MemoryFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> IoResult<()> {
        let content = lock(&self.inode);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let slice = start.checked_add(buffer.len()).and_then(|end| content.seen.get(start..end));
        match slice {
            Some(slice) => {
                buffer.copy_from_slice(slice);
                Ok(())
            }
            None => Err(IoError::new("read", &self.path, ErrorKind::UnexpectedEof.into())),
        }
    }

    fn len(&self) -> IoResult<u64> {
        Ok(lock(&self.inode).seen.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage_io::write_atomically;

    #[test]
    fn a_power_cut_leaves_only_what_was_synced() {
        let io = MemoryIo::new();
        io.create_dir_all(Path::new("/d")).unwrap();
        let mut file = io.create(Path::new("/d/a")).unwrap();
        file.write_all(b"one").unwrap();
        file.sync().unwrap();
        assert!(io.after_power_cut().read(Path::new("/d/a")).is_err(), "its name was not synced");
        io.sync_dir(Path::new("/d")).unwrap();
        file.write_all(b"two").unwrap();
        assert_eq!(io.after_power_cut().read(Path::new("/d/a")).unwrap(), b"one");
        assert_eq!(io.read(Path::new("/d/a")).unwrap(), b"onetwo");
    }

    #[test]
    fn an_atomic_write_is_there_whole_or_not_at_all() {
        let path = Path::new("/d/a");
        let prepared = || {
            let io = MemoryIo::new();
            io.create_dir_all(Path::new("/d")).unwrap();
            write_atomically(&io, path, b"old").unwrap();
            io
        };
        let before = prepared().operations();
        for operation in before.. {
            let io = prepared();
            io.fail_from(Some(operation), ErrorKind::Other);
            let outcome = write_atomically(&io, path, b"new");
            let after = io.after_power_cut().read(path).unwrap();
            match outcome {
                Ok(()) => {
                    assert_eq!(after, b"new");
                    return;
                }
                Err(_) => assert!(after == b"old" || after == b"new"),
            }
        }
    }

    #[test]
    fn a_full_disk_takes_part_of_a_write_and_says_so() {
        let io = MemoryIo::new();
        io.create_dir_all(Path::new("/d")).unwrap();
        io.set_capacity(Some(4));
        let mut file = io.create(Path::new("/d/a")).unwrap();
        file.write_all(b"abc").unwrap();
        assert!(file.write_all(b"def").unwrap_err().is_full());
        assert_eq!(io.read(Path::new("/d/a")).unwrap(), b"abcd");
        file.truncate(3).unwrap();
        assert_eq!(io.read(Path::new("/d/a")).unwrap(), b"abc");
    }
}
