//! `bcachefs`: space, errors and counters of each mounted bcachefs, from `/sys/fs/bcachefs`.
//!
//! Its many counters have a file each, whose descriptors are kept; the tables of a file system and its devices are
//! few and read anew.

use super::inventory::{Found, Inventory, decimal, names, text};
use super::table::{Object, Table};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet, Label};
use crate::kernel_files::ReadBuffer;
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};
use std::path::{Path, PathBuf};

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(BcachefsSampler {
        folder: options.paths.sys("fs/bcachefs"),
        counters: Inventory::default(),
        tables: Table::default(),
    })
}

struct BcachefsSampler {
    folder: PathBuf,
    counters: Inventory,
    tables: Table,
}

impl Sampler for BcachefsSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let systems = names(&self.folder);
        if self.counters.is_due() {
            let found = systems.iter().map(|uuid| counters(&self.folder.join(uuid), uuid));
            self.counters.update(found.collect(), groups);
        }
        self.counters.read(buffer, groups);
        let mut objects = Vec::new();
        for uuid in &systems {
            let folder = self.folder.join(uuid);
            objects.push(tables_of_system(&folder, uuid));
            for (name, device) in devices(&folder) {
                objects.push(tables_of_device(&folder.join(name), uuid, &device));
            }
        }
        self.tables.publish(groups, objects);
        if systems.is_empty() { Err(SampleError::Absent("no bcachefs")) } else { Ok(()) }
    }
}

fn labels(uuid: &str) -> Vec<Label> {
    vec![("uuid".into(), uuid.to_owned())]
}

/// The file system's counters since it was made.
fn counters(folder: &Path, uuid: &str) -> Found {
    let mut found = Found::new(format!("bcachefs/{uuid}/counters"), labels(uuid));
    found.info(ColumnSpec::plain("node_bcachefs_info"));
    found.file(
        ColumnSpec::plain("node_bcachefs_btree_cache_size_bytes"),
        folder.join("btree_cache_size"),
        human,
    );
    let folder = folder.join("counters");
    for name in names(&folder) {
        let legal: String =
            name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
        let column = ColumnSpec::plain(format!("node_bcachefs_{legal}_total"));
        found.file(column, folder.join(&name), |text| {
            human(scan::lines(text).find_map(|line| line.strip_prefix(b"since filesystem creation:"))?)
        });
    }
    found
}

/// Compression, errors and writes, each a table of its own form.
fn tables_of_system(folder: &Path, uuid: &str) -> Object {
    let mut object = Object::new(format!("bcachefs/{uuid}/tables"), labels(uuid));
    // `type compressed uncompressed average`, below a heading.
    for row in rows(&text(&folder.join("compression_stats")), 1) {
        let column = |name: &'static str| ColumnSpec::plain(name).with("algorithm", row.name);
        put(&mut object, column("node_bcachefs_compression_compressed_bytes"), row.human(0));
        put(&mut object, column("node_bcachefs_compression_uncompressed_bytes"), row.human(1));
    }
    // `name count time`.
    for row in rows(&text(&folder.join("errors")), 0) {
        put(
            &mut object,
            ColumnSpec::plain("node_bcachefs_errors_total").with("error_type", row.name),
            row.human(0),
        );
    }
    // `type: number size`, below a heading.
    for row in rows(&text(&folder.join("btree_write_stats")), 1) {
        let column = |name: &'static str| ColumnSpec::plain(name).with("type", row.name);
        put(&mut object, column("node_bcachefs_btree_writes_total"), row.human(0));
        put(&mut object, column("node_bcachefs_btree_write_average_size_bytes"), row.human(1));
    }
    object
}

/// Devices of a file system: their folders, and what they are called.
fn devices(folder: &Path) -> Vec<(String, String)> {
    let device = |name: String| name.strip_prefix("dev-").map(str::to_owned).map(|device| (name, device));
    names(folder).into_iter().filter_map(device).collect()
}

