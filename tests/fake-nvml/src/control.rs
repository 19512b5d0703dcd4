//! The control file `fake-nvml.conf`, in the folder that the library was loaded from. It is looked at again
//! before every call, so a test changes the world by writing it. One statement a line:
//!
//! ```text
//! gpus 8                          how many (read when the library is started)
//! driver 550.54.15
//! model NVIDIA H100 80GB HBM3
//! value GPU KEY NUMBER            what a call answers; GPU is a number or *; see `calls` for keys
//! at MS value GPU KEY NUMBER      from MS milliseconds after the start on: a recording
//! fail GPU FUNCTION CODE          a call returns an error code; `field:82` is one field value
//! block GPU FUNCTION              a call does not return while this line stands
//! crash GPU FUNCTION              a call aborts the process
//! leak GPU FUNCTION BYTES         a call leaks memory
//! lost GPU                        every call on it says that it fell off the bus
//! mig GPU GI:CI:PROFILE:MIB …     it has these MIG instances
//! process GPU PID BYTES [mps]     a process on it
//! xid GPU XID                     an event; each line is told once
//! static                          never look at the file again (for measurements)
//! ```

use std::collections::HashSet;
use std::ffi::CStr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// NVML's codes that are used here.
pub const SUCCESS: u32 = 0;
pub const INVALID_ARGUMENT: u32 = 2;
pub const NOT_SUPPORTED: u32 = 3;
pub const NOT_FOUND: u32 = 6;
pub const INSUFFICIENT_SIZE: u32 = 7;
pub const TIMEOUT: u32 = 10;
pub const GPU_IS_LOST: u32 = 15;

/// A MIG instance.
#[derive(Clone, Debug)]
pub struct Instance {
    pub gpu_instance: u32,
    pub compute_instance: u32,
    pub profile: String,
    pub memory_mib: u64,
}

/// A process.
#[derive(Clone, Debug)]
pub struct Process {
    pub pid: u32,
    pub bytes: u64,
    pub mps: bool,
}

/// What the file says.
#[derive(Clone, Debug, Default)]
pub struct Control {
    pub gpus: u32,
    pub driver: String,
    pub model: String,
    pub static_file: bool,
    values: Vec<(u64, Option<u32>, String, f64)>,
    rules: Vec<(Option<u32>, String, Rule)>,
    lost: Vec<Option<u32>>,
    pub instances: Vec<(Option<u32>, Instance)>,
    pub processes: Vec<(Option<u32>, Process)>,
    pub xids: Vec<(u32, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Fail(u32),
    Block,
    Crash,
    Leak(usize),
}

impl Control {
    fn parse(text: &str) -> Self {
        let mut control = Control {
            gpus: 8,
            driver: "550.54.15".into(),
            model: "NVIDIA H100 80GB HBM3".into(),
            ..Control::default()
        };
        for line in text.lines() {
            control.take(line);
        }
        control
    }

    /// A line that says nothing sensible is ignored: the test that wrote it will notice.
    fn take(&mut self, line: &str) -> Option<()> {
        let mut words = line.split_whitespace();
        let mut verb = words.next()?;
        let mut from_ms = 0;
        if verb == "at" {
            from_ms = words.next()?.parse().ok()?;
            verb = words.next()?;
        }
        let rest = line.split_once(' ').map_or("", |(_, rest)| rest);
        match verb {
            "gpus" => self.gpus = rest.parse().ok()?,
            "driver" => self.driver = rest.into(),
            "model" => self.model = rest.into(),
            "static" => self.static_file = true,
            "value" => {
                let (gpu, key) = (gpu(words.next()?), words.next()?.to_owned());
                self.values.push((from_ms, gpu, key, words.next()?.parse().ok()?));
            }
            "fail" | "block" | "crash" | "leak" => {
                let (gpu, function) = (gpu(words.next()?), words.next()?.to_owned());
                let mut number = || words.next()?.parse::<u32>().ok();
                let rule = match verb {
                    "fail" => Rule::Fail(number()?),
                    "leak" => Rule::Leak(number()? as usize),
                    "block" => Rule::Block,
                    _ => Rule::Crash,
                };
                self.rules.push((gpu, function, rule));
            }
            "lost" => self.lost.push(gpu(words.next()?)),
            "mig" => {
                let gpu = gpu(words.next()?);
                for word in words {
                    let mut parts = word.split(':');
                    let instance = Instance {
                        gpu_instance: parts.next()?.parse().ok()?,
                        compute_instance: parts.next()?.parse().ok()?,
                        profile: parts.next()?.to_owned(),
                        memory_mib: parts.next()?.parse().ok()?,
                    };
                    self.instances.push((gpu, instance));
                }
            }
            "process" => {
                let gpu = gpu(words.next()?);
                let (pid, bytes) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                self.processes.push((gpu, Process { pid, bytes, mps: words.next() == Some("mps") }));
            }
            "xid" => self.xids.push((words.next()?.parse().ok()?, words.next()?.parse().ok()?)),
            _ => {}
        }
        Some(())
    }

