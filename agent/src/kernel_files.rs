//! Files of `/proc` and `/sys` that are opened once and read over and over.
//!
//! A [`KernelFile`] keeps its descriptor and reads with `pread` into a buffer that all samplers of a
//! thread share, so a reading costs one or two system calls and no allocation once the buffer has grown.

use crate::error::SampleError;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Larger files are no statistics; reading on would let a broken file fill the memory.
const FILE_BYTES_MAX: usize = 64 << 20;
/// First size of a buffer: most files of the kernel fit, so most are read by one call.
const BUFFER_BYTES_FIRST: usize = 16 << 10;
/// Readings between two attempts to open an optional file that was missing.
const READINGS_BETWEEN_LOOKS: u32 = 10;

/// The buffer that readings go through.
#[derive(Debug)]
pub struct ReadBuffer {
    bytes: Vec<u8>,
}

impl Default for ReadBuffer {
    fn default() -> Self {
        ReadBuffer { bytes: vec![0; BUFFER_BYTES_FIRST] }
    }
}

/// A file of the kernel, opened at its first reading and kept open.
#[derive(Debug)]
pub struct KernelFile {
    path: PathBuf,
    file: Option<File>,
    /// Whether one `read` returns everything, so that looking for the end is waste.
    single_read: bool,
    /// Readings to leave out because the file was not there.
    readings_to_skip: u32,
}

impl KernelFile {
    /// A file of `/proc` that lists many things, and so may come in several pieces.
    pub fn list(path: impl Into<PathBuf>) -> Self {
        KernelFile { path: path.into(), file: None, single_read: false, readings_to_skip: 0 }
    }

    /// A file that the kernel makes up whole for every reading and returns in one piece: the attributes of
    /// `/sys`, and those files of `/proc` that are one record.
    pub fn whole(path: impl Into<PathBuf>) -> Self {
        KernelFile { path: path.into(), file: None, single_read: true, readings_to_skip: 0 }
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file as it is now.
    ///
    /// # Errors
    /// If it cannot be opened or read. The next reading opens it anew.
    pub fn read<'a>(&mut self, buffer: &'a mut ReadBuffer) -> Result<&'a [u8], SampleError> {
        match self.fill(&mut buffer.bytes) {
            Ok(length) => Ok(&buffer.bytes[..length]),
            Err(source) => Err(SampleError::Read { path: self.path.clone(), source }),
        }
    }

    /// Reads the file if it is there; `None` if it is not, or says that it has nothing to tell. A missing
    /// file is looked for again only now and then.
    ///
    /// # Errors
    /// If it cannot be read for another reason.
    pub fn read_if_present<'a>(
        &mut self,
        buffer: &'a mut ReadBuffer,
    ) -> Result<Option<&'a [u8]>, SampleError> {
        if self.readings_to_skip > 0 {
            self.readings_to_skip -= 1;
            return Ok(None);
        }
        match self.fill(&mut buffer.bytes) {
            Ok(length) => Ok(Some(&buffer.bytes[..length])),
            Err(error) if is_missing(&error) => {
                self.readings_to_skip = READINGS_BETWEEN_LOOKS;
                Ok(None)
            }
            Err(error) if says_nothing(&error) => Ok(None),
            Err(source) => Err(SampleError::Read { path: self.path.clone(), source }),
        }
    }

    /// Whether the kernel has announced a change since the file was read last. Few files are announced (the
    /// mount table is); of the others this is never true, so whoever asks looks now and then in any case.
    pub fn has_changed(&self) -> bool {
        let Some(file) = &self.file else { return true };
        let mut polled = [rustix::event::PollFd::new(file, rustix::event::PollFlags::PRI)];
        match rustix::event::poll(&mut polled, Some(&rustix::event::Timespec::default())) {
            Ok(changed) => changed > 0,
            Err(_) => true,
        }
    }

    /// An error that says what is odd about this file's content.
    pub fn malformed(&self, what: &'static str) -> SampleError {
        SampleError::Malformed { path: self.path.clone(), what }
    }

    fn fill(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(File::open(&self.path)?),
        };
        let outcome = read_whole(file, bytes, self.single_read);
        if outcome.as_ref().is_err_and(|error| !says_nothing(error)) {
            // The object behind a descriptor may be gone while the path leads to its successor.
            self.file = None;
        }
        outcome
    }
}

fn read_whole(file: &File, bytes: &mut Vec<u8>, single_read: bool) -> io::Result<usize> {
    let mut length = 0;
    loop {
        if length == bytes.len() {
            if length >= FILE_BYTES_MAX {
                return Err(io::Error::other("the file is too large for statistics"));
            }
            bytes.resize(length * 2, 0);
        }
        match file.read_at(&mut bytes[length..], length as u64) {
            Ok(0) => return Ok(length),
            Ok(count) => {
                length += count;
                if single_read && length < bytes.len() {
                    return Ok(length);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether the machine does not have the thing that the file is about.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::ENXIO))
}

/// Whether the thing is there and has no answer now, as a carrier on an interface that is down.
fn says_nothing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_file_is_read_anew_and_may_outgrow_the_buffer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let mut buffer = ReadBuffer::default();
        let mut file = KernelFile::list(&path);
        assert_eq!(file.read(&mut buffer).unwrap(), b"one");
        let long = vec![b'x'; 3 * BUFFER_BYTES_FIRST + 1];
        std::fs::write(&path, &long).unwrap();
        assert_eq!(file.read(&mut buffer).unwrap(), &long);
    }

    #[test]
    fn a_missing_file_is_an_error_with_its_path_and_is_found_when_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut buffer = ReadBuffer::default();
        let mut file = KernelFile::whole(&path);
        let error = file.read(&mut buffer).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert_eq!(file.read_if_present(&mut buffer).unwrap(), None);
        std::fs::write(&path, "1\n").unwrap();
        assert_eq!(file.read(&mut buffer).unwrap(), b"1\n");
    }
}
