//! Files with lines of a name and numbers behind it, such as `/proc/net/rpc/nfs`: which number is which series.
//!
//! A table says it once; readings then allocate nothing. Numbers that a kernel does not have are absent.

use crate::error::SampleError;
use crate::group::{ColumnSpec, Group, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::Sampler;
use crate::scan::{self, Fields};
use std::path::PathBuf;

/// Which numbers are wanted.
#[derive(Debug, Default)]
pub(super) struct NamedLines {
    columns: Vec<ColumnSpec>,
    /// Lines, and of each the places of numbers (the first behind the name is 0) with their columns.
    lines: Vec<(&'static str, Vec<(usize, usize)>)>,
}

impl NamedLines {
    /// Wants the number at a place of a line.
    pub(super) fn add(&mut self, line: &'static str, at: usize, column: ColumnSpec) {
        let place = (at, self.columns.len());
        self.columns.push(column);
        match self.lines.iter_mut().find(|(known, _)| *known == line) {
            Some((_, places)) => places.push(place),
            None => self.lines.push((line, vec![place])),
        }
    }

    /// The same for metrics without labels.
    pub(super) fn add_all(&mut self, line: &'static str, metrics: &[(usize, &'static str)]) {
        metrics.iter().for_each(|(at, metric)| self.add(line, *at, ColumnSpec::plain(*metric)));
    }

    pub(super) fn columns(&self) -> Vec<ColumnSpec> {
        self.columns.clone()
    }

    /// Stores what a text says; `None` if a wanted number is none.
    pub(super) fn read(&self, text: &[u8], group: &mut Group) -> Option<()> {
        for line in scan::lines(text) {
            let mut fields = Fields::of(line);
            let Some(name) = fields.next() else { continue };
            let Some((_, places)) = self.lines.iter().find(|(known, _)| known.as_bytes() == name) else {
                continue;
            };
            for (at, field) in fields.enumerate() {
                if let Some((_, column)) = places.iter().find(|(place, _)| *place == at) {
                    group.put(*column, scan::number(field)?);
                }
            }
        }
        Some(())
    }
}

/// Makes a sampler of one such file. Without the file it fails with `absent`.
pub(super) fn sampler(
    key: &'static str,
    file: PathBuf,
    absent: &'static str,
    lines: NamedLines,
) -> Box<dyn Sampler> {
    Box::new(NamedLinesSampler { key, file: KernelFile::list(file), absent, lines, group: None })
}

struct NamedLinesSampler {
    key: &'static str,
    file: KernelFile,
    absent: &'static str,
    lines: NamedLines,
    group: Option<GroupHandle>,
}

impl Sampler for NamedLinesSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let Some(text) = self.file.read_if_present(buffer)? else {
            if let Some(handle) = self.group.take() {
                groups.end(handle);
                // Once without an error, so that the end is published.
                return Ok(());
            }
            return Err(SampleError::Absent(self.absent));
        };
        let handle =
            *self.group.get_or_insert_with(|| groups.define(self.key, Vec::new(), self.lines.columns()));
        let Some(group) = groups.group(handle) else { return Ok(()) };
        self.lines.read(text, group).ok_or_else(|| self.file.malformed("a counter is no number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_line_and_place_and_missing_ones_are_absent() {
        let mut lines = NamedLines::default();
        lines.add_all("net", &[(0, "a"), (2, "b")]);
        lines.add_all("rpc", &[(1, "c")]);
        let mut groups = GroupSet::default();
        let handle = groups.define("x", Vec::new(), lines.columns());
        let mut read = |text: &str| {
            groups.begin();
            let group = groups.group(handle).unwrap();
            lines.read(text.as_bytes(), group)?;
            Some(
                (0..3).map(|at| group.present().contains(at).then(|| group.values()[at])).collect::<Vec<_>>(),
            )
        };
        assert_eq!(read("net 1 2 3 4\nrpc 5 6\nother x\n"), Some(vec![Some(1.0), Some(3.0), Some(6.0)]));
        assert_eq!(read("net 1\n\n"), Some(vec![Some(1.0), None, None]));
        assert_eq!(read("net 1 2 three\n"), None);
    }
}
