//! A real machine's node_exporter, scraped once a second under mixed load, and its replay as many nodes.
//!
//! In flows the text exposition of each second ([`Recorder`]); out flows a file of a few hundred KB, which
//! [`Recording::read`] reads back. Only series that are there in every second are kept. The file is one zstd
//! frame of
//!
//! ```text
//! magic "PHREC1\n"   seconds u32   series u32                 little-endian
//! series times:      name, count of labels u8, (name, value) each; texts are u16 length and UTF-8
//!                    kind u8: 1 counter, 0 other
//!                    decimals u8: 0 to 9, or 255 for raw bits
//! series times:      the seconds' values as zigzag LEB128 differences: of value x 10^decimals, or of the
//!                    bits of the double
//! ```
//!
//! Column by column, so that zstd meets what is alike together.

mod walk;

pub use walk::Walk;

use crate::data::{GroupSpec, SeriesSpec, Ticks};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

const MAGIC: &[u8] = b"PHREC1\n";
/// More decimals than any value of node_exporter has that is not plainly a double's bits.
const DECIMALS_MAX: u8 = 9;
const RAW_BITS: u8 = 255;
/// Whole numbers up to here are exact in a double.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Columns of a group in the protocol.
const GROUP_COLUMNS_MAX: usize = 256;
/// What a recording may unpack to, bytes: an hour of 2,000 series.
const UNPACKED_MAX: usize = 256 << 20;
/// Nodes that are replayed start this many seconds apart in the recording.
const SHIFT_SECONDS: usize = 37;

#[derive(Debug)]
struct Column {
    series: SeriesSpec,
    counter: bool,
    decimals: u8,
    values: Vec<f64>,
}

impl Column {
    /// Sums of decimals are rounded to the decimals they have.
    fn rounded(&self, value: f64) -> f64 {
        if self.decimals == RAW_BITS {
            return value;
        }
        let scale = 10f64.powi(i32::from(self.decimals));
        (value * scale).round() / scale
    }
}

/// A recording in memory.
#[derive(Debug)]
pub struct Recording {
    /// In the order of [`Recording::groups`].
    columns: Vec<Column>,
    group_lengths: Vec<usize>,
    seconds: usize,
}

/// Gathers scrapes into a recording.
#[derive(Debug, Default)]
pub struct Recorder {
    series: BTreeMap<String, Vec<f64>>,
    counters: BTreeMap<String, bool>,
    seconds: usize,
}

impl Recorder {
    /// Adds a second: the text of one scrape.
    pub fn add(&mut self, exposition: &str) {
        for line in exposition.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                if let Some((name, kind)) = rest.split_once(' ') {
                    self.counters.insert(name.to_owned(), kind == "counter");
                }
            } else if !line.starts_with('#')
                && let Some((series, value)) = line.rsplit_once(' ')
                && let Ok(value) = value.parse()
            {
                let values = self.series.entry(series.to_owned()).or_default();
                if values.len() == self.seconds {
                    values.push(value);
                }
            }
        }
        self.seconds += 1;
    }

    /// The file.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        let whole = self.series.iter().filter(|(_, values)| values.len() == self.seconds);
        let columns: Vec<(SeriesSpec, bool, &Vec<f64>)> = whole
            .filter_map(|(text, values)| {
                let series = parse_series(text)?;
                let counter = self.counters.get(&series.name).copied().unwrap_or(false);
                Some((series, counter, values))
            })
            .collect();
        let mut out = MAGIC.to_vec();
        out.extend((self.seconds as u32).to_le_bytes());
        out.extend((columns.len() as u32).to_le_bytes());
        let mut data = Vec::new();
        for (series, counter, values) in &columns {
            write_text(&mut out, &series.name);
            out.push(series.labels.len() as u8);
            for (name, value) in &series.labels {
                write_text(&mut out, name);
                write_text(&mut out, value);
            }
            let decimals = decimals_of(values);
            out.extend([u8::from(*counter), decimals]);
            let mut before = 0i64;
            for &value in *values {
                let number = to_number(value, decimals);
                write_varint(&mut data, number.wrapping_sub(before));
                before = number;
            }
        }
        out.extend(data);
        zstd::bulk::compress(&out, 19)
    }
}

impl Recording {
    /// The recording in the tree.
    pub fn shipped() -> io::Result<Arc<Recording>> {
        let path = crate::repository().join("tests/data/node_exporter.rec");
        Ok(Arc::new(Recording::read(&std::fs::read(path)?)?))
    }

