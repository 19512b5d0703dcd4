//! An inventory: devices of `/sys` with the files that tell about them, for samplers of hardware that not
//! every machine has.
//!
//! A sampler says what there is, as a list of [`Found`] objects; here that list becomes groups. It is made
//! anew only now and then, for listing costs more than reading and hardware comes and goes rarely; in between
//! the files are read through kept descriptors. Labels that tell of a state are as fresh as the list is.

use crate::error::SampleError;
use crate::group::{COLUMNS_MAX, ColumnSpec, GROUPS_MAX, GroupHandle, GroupSet, Label};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::Sampler;
use crate::scan;
use std::path::{Path, PathBuf};

/// Readings between two looks at what there is.
const READINGS_BETWEEN_LOOKS: u32 = 10;

/// Makes a number of a file's content.
pub(super) type Parse = fn(&[u8]) -> Option<f64>;

/// One object: its series and where their values are.
#[derive(Debug)]
pub(super) struct Found {
    key: String,
    labels: Vec<Label>,
    rows: Vec<(ColumnSpec, Source)>,
}

#[derive(Debug)]
enum Source {
    Constant(f64),
    /// What stands in a file, times a factor.
    File(KernelFile, Parse, f64),
    /// The sum over files; one that cannot be read adds nothing.
    Sum(Vec<KernelFile>, Parse),
}

impl Found {
    /// An object; `key` is unique within the agent, and holds everything that the labels do.
    pub(super) fn new(key: impl Into<String>, labels: Vec<Label>) -> Self {
        Found { key: key.into(), labels, rows: Vec::new() }
    }

    /// A series with a value that stays until the next look.
    pub(super) fn constant(&mut self, column: ColumnSpec, value: f64) {
        self.rows.push((column, Source::Constant(value)));
    }

    /// A series that tells only by its labels.
    pub(super) fn info(&mut self, column: ColumnSpec) {
        self.constant(column, 1.0);
    }

    /// A series with the number in a file, if the file is there.
    pub(super) fn file(&mut self, column: ColumnSpec, path: PathBuf, parse: Parse) {
        self.push_file(column, path, parse, 1.0);
    }

    /// A series with the number in a file, in another unit.
    pub(super) fn scaled(&mut self, column: ColumnSpec, path: PathBuf, factor: f64) {
        self.push_file(column, path, decimal, factor);
    }

    fn push_file(&mut self, column: ColumnSpec, path: PathBuf, parse: Parse, factor: f64) {
        if path.exists() {
            self.rows.push((column, Source::File(KernelFile::whole(path), parse, factor)));
        }
    }

    /// A series with the sum of what stands in some files.
    pub(super) fn sum(&mut self, column: ColumnSpec, paths: Vec<PathBuf>, parse: Parse) {
        let files = paths.into_iter().map(KernelFile::whole).collect();
        self.rows.push((column, Source::Sum(files, parse)));
    }

    /// A series with the group's labels only, and the number as it stands in a file.
    pub(super) fn number(&mut self, name: &'static str, path: PathBuf) {
        self.file(ColumnSpec::plain(name), path, decimal);
    }
}

/// A number as it stands.
pub(super) fn decimal(text: &[u8]) -> Option<f64> {
    scan::number(scan::trimmed(text))
}

/// The text of a small file without blanks around it; nothing if it cannot be read.
pub(super) fn text(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).unwrap_or_default()
}

/// The names in a folder, sorted; none if it is not there.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).take(GROUPS_MAX).collect();
    names.sort_unstable();
    names
}

/// Makes a sampler of what `find` finds below `source`. While there is nothing, not even `source`, it fails with
/// `absent`: node_exporter tells hosts that cannot have such objects from those that have none in the same way.
pub(super) fn sampler(
    source: &Path,
    absent: &'static str,
    find: impl FnMut() -> Vec<Found> + Send + 'static,
) -> Box<dyn Sampler> {
    let needs = Some((source.to_owned(), absent));
    Box::new(InventorySampler { needs, find, inventory: Inventory::default() })
}

/// The same of objects that no host needs to have.
pub(super) fn optional(find: impl FnMut() -> Vec<Found> + Send + 'static) -> Box<dyn Sampler> {
    Box::new(InventorySampler { needs: None, find, inventory: Inventory::default() })
}

struct InventorySampler<F> {
    /// What has to be there if no object is, and what its absence is called.
    needs: Option<(PathBuf, &'static str)>,
    find: F,
    inventory: Inventory,
}

impl<F: FnMut() -> Vec<Found> + Send> Sampler for InventorySampler<F> {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        if self.inventory.is_due() {
            self.inventory.update((self.find)(), groups);
        }
        self.inventory.read(buffer, groups);
        match &self.needs {
            Some((path, absent)) if self.inventory.known.is_empty() && !path.exists() => {
                Err(SampleError::Absent(absent))
            }
            _ => Ok(()),
        }
    }
}

/// The objects that were there at the last look.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    known: Vec<Known>,
    countdown: u32,
}

