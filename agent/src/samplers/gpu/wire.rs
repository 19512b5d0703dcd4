//! The pipe between the agent and the reader in its child process.
//!
//! The agent writes one byte for each reading it wants. The child answers with frames:
//!
//! ```text
//! frame    length u32 | kind u8 | body            all integers and floats little-endian
//! DRIVER   driver, nvml, cuda: text | gpus u32    text is length u16 | UTF-8
//! GPU      a description, field by field
//! BEGINS   gpu u32                                the child is about to ask this GPU
//! READING  gpu u32 | errors u32 | values | instances, links, processes: count u16 and entries
//! FAILED   gpu u32 | why: text
//! EVENT    gpu u32 | xid u32
//! DONE     cpu nanoseconds u64                    the reading is complete
//! PEERS    gpu u32 | count u16 | gpu u32, status u32 each
//! GONE     why: text                              no library, no driver: the child ends
//! ```
//!
//! BEGINS is why a GPU that hangs is known by its number although its child can say nothing more.

use super::metric::Values;
use super::reading::{
    DriverInfo, EVENTS_MAX, GPUS_MAX, GpuDescription, GpuReading, INSTANCES_MAX, InstanceDescription,
    LINKS_MAX, PROCESSES_MAX, PeerReading, ProcessReading, Sink,
};

/// Asks for a reading.
pub(super) const READ: u8 = b'r';
/// Largest frame: a GPU with all instances, links and processes takes some 20 KiB.
pub(super) const FRAME_BYTES_MAX: usize = 256 << 10;
/// Details of a GPU.
const DETAILS_MAX: usize = 32;

const DRIVER: u8 = 1;
const GPU: u8 = 2;
const BEGINS: u8 = 3;
const READING: u8 = 4;
const FAILED: u8 = 5;
const EVENT: u8 = 6;
const DONE: u8 = 7;
const GONE: u8 = 8;
const PEERS: u8 = 9;

/// What a frame says beyond what the sink takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Progress {
    /// The sink took it.
    Taken,
    /// The child asks this GPU now.
    Begins(u32),
    /// The reading is complete; processor time of the child so far, nanoseconds.
    Done(u64),
    /// The child ends, and why.
    Gone(String),
}

/// Appends frames to a buffer.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    /// Complete frames.
    pub(super) bytes: Vec<u8>,
}

impl Encoder {
    fn frame(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0, 0, 0, kind]);
        body(&mut self.bytes);
        let length = (self.bytes.len() - start - 4) as u32;
        if let Some(place) = self.bytes.get_mut(start..start + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }

    pub(super) fn begins(&mut self, index: u32) {
        self.frame(BEGINS, |bytes| number(bytes, index));
    }

    pub(super) fn done(&mut self, cpu_nanoseconds: u64) {
        self.frame(DONE, |bytes| bytes.extend_from_slice(&cpu_nanoseconds.to_le_bytes()));
    }

    pub(super) fn gone(&mut self, why: &str) {
        self.frame(GONE, |bytes| text(bytes, why));
    }
}

impl Sink for Encoder {
    fn driver(&mut self, driver: DriverInfo) {
        self.frame(DRIVER, |bytes| {
            for part in [&driver.driver, &driver.nvml, &driver.cuda] {
                text(bytes, part);
            }
            number(bytes, driver.gpus);
        });
    }

    fn describe(&mut self, gpu: GpuDescription) {
        self.frame(GPU, |bytes| {
            number(bytes, gpu.index);
            number(bytes, gpu.minor);
            for part in [&gpu.uuid, &gpu.pci_bus_id, &gpu.model] {
                text(bytes, part);
            }
            count(bytes, gpu.details.len().min(DETAILS_MAX));
            for (name, value) in gpu.details.iter().take(DETAILS_MAX) {
                text(bytes, name);
                text(bytes, value);
            }
            count(bytes, gpu.instances.len().min(INSTANCES_MAX));
            for instance in gpu.instances.iter().take(INSTANCES_MAX) {
                text(bytes, &instance.uuid);
                number(bytes, instance.gpu_instance);
                number(bytes, instance.compute_instance);
                text(bytes, &instance.profile);
            }
            count(bytes, gpu.links.len().min(LINKS_MAX));
            gpu.links.iter().take(LINKS_MAX).for_each(|link| number(bytes, *link));
        });
    }