    fn rule(&self, gpu: Option<u32>, function: &str) -> Option<Rule> {
        let mut rules = self.rules.iter();
        rules.find(|(on, name, _)| name == function && (on.is_none() || *on == gpu)).map(|(_, _, rule)| *rule)
    }

    pub fn is_lost(&self, gpu: u32) -> bool {
        self.lost.iter().any(|lost| lost.is_none_or(|lost| lost == gpu))
    }
}

fn gpu(word: &str) -> Option<u32> {
    word.parse().ok()
}

/// The library's state.
#[derive(Debug)]
pub struct State {
    pub control: Control,
    pub started: Instant,
    /// Lines about XIDs that have been told.
    pub told_xids: usize,
    /// GPUs that events are wanted of.
    pub registered: HashSet<u32>,
    path: PathBuf,
    /// Which version of the file has been read: a new file or a new time of change.
    read: Option<(u64, SystemTime)>,
}

impl State {
    fn refresh(&mut self) {
        if self.control.static_file {
            return;
        }
        let version = |data: std::fs::Metadata| Ok((data.ino(), data.modified()?));
        let modified = std::fs::metadata(&self.path).and_then(version).ok();
        if modified != self.read || self.read.is_none() {
            self.read = modified;
            let gpus = self.control.gpus;
            self.control = Control::parse(&std::fs::read_to_string(&self.path).unwrap_or_default());
            // The number of GPUs is that of the library's start.
            self.control.gpus = gpus;
        }
    }

    /// Whether the file gives any values.
    pub fn has_values(&self) -> bool {
        !self.control.values.is_empty()
    }

    /// What a call answers: the last line about it, or the default.
    pub fn value(&self, gpu: u32, key: &str, default: f64) -> f64 {
        if self.control.values.is_empty() {
            return default;
        }
        let now_ms = self.started.elapsed().as_millis() as u64;
        let lines = self.control.values.iter().rev();
        let mut lines = lines
            .filter(|(from, on, name, _)| *from <= now_ms && name == key && on.is_none_or(|on| on == gpu));
        lines.next().map_or(default, |(.., value)| *value)
    }

    /// The code that a field value is to fail with.
    pub fn field_fails(&self, gpu: u32, field: u32) -> Option<u32> {
        if self.control.rules.is_empty() {
            return None;
        }
        match self.control.rule(Some(gpu), &format!("field:{field}")) {
            Some(Rule::Fail(code)) => Some(code),
            _ => None,
        }
    }
}

static STATE: OnceLock<Mutex<State>> = OnceLock::new();

/// The state; only the reader's one thread ever asks for it.
pub fn state() -> MutexGuard<'static, State> {
    let state = STATE.get_or_init(|| {
        let path = library_folder().join("fake-nvml.conf");
        let control = Control::parse(&std::fs::read_to_string(&path).unwrap_or_default());
        Mutex::new(State {
            control,
            started: Instant::now(),
            told_xids: 0,
            registered: HashSet::new(),
            path,
            read: None,
        })
    });
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What every function does first: looks at the file, and blocks, crashes, leaks or fails as it says.
pub fn enter(gpu: Option<u32>, function: &str) -> Result<MutexGuard<'static, State>, u32> {
    loop {
        let mut state = state();
        state.refresh();
        let rule = if state.control.rules.is_empty() { None } else { state.control.rule(gpu, function) };
        match rule {
            Some(Rule::Block) => {
                drop(state);
                std::thread::sleep(Duration::from_millis(2));
            }
            Some(Rule::Crash) => std::process::abort(),
            Some(Rule::Fail(code)) => return Err(code),
            other => {
                if let Some(Rule::Leak(bytes)) = other {
                    // Touched, so that it counts as memory that is held.
                    std::mem::forget(vec![1u8; bytes]);
                }
                if let Some(gpu) = gpu
                    && !state.control.lost.is_empty()
                    && state.control.is_lost(gpu)
                {
                    return Err(GPU_IS_LOST);
                }
                return Ok(state);
            }
        }
    }
}

fn library_folder() -> PathBuf {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the address is that of a function of this library, and `info` is a writable struct of the type
    // that the call fills; zero is a value of all its pointers.
    let (found, info) = unsafe {
        let found = libc::dladdr(library_folder as *const libc::c_void, info.as_mut_ptr());
        (found, info.assume_init())
    };
    if found == 0 || info.dli_fname.is_null() {
        return PathBuf::new();
    }
    // SAFETY: on success the name is a string of the loader that lives as long as the library is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    PathBuf::from(name.to_string_lossy().as_ref()).parent().map(Into::into).unwrap_or_default()
}
