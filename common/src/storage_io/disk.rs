//! The real file system.

use super::direct::DirectFile;
use super::{FolderLock, IoError, IoResult, ReadableFile, StorageIo, WritableFile};
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The machine's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskIo;

#[derive(Debug)]
struct DiskFile {
    file: File,
    path: PathBuf,
}

pub(super) fn at<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> IoError + 'a {
    move |source| IoError::new(operation, path, source)
}

impl StorageIo for DiskIo {
    fn create_dir_all(&self, path: &Path) -> IoResult<()> {
        fs::create_dir_all(path).map_err(at("create folder", path))
    }

    fn list(&self, path: &Path) -> IoResult<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(at("list", path))? {
            let entry = entry.map_err(at("list", path))?;
            // Names that are not UTF-8 are not ours.
            if let Ok(name) = entry.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, path: &Path) -> IoResult<Box<dyn WritableFile>> {
        let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(at("create", path))?;
        Ok(Box::new(DiskFile { file, path: path.to_owned() }))
    }

    fn append(&self, path: &Path) -> IoResult<Box<dyn WritableFile>> {
        let mut file = OpenOptions::new().write(true).open(path).map_err(at("open", path))?;
        file.seek(SeekFrom::End(0)).map_err(at("seek in", path))?;
        Ok(Box::new(DiskFile { file, path: path.to_owned() }))
    }

    fn append_log(&self, path: &Path) -> IoResult<Box<dyn WritableFile>> {
        Ok(Box::new(DirectFile::append(path)?))
    }

    fn open(&self, path: &Path) -> IoResult<Arc<dyn ReadableFile>> {
        let file = File::open(path).map_err(at("open", path))?;
        Ok(Arc::new(DiskFile { file, path: path.to_owned() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> IoResult<()> {
        fs::rename(from, to).map_err(at("rename", from))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> IoResult<()> {
        fs::hard_link(from, to).map_err(at("link", from))
    }

    fn remove_file(&self, path: &Path) -> IoResult<()> {
        fs::remove_file(path).map_err(at("remove", path))
    }

    fn remove_dir_all(&self, path: &Path) -> IoResult<()> {
        fs::remove_dir_all(path).map_err(at("remove", path))
    }

    fn lock(&self, path: &Path) -> IoResult<Box<dyn FolderLock>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(at("open", path))?;
        file.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => IoError::new("lock", path, std::io::ErrorKind::WouldBlock.into()),
            fs::TryLockError::Error(error) => IoError::new("lock", path, error),
        })?;
        Ok(Box::new(DiskFile { file, path: path.to_owned() }))
    }

    fn sync_dir(&self, path: &Path) -> IoResult<()> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        File::open(path).and_then(|dir| dir.sync_all()).map_err(at("sync folder", path))
    }
}

impl FolderLock for DiskFile {}

impl WritableFile for DiskFile {
    fn write_all(&mut self, bytes: &[u8]) -> IoResult<()> {
        self.file.write_all(bytes).map_err(at("write", &self.path))
    }

    fn sync(&mut self) -> IoResult<()> {
        self.file.sync_data().map_err(at("sync", &self.path))
    }

    fn truncate(&mut self, length: u64) -> IoResult<()> {
        self.file.set_len(length).map_err(at("truncate", &self.path))?;
        self.file.seek(SeekFrom::Start(length)).map(drop).map_err(at("seek in", &self.path))
    }
}

impl ReadableFile for DiskFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> IoResult<()> {
        self.file.read_exact_at(buffer, offset).map_err(at("read", &self.path))
    }

    fn len(&self) -> IoResult<u64> {
        Ok(self.file.metadata().map_err(at("stat", &self.path))?.len())
    }
}