    /// Reads a file.
    pub fn read(file: &[u8]) -> io::Result<Recording> {
        let bytes = zstd::bulk::decompress(file, UNPACKED_MAX)?;
        let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("not a recording"))?;
        let seconds = u32::from_le_bytes(take(&mut rest)?) as usize;
        let count = u32::from_le_bytes(take(&mut rest)?) as usize;
        let mut columns = Vec::new();
        for _ in 0..count {
            let name = read_text(&mut rest)?;
            let [labels] = take(&mut rest)?;
            let labels = (0..labels)
                .map(|_| Ok((read_text(&mut rest)?, read_text(&mut rest)?)))
                .collect::<io::Result<_>>()?;
            let [counter, decimals] = take(&mut rest)?;
            let series = SeriesSpec { name, labels };
            columns.push(Column { series, counter: counter == 1, decimals, values: Vec::new() });
        }
        for column in &mut columns {
            let mut number = 0i64;
            for _ in 0..seconds {
                number = number.wrapping_add(read_varint(&mut rest)?);
                column.values.push(to_value(number, column.decimals));
            }
        }
        // What is read together stands together: the fields of one CPU, one disk, one subsystem.
        columns.sort_by_cached_key(|column| object(&column.series));
        let mut group_lengths: Vec<usize> = Vec::new();
        let mut before = None;
        for column in &columns {
            let object = object(&column.series);
            match group_lengths.last_mut() {
                Some(length) if before.as_ref() == Some(&object) && *length < GROUP_COLUMNS_MAX => {
                    *length += 1
                }
                _ => group_lengths.push(1),
            }
            before = Some(object);
        }
        Ok(Recording { columns, group_lengths, seconds })
    }

    /// How long it is.
    pub fn seconds(&self) -> usize {
        self.seconds
    }

    /// Its series in groups.
    pub fn groups(&self) -> Vec<GroupSpec> {
        let mut rest = self.columns.as_slice();
        let group = |length: &usize| {
            let (mine, behind) = rest.split_at(*length);
            rest = behind;
            GroupSpec { series: mine.iter().map(|column| column.series.clone()).collect() }
        };
        self.group_lengths.iter().map(group).collect()
    }
}

/// A node that lives through the recording again and again. Each starts elsewhere in it; counters go on
/// rising where the recording begins anew.
#[derive(Debug)]
pub struct RecordedNode {
    recording: Arc<Recording>,
    second: usize,
    rounds: f64,
    values: Vec<f64>,
}

impl RecordedNode {
    /// Node number `node` at its first second.
    pub fn new(recording: Arc<Recording>, node: usize) -> RecordedNode {
        let second = node * SHIFT_SECONDS % recording.seconds.max(1);
        // Every node has been up for a time of its own.
        let rounds = (node % 97) as f64;
        RecordedNode { recording, second, rounds, values: Vec::new() }
    }
}

impl Ticks for RecordedNode {
    fn tick(&mut self) -> &[f64] {
        let (second, rounds) = (self.second, self.rounds);
        self.values.clear();
        self.values.extend(self.recording.columns.iter().map(|column| {
            let value = column.values[second];
            let (Some(first), Some(last)) = (column.values.first(), column.values.last()) else {
                return value;
            };
            if !column.counter || rounds == 0.0 || last == first {
                return value;
            }
            column.rounded(value + rounds * (last - first))
        }));
        self.second += 1;
        if self.second == self.recording.seconds {
            self.second = 0;
            self.rounds += 1.0;
        }
        &self.values
    }
}

/// What a series belongs to: a subsystem's device or CPU, or the subsystem.
fn object(series: &SeriesSpec) -> (String, String) {
    let subsystem = series.name.split('_').nth(1).unwrap_or_default();
    let of = ["cpu", "device", "chip", "collector"];
    let device = series.labels.iter().find(|(name, _)| of.contains(&name.as_str()));
    (subsystem.to_owned(), device.map(|(_, value)| value.clone()).unwrap_or_default())
}

