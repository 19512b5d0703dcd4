//! Files of `/proc` and `/sys` that are opened once and read over and over.
//!
//! A [`KernelFile`] keeps its descriptor and reads with `pread` into a buffer that all samplers of a
//! thread share, so a reading costs one or two system calls and no allocation once the buffer has grown.

use crate::error::SampleError;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Larger files are no statistics; reading on would let a broken file fill the memory.
const FILE_BYTES_MAX: usize = 64 << 20;
/// First size of a buffer: most files of the kernel fit, so most are read by one call.
const BUFFER_BYTES_FIRST: usize = 16 << 10;
/// Readings between two attempts to open an optional file that was missing.
const READINGS_BETWEEN_LOOKS: u32 = 10;

/// Readings of one tick lie closer together than this.
const SHARED_AGE_MAX: Duration = Duration::from_millis(20);

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

/// Longest record of a file that is read as [`KernelFile::records`].
const RECORD_BYTES_MAX: usize = 1_024;
/// What the kernel gathers records in, at least.
const PAGE_BYTES: usize = 4_096;
/// Longest text of a file that is read as [`KernelFile::setting`].
const SETTING_BYTES_MAX: usize = 255;

/// When a file has been read to its end.
#[derive(Clone, Copy, Debug)]
enum WholeIf {
    /// A `read` has returned nothing.
    EndSeen,
    /// A `read` has left room in the buffer, for one returns everything.
    RoomLeft,
    /// A `read` has left room for another record in the kernel's page.
    PageLeft,
    /// A short `read` has left room; the kernel copies what there is for every reader, room included.
    SettingLeft,
}

/// A file of the kernel, opened at its first reading and kept open.
#[derive(Debug)]
pub struct KernelFile {
    path: PathBuf,
    file: Option<File>,
    whole_if: WholeIf,
    /// Readings to leave out because the file was not there.
    readings_to_skip: u32,
}

impl KernelFile {
    /// A file of `/proc` that lists many things, and so may come in several pieces.
    pub fn list(path: impl Into<PathBuf>) -> Self {
        KernelFile { path: path.into(), file: None, whole_if: WholeIf::EndSeen, readings_to_skip: 0 }
    }

    /// A list of short records, none longer than [`RECORD_BYTES_MAX`]. The kernel gathers whole records in a
    /// page; an answer that left room for one more in it was the last. Looking for the end costs as much as
    /// reading where the kernel has to search for what comes next, as in its table of sockets.
    pub fn records(path: impl Into<PathBuf>) -> Self {
        KernelFile { path: path.into(), file: None, whole_if: WholeIf::PageLeft, readings_to_skip: 0 }
    }

    /// A file that the kernel makes up whole for every reading and returns in one piece: the attributes of
    /// `/sys`, and those files of `/proc` that are one record.
    pub fn whole(path: impl Into<PathBuf>) -> Self {
        KernelFile { path: path.into(), file: None, whole_if: WholeIf::RoomLeft, readings_to_skip: 0 }
    }

    /// A file of `/proc/sys`: one line, not longer than [`SETTING_BYTES_MAX`]. For these the kernel takes and
    /// zeroes as much memory as the reader has room for, which for a buffer of many pages costs several times
    /// what the number does.
    pub fn setting(path: impl Into<PathBuf>) -> Self {
        KernelFile { path: path.into(), file: None, whole_if: WholeIf::SettingLeft, readings_to_skip: 0 }
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
        self.read_lines(buffer, usize::MAX)
    }

    /// Reads the file as it is now, its first `lines` lines at least: whoever needs no more spares the kernel
    /// from making up the rest.
    ///
    /// # Errors
    /// As of [`KernelFile::read`].
    pub fn read_lines<'a>(
        &mut self,
        buffer: &'a mut ReadBuffer,
        lines: usize,
    ) -> Result<&'a [u8], SampleError> {
        match self.fill(&mut buffer.bytes, lines) {
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
        match self.fill(&mut buffer.bytes, usize::MAX) {
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

    fn fill(&mut self, bytes: &mut Vec<u8>, lines: usize) -> io::Result<usize> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(File::open(&self.path)?),
        };
        let outcome = read_whole(file, bytes, self.whole_if, lines);
        if outcome.as_ref().is_err_and(|error| !says_nothing(error)) {
            // The object behind a descriptor may be gone while the path leads to its successor.
            self.file = None;
        }
        outcome
    }
}

