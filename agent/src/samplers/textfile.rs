//! `textfile`: metrics that batch jobs leave in `*.prom` files under `--collector.textfile.directory`.

mod parse;

use crate::error::SampleError;
use crate::group::{COLUMNS_MAX, ColumnSpec, Description, GROUPS_MAX, GroupHandle, GroupSet};
use crate::kernel_files::ReadBuffer;
use crate::sampler::{Sampler, SamplerOptions};
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Larger files are no metrics of a batch job.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Folders that one pattern may stand for.
const FOLDERS_MAX: usize = 256;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(TextfileSampler {
        folders: options.textfile_directories.clone(),
        seen: Vec::new(),
        groups: Vec::new(),
        own: None,
        own_values: Vec::new(),
    })
}

struct TextfileSampler {
    folders: Vec<PathBuf>,
    /// The files as they were when they were read.
    seen: Vec<Stamp>,
    /// Groups of the files' series, and their values.
    groups: Vec<(GroupHandle, Vec<f64>)>,
    own: Option<GroupHandle>,
    own_values: Vec<f64>,
}

/// Tells whether a file has changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp {
    path: PathBuf,
    modified: (i64, i64),
    bytes: u64,
    inode: u64,
}

impl Sampler for TextfileSampler {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let (mut files, mut failed) = (Vec::new(), false);
        for folder in self.folders.iter().flat_map(|folder| expand(folder)) {
            match list(&folder) {
                Ok(mut found) => files.append(&mut found),
                Err(error) => {
                    tracing::debug!(folder = %folder.display(), %error, "Cannot list text files");
                    failed = true;
                }
            }
        }
        files.sort_unstable();
        if files != self.seen || self.own.is_none() || failed {
            self.load(&files, failed, groups);
            self.seen = files;
        }
        let own = self.own.map(|own| (own, &self.own_values));
        for (handle, values) in self.groups.iter().map(|(handle, values)| (*handle, values)).chain(own) {
            if let Some(group) = groups.group(handle) {
                values.iter().enumerate().for_each(|(column, value)| group.put(column, *value));
            }
        }
        Ok(())
    }

    fn may_hang(&mut self) -> bool {
        !self.folders.is_empty()
    }
}

impl TextfileSampler {
    fn load(&mut self, files: &[Stamp], mut failed: bool, groups: &mut GroupSet) {
        for (handle, _) in self.groups.drain(..) {
            groups.end(handle);
        }
        let mut own = vec![ColumnSpec::plain("node_textfile_scrape_error")];
        self.own_values = vec![0.0];
        let mut known = HashSet::new();
        let mut helps: HashMap<String, String> = HashMap::new();
        for file in files {
            let text =
                (file.bytes <= FILE_BYTES_MAX).then(|| std::fs::read_to_string(&file.path).ok()).flatten();
            let samples = match text.map(|text| parse::parse(&text)) {
                Some(Ok(samples)) => samples,
                Some(Err(line)) => {
                    tracing::warn!(file = %file.path.display(), line, "This line of a text file is wrong; the file is left out");
                    failed = true;
                    continue;
                }
                None => {
                    tracing::warn!(file = %file.path.display(), "A text file cannot be read");
                    failed = true;
                    continue;
                }
            };
            let name = file.path.display().to_string();
            own.push(ColumnSpec::plain("node_textfile_mtime_seconds").with("file", name.as_str()));
            self.own_values.push(file.modified.0 as f64 + file.modified.1 as f64 * 1e-9);
            let (mut columns, mut values) = (Vec::new(), Vec::new());
            for mut sample in samples {
                sample.labels.sort();
                // Two files may not disagree about one series.
                if !known.insert((sample.name.clone(), sample.labels.clone())) {
                    failed = true;
                    continue;
                }
                // Nor about what a metric is: the first file's word counts, and the others are left out.
                let help = match (helps.get(&sample.family), sample.help) {
                    (Some(known), Some(help)) if *known != help => {
                        failed = true;
                        continue;
                    }
                    (Some(known), _) => known.clone(),
                    (None, Some(help)) => {
                        helps.insert(sample.family, help.clone());
                        help
                    }
                    (None, None) => format!("Metric read from {name}"),
                };
                let labels = sample.labels.into_iter().map(|(label, value)| match label.as_str() {
                    // These two are the node's; Prometheus renames them the same way when it scrapes.
                    "instance" | "job" => (format!("exported_{label}").into(), value),
                    _ => (label.into(), value),
                });
                let description = Description { kind: sample.kind, help };
                columns.push(ColumnSpec {
                    name: sample.name.into(),
                    labels: labels.collect(),
                    description: Some(Box::new(description)),
                });
                values.push(sample.value);
            }
            for (at, (columns, values)) in
                columns.chunks(COLUMNS_MAX).zip(values.chunks(COLUMNS_MAX)).enumerate()
            {
                if self.groups.len() >= GROUPS_MAX {
                    failed = true;
                    break;
                }
                let handle = groups.define(format!("textfile/{name}/{at}"), Vec::new(), columns.to_vec());
                self.groups.push((handle, values.to_vec()));
            }
        }
        if let Some(error) = self.own_values.first_mut() {
            *error = f64::from(u8::from(failed));
        }
        match self.own {
            Some(handle) => groups.redefine(handle, own),
            None => self.own = Some(groups.define("textfile", Vec::new(), own)),
        }
    }
}

/// The folders that a pattern stands for; what is no pattern, or matches nothing, stands for itself.
fn expand(folder: &Path) -> Vec<PathBuf> {
    let pattern = folder.to_str().filter(|text| text.contains(['*', '?', '[']));
    let found = pattern.and_then(|pattern| glob::glob(pattern).ok());
    let found: Vec<PathBuf> = found.into_iter().flatten().filter_map(Result::ok).take(FOLDERS_MAX).collect();
    if found.is_empty() { vec![folder.to_owned()] } else { found }
}

fn list(folder: &Path) -> std::io::Result<Vec<Stamp>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "prom") {
            continue;
        }
        // The job may just be replacing it.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        files.push(Stamp { path, modified, bytes: metadata.len(), inode: metadata.ino() });
    }
    Ok(files)
}