#[derive(Debug)]
struct Known {
    key: String,
    group: GroupHandle,
    sources: Vec<Source>,
}

impl Inventory {
    /// Whether it is time to look; with nothing there it always is.
    pub(super) fn is_due(&mut self) -> bool {
        let due = self.countdown == 0 || self.known.is_empty();
        self.countdown = if due { READINGS_BETWEEN_LOOKS } else { self.countdown - 1 };
        due
    }

    /// Takes what a look has found. Objects that are not there any more end.
    pub(super) fn update(&mut self, found: Vec<Found>, groups: &mut GroupSet) {
        let mut before = std::mem::take(&mut self.known);
        for Found { key, labels, rows } in found.into_iter().take(GROUPS_MAX) {
            let (columns, sources): (Vec<ColumnSpec>, Vec<Source>) =
                rows.into_iter().take(COLUMNS_MAX).unzip();
            let known = before.iter().position(|known| known.key == key).map(|at| before.swap_remove(at));
            match known {
                Some(Known { key, group, sources: kept }) => {
                    let same = groups.group(group).is_some_and(|group| group.columns() == columns);
                    if !same {
                        groups.redefine(group, columns);
                    }
                    // Files that are the same stay open.
                    let sources = if same { keep_files(kept, sources) } else { sources };
                    self.known.push(Known { key, group, sources });
                }
                None => {
                    let group = groups.define(key.as_str(), labels, columns);
                    self.known.push(Known { key, group, sources });
                }
            }
        }
        before.into_iter().for_each(|gone| groups.end(gone.group));
    }

    /// Reads all files. What cannot be read now has no value; the others have.
    pub(super) fn read(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) {
        for known in &mut self.known {
            let Some(group) = groups.group(known.group) else { continue };
            for (column, source) in known.sources.iter_mut().enumerate() {
                let value = match source {
                    Source::Constant(value) => Some(*value),
                    Source::File(file, parse, factor) => {
                        number(file, *parse, buffer).map(|value| value * *factor)
                    }
                    Source::Sum(files, parse) => {
                        Some(files.iter_mut().filter_map(|file| number(file, *parse, buffer)).sum())
                    }
                };
                group.put_some(column, value);
            }
        }
    }
}

fn number(file: &mut KernelFile, parse: Parse, buffer: &mut ReadBuffer) -> Option<f64> {
    file.read_if_present(buffer).ok().flatten().and_then(parse)
}

/// The new sources, with the descriptors of old ones where they read the same file.
fn keep_files(old: Vec<Source>, new: Vec<Source>) -> Vec<Source> {
    old.into_iter()
        .zip(new)
        .map(|pair| match pair {
            (Source::File(old, ..), Source::File(new, parse, factor)) if old.path() == new.path() => {
                Source::File(old, parse, factor)
            }
            (_, new) => new,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_come_change_and_go_with_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let find = {
            let root = root.clone();
            move || {
                let found = names(&root).into_iter().map(|name| {
                    let mut found = Found::new(name.clone(), vec![("name".into(), name.clone())]);
                    found.number("count", root.join(&name).join("count"));
                    found
                        .info(ColumnSpec::plain("info").with("state", text(&root.join(&name).join("state"))));
                    found
                });
                found.collect()
            }
        };
        let source = root.join("a");
        let (mut sampler, mut groups) = (sampler(&source, "nothing is here", find), GroupSet::default());
        let mut read = || {
            groups.begin();
            let outcome = sampler.sample(&mut ReadBuffer::default(), &mut groups);
            let mut shown = Vec::new();
            for group in groups.iter() {
                for (at, column) in
                    group.columns().iter().enumerate().filter(|(at, _)| group.present().contains(*at))
                {
                    let labels: Vec<&str> = column.labels.iter().map(|(_, value)| value.as_str()).collect();
                    shown.push(format!(
                        "{}/{}{}={}",
                        group.key(),
                        column.name,
                        labels.concat(),
                        group.values()[at]
                    ));
                }
            }
            groups.published();
            (outcome.is_ok(), shown.join(" "))
        };
        assert_eq!(read(), (false, String::new()));
        write("a/count", "7\n");
        write("a/state", "good\n");
        assert_eq!(
            read(),
            (true, "a/count=7 a/infogood=1".to_owned()),
            "with nothing there every look counts"
        );
        write("a/count", "8\n");
        write("a/state", "bad\n");
        write("b/state", "new\n");
        assert_eq!(read().1, "a/count=8 a/infogood=1", "numbers are fresh, the list is not");
        (0..READINGS_BETWEEN_LOOKS).for_each(|_| drop(read()));
        assert_eq!(read().1, "a/count=8 a/infobad=1 b/infonew=1");
        write("a/count", "soon\n");
        assert_eq!(read().1, "a/infobad=1 b/infonew=1", "missing beats wrong");
        std::fs::remove_dir_all(root.join("a")).unwrap();
        (0..READINGS_BETWEEN_LOOKS).for_each(|_| drop(read()));
        assert_eq!(read().1, "b/infonew=1");
    }
}