/// A file that several samplers of one tick read: the kernel makes it up once for all of them.
///
/// Each clone gets a text at most once; what it has had, or what is older than a moment, is read anew.
#[derive(Debug)]
pub struct SharedFile {
    shared: Arc<Mutex<SharedText>>,
    /// The reading that this clone has had.
    had: u64,
}

#[derive(Debug)]
struct SharedText {
    file: KernelFile,
    buffer: ReadBuffer,
    /// `None` while the file is not there.
    length: Option<usize>,
    reading: u64,
    read_at: Option<Instant>,
}

impl Clone for SharedFile {
    fn clone(&self) -> Self {
        SharedFile { shared: Arc::clone(&self.shared), had: 0 }
    }
}

impl SharedFile {
    /// Such a file; it is read as [`KernelFile::whole`] is.
    pub fn whole(path: impl Into<PathBuf>) -> Self {
        let (file, buffer) = (KernelFile::whole(path), ReadBuffer::default());
        let text = SharedText { file, buffer, length: None, reading: 0, read_at: None };
        SharedFile { shared: Arc::new(Mutex::new(text)), had: 0 }
    }

    /// Shows the file as it is now, or was a moment ago.
    ///
    /// # Errors
    /// If it cannot be read, or what `look` says.
    pub fn read<T>(
        &mut self,
        look: impl FnOnce(&[u8], &KernelFile) -> Result<T, SampleError>,
    ) -> Result<T, SampleError> {
        self.read_by(Instant::now, look)
    }

    fn read_by<T>(
        &mut self,
        clock: impl Fn() -> Instant,
        look: impl FnOnce(&[u8], &KernelFile) -> Result<T, SampleError>,
    ) -> Result<T, SampleError> {
        self.show(
            clock,
            |file, buffer| file.read(buffer).map(Some),
            |text, file| look(text.unwrap_or_default(), file),
        )
    }

    /// The same of a file that need not be there; then there is nothing to show.
    ///
    /// # Errors
    /// As of [`SharedFile::read`].
    pub fn read_if_present<T>(
        &mut self,
        look: impl FnOnce(Option<&[u8]>, &KernelFile) -> Result<T, SampleError>,
    ) -> Result<T, SampleError> {
        self.show(Instant::now, KernelFile::read_if_present, look)
    }

    fn show<T>(
        &mut self,
        clock: impl Fn() -> Instant,
        read: impl for<'a> FnOnce(&mut KernelFile, &'a mut ReadBuffer) -> Result<Option<&'a [u8]>, SampleError>,
        look: impl FnOnce(Option<&[u8]>, &KernelFile) -> Result<T, SampleError>,
    ) -> Result<T, SampleError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let SharedText { file, buffer, length, reading, read_at } = &mut *shared;
        let fresh = read_at.is_some_and(|at| clock().duration_since(at) <= SHARED_AGE_MAX);
        if !fresh || self.had == *reading {
            *read_at = None;
            *length = read(file, buffer)?.map(<[u8]>::len);
            *reading += 1;
            // A reading that took long is as fresh as another when it is there.
            *read_at = Some(clock());
        }
        self.had = *reading;
        look(length.and_then(|length| buffer.bytes.get(..length)), file)
    }
}