    fn reading(&mut self, reading: &GpuReading) {
        self.frame(READING, |bytes| {
            number(bytes, reading.index);
            number(bytes, reading.errors);
            floats(bytes, &reading.values.0);
            count(bytes, reading.instances.len().min(INSTANCES_MAX));
            reading.instances.iter().take(INSTANCES_MAX).for_each(|values| floats(bytes, &values.0));
            count(bytes, reading.links.len().min(LINKS_MAX));
            reading.links.iter().take(LINKS_MAX).for_each(|values| floats(bytes, &values.0));
            count(bytes, reading.processes.len().min(PROCESSES_MAX));
            for process in reading.processes.iter().take(PROCESSES_MAX) {
                number(bytes, process.pid);
                number(bytes, process.gpu_instance);
                number(bytes, u32::from(process.mps));
                floats(bytes, &[process.memory_bytes, process.sm_util]);
            }
        });
    }

    fn failed(&mut self, index: u32, error: &str) {
        self.frame(FAILED, |bytes| {
            number(bytes, index);
            text(bytes, error);
        });
    }

    fn peers(&mut self, index: u32, peers: &[PeerReading]) {
        self.frame(PEERS, |bytes| {
            number(bytes, index);
            count(bytes, peers.len().min(GPUS_MAX));
            for peer in peers.iter().take(GPUS_MAX) {
                number(bytes, peer.index);
                number(bytes, peer.status);
            }
        });
    }

    fn event(&mut self, index: u32, xid: u32) {
        self.frame(EVENT, |bytes| {
            number(bytes, index);
            number(bytes, xid);
        });
    }
}

fn number(bytes: &mut Vec<u8>, number: u32) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend_from_slice(&(count as u16).to_le_bytes());
}

fn floats(bytes: &mut Vec<u8>, floats: &[f64]) {
    floats.iter().for_each(|float| bytes.extend_from_slice(&float.to_le_bytes()));
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    // Cut at a character, though no text of a driver comes near the limit.
    let mut end = text.len().min(1_024);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    count(bytes, end);
    bytes.extend_from_slice(&text.as_bytes()[..end]);
}

/// Why a frame cannot be understood: the child is not of this program, or its memory is corrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// It ends too early.
    #[error("a frame of the GPU reader is cut off")]
    Short,
    /// It holds more than it may.
    #[error("a frame of the GPU reader is too large")]
    Large,
    /// Nobody writes such a kind.
    #[error("a frame of the GPU reader is of unknown kind {0}")]
    Kind(u8),
    /// A text is not UTF-8.
    #[error("a text of the GPU reader is not UTF-8")]
    Text,
}

/// Takes frames apart and hands them to a sink, through one reused buffer.
#[derive(Debug)]
pub(super) struct Decoder {
    reading: GpuReading,
    events: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { reading: GpuReading::empty(0), events: 0 }
    }
}

impl Decoder {
    /// Bytes of the first frame including its length, once its length is known.
    pub(super) fn frame_length(bytes: &[u8]) -> Result<Option<usize>, WireError> {
        let Some(length) = bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        match length {
            0 => Err(WireError::Short),
            1..=FRAME_BYTES_MAX => Ok(Some(length + 4)),
            _ => Err(WireError::Large),
        }
    }

