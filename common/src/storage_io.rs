//! Every file operation of the journal and the storage engine goes through [`StorageIo`], so that tests
//! can cut the power between any two of them ([`MemoryIo`]) or let the disk fill up.

mod direct;
mod disk;
mod memory;

pub use disk::DiskIo;
pub use memory::MemoryIo;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file operation that failed: which, on what, and why.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {source}", path.display())]
pub struct IoError {
    /// What was tried, e.g. `write`.
    pub operation: &'static str,
    /// On which file or folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl IoError {
    /// An error of `operation` on `path`.
    pub fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        IoError { operation, path: path.to_owned(), source }
    }

    /// Whether the disk (or a quota) is full: worth trying again once somebody made room.
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    }

    /// Whether the file or folder does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// A result of a file operation.
pub type IoResult<T> = Result<T, IoError>;

/// A file open for appending.
pub trait WritableFile: Send + fmt::Debug {
    /// Appends all of `bytes`. After an error the file's length is unknown until
    /// [`WritableFile::truncate`] succeeds.
    ///
    /// # Errors
    /// What the system says.
    fn write_all(&mut self, bytes: &[u8]) -> IoResult<()>;

    /// Makes everything written so far survive a power cut (`fdatasync`).
    ///
    /// # Errors
    /// What the system says. After an error nothing may be assumed about what is on disk.
    fn sync(&mut self) -> IoResult<()>;

    /// Cuts the file to `length` bytes; further writes go there.
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&mut self, length: u64) -> IoResult<()>;
}

/// A file open for reading at any place, from several threads.
pub trait ReadableFile: Send + Sync + fmt::Debug {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// What the system says; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> IoResult<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self) -> IoResult<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// What the system says.
    fn is_empty(&self) -> IoResult<bool> {
        Ok(self.len()? == 0)
    }
}

/// A lock on a folder; dropping it gives the folder free.
pub trait FolderLock: Send + Sync + fmt::Debug {}

/// The file operations that Pharos uses. Names inside a folder become durable by
/// [`StorageIo::sync_dir`], contents by [`WritableFile::sync`].
pub trait StorageIo: Send + Sync + fmt::Debug + 'static {
    /// Creates a folder and its parents.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir_all(&self, path: &Path) -> IoResult<()>;

    /// Names in a folder, sorted.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, path: &Path) -> IoResult<Vec<String>>;

    /// Creates a file that must not exist.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, path: &Path) -> IoResult<Box<dyn WritableFile>>;

    /// Opens an existing file to append to it.
    ///
    /// # Errors
    /// What the system says.
    fn append(&self, path: &Path) -> IoResult<Box<dyn WritableFile>>;

    /// As [`StorageIo::append`], for a file that is synced after every few kilobytes. Until it is closed, and for
    /// ever if it is not, less than a page of zeros may stand behind what was appended.
    ///
    /// # Errors
    /// What the system says.
    fn append_log(&self, path: &Path) -> IoResult<Box<dyn WritableFile>> {
        self.append(path)
    }

    /// Opens an existing file to read it.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path) -> IoResult<Arc<dyn ReadableFile>>;

    /// Reads a file whole.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, path: &Path) -> IoResult<Vec<u8>> {
        let file = self.open(path)?;
        let mut bytes = vec![0; file.len()? as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Gives a file or folder another name on the same file system, replacing a file of that name.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> IoResult<()>;

    /// Gives a file a second name.
    ///
    /// # Errors
    /// What the system says.
    fn hard_link(&self, from: &Path, to: &Path) -> IoResult<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove_file(&self, path: &Path) -> IoResult<()>;

    /// Removes a folder with everything in it.
    ///
    /// # Errors
    /// What the system says.
    fn remove_dir_all(&self, path: &Path) -> IoResult<()>;

    /// Takes a lock file, created if missing, so that no other process works in the same folder.
    ///
    /// # Errors
    /// `WouldBlock` if somebody holds it; else what the system says.
    fn lock(&self, path: &Path) -> IoResult<Box<dyn FolderLock>>;

    /// Makes the names in a folder survive a power cut.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, path: &Path) -> IoResult<()>;
}

/// Creates a file, in the place of what an attempt before may have left there.
///
/// # Errors
/// What the system says.
pub fn create_anew(io: &dyn StorageIo, path: &Path) -> IoResult<Box<dyn WritableFile>> {
    match io.remove_file(path) {
        Ok(()) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    io.create(path)
}

/// Writes a file so that after a power cut it is there whole or not at all: temporary name, sync,
/// rename, sync of the folder.
///
/// # Errors
/// What the system says; a temporary file may remain, which the next attempt replaces.
pub fn write_atomically(io: &dyn StorageIo, path: &Path, bytes: &[u8]) -> IoResult<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = create_anew(io, &temporary)?;
    file.write_all(bytes)?;
    file.sync()?;
    drop(file);
    io.rename(&temporary, path)?;
    io.sync_dir(path.parent().unwrap_or(Path::new(".")))
}