/// `name{label="value",…}` of the text exposition.
fn parse_series(text: &str) -> Option<SeriesSpec> {
    let Some((name, rest)) = text.split_once('{') else {
        return Some(SeriesSpec { name: text.to_owned(), labels: Vec::new() });
    };
    let mut rest = rest.strip_suffix('}')?;
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (label, behind) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = behind.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((label.to_owned(), value));
        rest = &behind[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(SeriesSpec { name: name.to_owned(), labels })
}

fn decimals_of(values: &[f64]) -> u8 {
    let exact = |decimals: u8| {
        let scale = 10f64.powi(i32::from(decimals));
        values.iter().all(|&value| {
            let scaled = (value * scale).round();
            scaled.abs() <= EXACT_MAX && (scaled / scale).to_bits() == value.to_bits()
        })
    };
    (0..=DECIMALS_MAX).find(|&decimals| exact(decimals)).unwrap_or(RAW_BITS)
}

fn to_number(value: f64, decimals: u8) -> i64 {
    if decimals == RAW_BITS {
        return value.to_bits() as i64;
    }
    (value * 10f64.powi(i32::from(decimals))).round() as i64
}

fn to_value(number: i64, decimals: u8) -> f64 {
    if decimals == RAW_BITS {
        return f64::from_bits(number as u64);
    }
    number as f64 / 10f64.powi(i32::from(decimals))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn take<const N: usize>(rest: &mut &[u8]) -> io::Result<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk().ok_or_else(|| damaged("the recording is cut off"))?;
    *rest = behind;
    Ok(*taken)
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
}

fn read_text(rest: &mut &[u8]) -> io::Result<String> {
    let length = usize::from(u16::from_le_bytes(take(rest)?));
    let (text, behind) = rest.split_at_checked(length).ok_or_else(|| damaged("the recording is cut off"))?;
    *rest = behind;
    String::from_utf8(text.to_vec()).map_err(|_| damaged("a text is not UTF-8"))
}

fn write_varint(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn read_varint(rest: &mut &[u8]) -> io::Result<i64> {
    let mut number = 0u64;
    for shift in (0..70).step_by(7) {
        let [byte] = take(rest)?;
        number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
        }
    }
    Err(damaged("a number is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(second: u32) -> String {
        format!(
            "# TYPE node_cpu_seconds_total counter\nnode_cpu_seconds_total{{cpu=\"0\",mode=\"a\\\\b,}}\"}} {}\n\
             # TYPE node_load1 gauge\nnode_load1 {}\nnode_odd {}\n",
            f64::from(second) * 0.25 + 7.0,
            1.5 - f64::from(second),
            f64::from(second) / 3.0,
        )
    }

    fn recorded() -> Recording {
        let mut recorder = Recorder::default();
        (0..4).for_each(|second| {
            recorder.add(&(scrape(second) + if second == 2 { "node_once 1\n" } else { "" }))
        });
        Recording::read(&recorder.finish().unwrap()).unwrap()
    }

    #[test]
    fn what_was_scraped_is_read_back_and_what_was_not_always_there_is_left_out() {
        let recording = recorded();
        let columns: Vec<(&str, u8, &[f64])> = recording
            .columns
            .iter()
            .map(|column| (column.series.name.as_str(), column.decimals, column.values.as_slice()))
            .collect();
        assert_eq!(
            columns,
            [
                ("node_cpu_seconds_total", 2, &[7.0, 7.25, 7.5, 7.75][..]),
                ("node_load1", 1, &[1.5, 0.5, -0.5, -1.5]),
                ("node_odd", RAW_BITS, &[0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0]),
            ]
        );
        let labels = [("cpu".to_owned(), "0".to_owned()), ("mode".to_owned(), "a\\b,}".to_owned())];
        assert_eq!(recording.columns[0].series.labels, labels);
        assert_eq!(recording.groups().len(), 3);
    }

    #[test]
    fn counters_never_fall_where_the_recording_begins_anew() {
        let mut node = RecordedNode::new(Arc::new(recorded()), 0);
        let values: Vec<f64> = (0..8).map(|_| node.tick()[0]).collect();
        assert_eq!(values, [7.0, 7.25, 7.5, 7.75, 7.75, 8.0, 8.25, 8.5]);
    }

    #[test]
    fn the_recording_in_the_tree_is_read_and_has_ten_minutes_of_a_machine() {
        let recording = Recording::shipped().unwrap();
        let series: usize = recording.groups().iter().map(|group| group.series.len()).sum();
        assert_eq!((recording.seconds(), series), (600, 507));
        let mut node = RecordedNode::new(recording, 5);
        assert_eq!(node.tick().len(), series);
    }

    #[test]
    fn a_cut_recording_is_an_error() {
        let mut recorder = Recorder::default();
        recorder.add(&scrape(0));
        let whole = zstd::bulk::decompress(&recorder.finish().unwrap(), UNPACKED_MAX).unwrap();
        for length in 0..whole.len() {
            let cut = zstd::bulk::compress(&whole[..length], 1).unwrap();
            assert!(Recording::read(&cut).is_err(), "{length} of {} bytes", whole.len());
        }
    }
}