fn tables_of_device(folder: &Path, uuid: &str, device: &str) -> Object {
    let mut labels = labels(uuid);
    labels.push(("device".into(), device.to_owned()));
    let mut object = Object::new(format!("bcachefs/{uuid}/{device}"), labels);
    let info = ColumnSpec::plain("node_bcachefs_device_info").with("label", text(&folder.join("label")));
    object.put(info.with("state", text(&folder.join("state"))), 1.0);
    let number = |file: &str, parse: fn(&[u8]) -> Option<f64>| parse(text(&folder.join(file)).as_bytes());
    object.put_plain("node_bcachefs_device_bucket_size_bytes", number("bucket_size", human));
    object.put_plain("node_bcachefs_device_buckets", number("nbuckets", decimal));
    object.put_plain("node_bcachefs_device_durability", number("durability", decimal));
    let mut operation = None;
    for line in text(&folder.join("io_done")).lines().map(str::trim) {
        match (line, line.split_once(':')) {
            ("read:" | "write:", _) => operation = Some(line.trim_end_matches(':').to_owned()),
            (_, Some((kind, bytes))) => {
                let Some(operation) = &operation else { continue };
                let column = ColumnSpec::plain("node_bcachefs_device_io_done_bytes_total");
                let column = column.with("operation", operation.as_str()).with("data_type", kind.trim());
                put(&mut object, column, decimal(bytes.as_bytes()));
            }
            _ => {}
        }
    }
    let errors = text(&folder.join("io_errors"));
    let since_creation = errors
        .lines()
        .skip_while(|line| !line.starts_with("IO errors since filesystem creation"))
        .skip(1)
        .take_while(|line| !line.starts_with("IO errors since "));
    for (kind, count) in since_creation.filter_map(|line| line.split_once(':')) {
        let column = ColumnSpec::plain("node_bcachefs_device_io_errors_total").with("type", kind.trim());
        put(&mut object, column, decimal(count.as_bytes()));
    }
    object
}

fn put(object: &mut Object, column: ColumnSpec, value: Option<f64>) {
    if let Some(value) = value {
        object.put(column, value);
    }
}

/// A line of a table: its name, without a colon, and what stands behind it.
struct Row<'a> {
    name: &'a str,
    rest: &'a str,
}

impl Row<'_> {
    fn human(&self, at: usize) -> Option<f64> {
        human(Fields::of(self.rest.as_bytes()).nth(at)?)
    }
}

/// The lines of a table below its heading.
fn rows(text: &str, heading: usize) -> impl Iterator<Item = Row<'_>> {
    text.lines().skip(heading).filter_map(|line| {
        let (name, rest) = line.trim().split_once(char::is_whitespace)?;
        Some(Row { name: name.trim_end_matches(':'), rest })
    })
}

/// A number as bcachefs writes it: `1305`, or `4.2M` with a power of 1024.
fn human(text: &[u8]) -> Option<f64> {
    let text = scan::trimmed(text);
    let (last, digits) = text.split_last()?;
    let Some(power) = b"KMGTPE".iter().position(|unit| *unit == last.to_ascii_uppercase()) else {
        return scan::number(text);
    };
    let factor = 1024f64.powi(i32::try_from(power).ok()? + 1);
    scan::number(scan::trimmed(digits))
        .map(|value| (value * factor).trunc())
        .filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tables_and_numbers_are_read_and_odd_ones_are_left_out() {
        assert_eq!(human(b" 12.5k\n"), Some(12_800.0));
        assert_eq!(
            [human(b"7"), human(b"1M"), human(b"1e308E"), human(b"k")],
            [Some(7.0), Some(1_048_576.0), None, None]
        );
        let rows: Vec<_> = rows("type  a b\nlz4:  1k  2k\nzstd 1\n\nbare\n", 1).collect();
        assert_eq!(rows.iter().map(|row| row.name).collect::<Vec<_>>(), ["lz4", "zstd"]);
        assert_eq!((rows[0].human(1), rows[1].human(1)), (Some(2_048.0), None));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-0-9.kMGe: \\n]{0,24}") {
            let numbers = rows(&text, 1).map(|row| (row.human(0), row.human(1)));
            prop_assert!(numbers.flat_map(|(a, b)| [a, b]).flatten().all(f64::is_finite));
            let _ = human(text.as_bytes());
        }
    }
}