    /// Understands one frame (without its length).
    pub(super) fn take(&mut self, frame: &[u8], sink: &mut impl Sink) -> Result<Progress, WireError> {
        let mut body = Body(frame);
        match body.bytes(1)?[0] {
            DRIVER => {
                let (driver, nvml, cuda) = (body.text()?, body.text()?, body.text()?);
                sink.driver(DriverInfo { driver, nvml, cuda, gpus: body.number()? });
            }
            GPU => sink.describe(body.description()?),
            BEGINS => return Ok(Progress::Begins(body.index()?)),
            READING => {
                body.reading(&mut self.reading)?;
                sink.reading(&self.reading);
            }
            FAILED => {
                let index = body.index()?;
                sink.failed(index, &body.text()?);
            }
            EVENT => {
                let (index, xid) = (body.index()?, body.number()?);
                self.events += 1;
                if self.events <= EVENTS_MAX {
                    sink.event(index, xid);
                }
            }
            DONE => {
                self.events = 0;
                let bytes = body.bytes(8)?.first_chunk::<8>().ok_or(WireError::Short)?;
                return Ok(Progress::Done(u64::from_le_bytes(*bytes)));
            }
            PEERS => {
                let index = body.index()?;
                let peers = (0..body.count(GPUS_MAX)?)
                    .map(|_| Ok(PeerReading { index: body.index()?, status: body.number()? }));
                let peers = peers.collect::<Result<Vec<PeerReading>, WireError>>()?;
                sink.peers(index, &peers);
            }
            GONE => return Ok(Progress::Gone(body.text()?)),
            other => return Err(WireError::Kind(other)),
        }
        Ok(Progress::Taken)
    }
}

struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(*self.bytes(4)?.first_chunk::<4>().ok_or(WireError::Short)?))
    }

    fn index(&mut self) -> Result<u32, WireError> {
        let index = self.number()?;
        if index as usize >= GPUS_MAX { Err(WireError::Large) } else { Ok(index) }
    }

    fn count(&mut self, max: usize) -> Result<usize, WireError> {
        let count = u16::from_le_bytes(*self.bytes(2)?.first_chunk::<2>().ok_or(WireError::Short)?) as usize;
        if count > max { Err(WireError::Large) } else { Ok(count) }
    }

    fn text(&mut self) -> Result<String, WireError> {
        let length = self.count(1_024)?;
        std::str::from_utf8(self.bytes(length)?).map(str::to_owned).map_err(|_| WireError::Text)
    }

    fn float(&mut self) -> Result<f64, WireError> {
        Ok(f64::from_le_bytes(*self.bytes(8)?.first_chunk::<8>().ok_or(WireError::Short)?))
    }

    fn values<const COUNT: usize>(&mut self) -> Result<Values<COUNT>, WireError> {
        let mut values = Values::ABSENT;
        for value in &mut values.0 {
            *value = self.float()?;
        }
        Ok(values)
    }

    fn description(&mut self) -> Result<GpuDescription, WireError> {
        let (index, minor) = (self.index()?, self.number()?);
        let (uuid, pci_bus_id, model) = (self.text()?, self.text()?, self.text()?);
        let details = (0..self.count(DETAILS_MAX)?).map(|_| Ok((self.text()?, self.text()?)));
        let details = details.collect::<Result<_, WireError>>()?;
        let instances = (0..self.count(INSTANCES_MAX)?).map(|_| {
            Ok(InstanceDescription {
                uuid: self.text()?,
                gpu_instance: self.number()?,
                compute_instance: self.number()?,
                profile: self.text()?,
            })
        });
        let instances = instances.collect::<Result<_, WireError>>()?;
        let links = (0..self.count(LINKS_MAX)?).map(|_| self.number()).collect::<Result<_, WireError>>()?;
        Ok(GpuDescription { index, minor, uuid, pci_bus_id, model, details, instances, links })
    }

    fn reading(&mut self, reading: &mut GpuReading) -> Result<(), WireError> {
        reading.clear();
        reading.index = self.index()?;
        reading.errors = self.number()?;
        reading.values = self.values()?;
        for _ in 0..self.count(INSTANCES_MAX)? {
            reading.instances.push(self.values()?);
        }
        for _ in 0..self.count(LINKS_MAX)? {
            reading.links.push(self.values()?);
        }
        for _ in 0..self.count(PROCESSES_MAX)? {
            let (pid, gpu_instance, mps) = (self.number()?, self.number()?, self.number()? != 0);
            let (memory_bytes, sm_util) = (self.float()?, self.float()?);
            reading.processes.push(ProcessReading { pid, memory_bytes, sm_util, gpu_instance, mps });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::gpu::metric::{InstanceValues, Metric};
    use proptest::prelude::*;

    #[derive(Debug, Default)]
    struct Heard {
        drivers: Vec<DriverInfo>,
        gpus: Vec<GpuDescription>,
        readings: Vec<String>,
        failed: Vec<(u32, String)>,
        events: Vec<(u32, u32)>,
        peers: Vec<(u32, Vec<PeerReading>)>,
    }

    impl Sink for Heard {
        fn driver(&mut self, driver: DriverInfo) {
            self.drivers.push(driver);
        }
        fn describe(&mut self, gpu: GpuDescription) {
            self.gpus.push(gpu);
        }
        fn reading(&mut self, reading: &GpuReading) {
            self.readings.push(format!("{reading:?}"));
        }
        fn failed(&mut self, index: u32, error: &str) {
            self.failed.push((index, error.to_owned()));
        }
        fn peers(&mut self, index: u32, peers: &[PeerReading]) {
            self.peers.push((index, peers.to_vec()));
        }
        fn event(&mut self, index: u32, xid: u32) {
            self.events.push((index, xid));
        }
    }

    fn all(bytes: &[u8], heard: &mut Heard) -> Result<Vec<Progress>, WireError> {
        let (mut decoder, mut at, mut progress) = (Decoder::default(), 0, Vec::new());
        while let Some(length) = Decoder::frame_length(&bytes[at..])? {
            let frame = bytes.get(at + 4..at + length).ok_or(WireError::Short)?;
            progress.push(decoder.take(frame, heard)?);
            at += length;
        }
        Ok(progress)
    }

    fn reading() -> GpuReading {
        let mut reading = GpuReading::empty(3);
        reading.errors = 2;
        reading.values.put(Metric::PowerUsage as usize, Some(640.5));
        reading.instances.push(InstanceValues::ABSENT);
        reading.links.push(Values([1.0; 6]));
        let (memory_bytes, sm_util) = (1e9, f64::NAN);
        let process = ProcessReading { pid: 7, memory_bytes, sm_util, gpu_instance: u32::MAX, mps: true };
        reading.processes.push(process);
        reading
    }

    fn example() -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.driver(DriverInfo { driver: "550".into(), nvml: "12".into(), cuda: "12.4".into(), gpus: 8 });
        encoder.describe(GpuDescription {
            index: 3,
            minor: 4,
            uuid: "GPU-x".into(),
            pci_bus_id: "00000000:41:00.0".into(),
            model: "H100".into(),
            details: vec![("serial".into(), "1".into())],
            instances: vec![InstanceDescription { profile: "1g.10gb".into(), ..Default::default() }],
            links: vec![0, 17],
        });
        encoder.begins(3);
        encoder.reading(&reading());
        encoder.failed(4, "lost");
        encoder.event(4, 79);
        encoder.peers(3, &[PeerReading { index: 4, status: 5 }]);
        encoder.done(12);
        encoder.gone("no driver");
        encoder.bytes
    }

    #[test]
    fn what_is_written_is_heard() {
        let mut heard = Heard::default();
        let progress = all(&example(), &mut heard).unwrap();
        assert_eq!(
            progress.iter().filter(|progress| **progress != Progress::Taken).collect::<Vec<_>>(),
            [&Progress::Begins(3), &Progress::Done(12), &Progress::Gone("no driver".into())]
        );
        assert_eq!(heard.readings, [format!("{:?}", reading())]);
        assert_eq!((heard.drivers[0].gpus, heard.gpus[0].links.as_slice()), (8, &[0, 17][..]));
        assert_eq!(heard.peers, [(3, vec![PeerReading { index: 4, status: 5 }])]);
        assert_eq!((heard.failed, heard.events), (vec![(4, "lost".to_owned())], vec![(4, 79)]));
    }

    #[test]
    fn every_truncation_of_a_frame_is_an_error() {
        let bytes = example();
        let mut at = 0;
        while let Some(length) = Decoder::frame_length(&bytes[at..]).unwrap() {
            for end in at + 4..at + length {
                let cut = Decoder::default().take(&bytes[at + 4..end], &mut Heard::default());
                assert!(cut.is_err(), "{at}..{end}");
            }
            at += length;
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = all(&bytes, &mut Heard::default());
        }
    }
}