fn read_whole(file: &File, bytes: &mut Vec<u8>, whole_if: WholeIf, mut lines: usize) -> io::Result<usize> {
    let mut length = 0;
    loop {
        if length == bytes.len() {
            if length >= FILE_BYTES_MAX {
                return Err(io::Error::other("the file is too large for statistics"));
            }
            bytes.resize(length * 2, 0);
        }
        let room = match whole_if {
            WholeIf::SettingLeft => bytes.len().min(length + SETTING_BYTES_MAX),
            _ => bytes.len(),
        };
        match file.read_at(&mut bytes[length..room], length as u64) {
            Ok(0) => return Ok(length),
            Ok(count) => {
                length += count;
                if lines < usize::MAX {
                    lines -= memchr::memchr_iter(b'\n', &bytes[length - count..length]).take(lines).count();
                    if lines == 0 {
                        return Ok(length);
                    }
                }
                let whole = match whole_if {
                    WholeIf::EndSeen => false,
                    WholeIf::RoomLeft | WholeIf::SettingLeft => length < room,
                    WholeIf::PageLeft => count + RECORD_BYTES_MAX <= PAGE_BYTES && length < bytes.len(),
                };
                if whole {
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
    fn a_list_of_records_is_read_to_its_end_however_long_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for length in [0, 100, PAGE_BYTES - RECORD_BYTES_MAX, PAGE_BYTES, 5 * BUFFER_BYTES_FIRST] {
            let content = vec![b'x'; length];
            std::fs::write(&path, &content).unwrap();
            assert_eq!(KernelFile::records(&path).read(&mut ReadBuffer::default()).unwrap(), content);
        }
    }

    #[test]
    fn whoever_needs_only_the_first_lines_gets_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let content = "line\n".repeat(2 * BUFFER_BYTES_FIRST / 5);
        std::fs::write(&path, &content).unwrap();
        let mut buffer = ReadBuffer::default();
        let text = KernelFile::records(&path).read_lines(&mut buffer, 3).unwrap();
        assert!(text.starts_with(b"line\nline\nline\n") && text.len() < content.len());
        assert_eq!(KernelFile::records(&path).read(&mut buffer).unwrap().len(), content.len());
    }

    #[test]
    fn a_shared_file_is_read_once_for_all_and_never_twice_the_same_for_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        let now = std::cell::Cell::new(Instant::now());
        let text = |file: &mut SharedFile| file.read_by(|| now.get(), |text, _| Ok(text.to_vec()));
        write("one");
        let mut first = SharedFile::whole(&path);
        let mut second = first.clone();
        assert_eq!(text(&mut first).unwrap(), b"one");
        write("two");
        assert_eq!(text(&mut first).unwrap(), b"two");
        write("three");
        now.set(now.get() + SHARED_AGE_MAX);
        assert_eq!(text(&mut second).unwrap(), b"two", "read for all a moment ago");
        assert_eq!(text(&mut second).unwrap(), b"three");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        first.shared.lock().unwrap().file.file = None;
        assert_eq!(text(&mut first).unwrap(), b"three", "what the other has read");
        assert!(text(&mut first).is_err());
        assert!(text(&mut second).is_err(), "what could not be read is not shown again");
    }

    #[test]
    fn a_shared_file_that_was_read_too_long_ago_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let now = std::cell::Cell::new(Instant::now());
        let text = |file: &mut SharedFile| file.read_by(|| now.get(), |text, _| Ok(text.to_vec())).unwrap();
        let mut first = SharedFile::whole(&path);
        let mut second = first.clone();
        assert_eq!(text(&mut first), b"one");
        std::fs::write(&path, "two").unwrap();
        now.set(now.get() + SHARED_AGE_MAX + Duration::from_nanos(1));
        assert_eq!(text(&mut second), b"two");
    }

    #[test]
    fn a_shared_file_that_is_not_there_shows_nothing_to_those_who_can_do_without() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = SharedFile::whole(folder.path().join("file"));
        assert!(file.read_if_present(|text, _| Ok(text.is_none())).unwrap());
        assert!(file.read(|_, _| Ok(())).is_err());
    }

    #[test]
    fn a_setting_is_read_whole_even_if_it_is_longer_than_it_should_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for length in [0, 1, SETTING_BYTES_MAX, SETTING_BYTES_MAX + 1, 2 * BUFFER_BYTES_FIRST] {
            let content = vec![b'x'; length];
            std::fs::write(&path, &content).unwrap();
            assert_eq!(KernelFile::setting(&path).read(&mut ReadBuffer::default()).unwrap(), content);
        }
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
