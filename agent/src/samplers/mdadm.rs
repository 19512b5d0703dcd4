//! `mdadm`: state and progress of software RAID, from `/proc/mdstat` and `/sys/block`.

use super::table::{Object, Table};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan;
use std::path::PathBuf;

/// States that an array can be in, as the label has them.
const STATES: [&str; 5] = ["active", "inactive", "recovering", "resync", "check"];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let mdstat = KernelFile::list(options.paths.proc("mdstat"));
    Box::new(MdadmSampler { mdstat, blocks: options.paths.sys("block"), table: Table::default() })
}

struct MdadmSampler {
    mdstat: KernelFile,
    blocks: PathBuf,
    table: Table,
}

impl Sampler for MdadmSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let text = self.mdstat.read_if_present(buffer)?;
        let known = text.is_some();
        let arrays = parse(&String::from_utf8_lossy(text.unwrap_or_default()));
        let arrays = arrays.map_err(|what| self.mdstat.malformed(what))?;
        let mut objects: Vec<Object> = arrays.iter().map(Array::object).collect();
        for (array, object) in arrays.iter().zip(&mut objects) {
            for (file, metric) in [("raid_disks", "node_md_raid_disks"), ("degraded", "node_md_degraded")] {
                let mut file = KernelFile::whole(self.blocks.join(&array.name).join("md").join(file));
                let text = file.read_if_present(buffer).ok().flatten();
                object.put_plain(metric, text.and_then(|text| scan::number(scan::trimmed(text))));
            }
        }
        self.table.publish(groups, objects);
        if known { Ok(()) } else { Err(SampleError::Absent("no software RAID")) }
    }
}

/// What is told of one array.
#[derive(Debug, Default, PartialEq)]
struct Array {
    name: String,
    state: &'static str,
    required: f64,
    active: f64,
    failed: f64,
    spare: f64,
    blocks: f64,
    synced: f64,
}

impl Array {
    fn object(&self) -> Object {
        let labels = vec![("device".into(), self.name.clone())];
        let mut object = Object::new(format!("md/{}", self.name), labels);
        object.put_plain("node_md_blocks", Some(self.blocks));
        object.put_plain("node_md_blocks_synced", Some(self.synced));
        for (state, disks) in [("active", self.active), ("failed", self.failed), ("spare", self.spare)] {
            object.put(ColumnSpec::plain("node_md_disks").with("state", state), disks);
        }
        object.put_plain("node_md_disks_required", Some(self.required));
        for state in STATES {
            let here = f64::from(u8::from(state == self.state));
            object.put(ColumnSpec::plain("node_md_state").with("state", state), here);
        }
        object
    }
}

/// The arrays: a line `md0 : active raid1 sda1[0] sdb1[1](F)`, then indented lines about it.
fn parse(text: &str) -> Result<Vec<Array>, &'static str> {
    let mut arrays = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((name, rest)) = line.split_once(" : ").filter(|(name, _)| name.starts_with("md")) else {
            continue;
        };
        let mut array = Array {
            name: name.trim().to_owned(),
            state: if rest.starts_with("inactive") { "inactive" } else { "active" },
            failed: rest.matches("(F)").count() as f64,
            spare: rest.matches("(S)").count() as f64,
            ..Array::default()
        };
        let status = lines.next_if(|line| line.starts_with(' ')).ok_or("an array has no size")?;
        let blocks = status.split_whitespace().next().and_then(|word| word.parse().ok());
        array.blocks = blocks.ok_or("an array's size is no number")?;
        array.synced = array.blocks;
        let level = rest.split_whitespace().find(|word| word.starts_with("raid0") || *word == "linear");
        if level.is_some() {
            // They have no spare disks, and without one of them they do not run.
            array.required = rest.matches('[').count() as f64;
            array.active = array.required;
        } else if array.state == "active" {
            let (required, active) = disks(status).ok_or("an array does not say how many disks it has")?;
            (array.required, array.active) = (required, active);
        }
        while let Some(line) = lines.next_if(|line| line.starts_with(' ')) {
            let states = [("recovery", "recovering"), ("resync", "resync"), ("check", "check")];
            if let Some((_, state)) = states.iter().find(|(word, _)| line.contains(word)) {
                array.state = state;
                // `(16775552/195310144)`; an array that waits for its turn has none.
                let synced = line.split_once('(').and_then(|(_, rest)| rest.split_once('/'));
                array.synced = synced.and_then(|(blocks, _)| blocks.parse().ok()).unwrap_or(0.0);
            }
        }
        arrays.push(array);
    }
    Ok(arrays)
}

/// `[4/3]`: disks wanted and disks at work.
fn disks(status: &str) -> Option<(f64, f64)> {
    status.split('[').skip(1).find_map(|part| {
        let (required, active) = part.split_once(']')?.0.split_once('/')?;
        Some((required.parse().ok()?, active.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arrays_tell_their_disks_and_progress() {
        #[track_caller]
        fn check(text: &str, state: &str, disks: [f64; 4], blocks: [f64; 2]) {
            let arrays = parse(text).unwrap();
            let array = &arrays[0];
            assert_eq!(array.state, state);
            assert_eq!([array.required, array.active, array.failed, array.spare], disks);
            assert_eq!([array.blocks, array.synced], blocks);
        }
        let whole = "md0 : active raid1 sda[0] sdb[1]\n      100 blocks [2/2] [UU]\n";
        check(whole, "active", [2.0, 2.0, 0.0, 0.0], [100.0, 100.0]);
        let ill = "md0 : active raid1 sda[0] sdb[1](F) sdc[2](S)\n  100 blocks [2/1] [U_]\n  bitmap: 0/1 pages\n  [=>..]  recovery =  8.5% (25/100) finish=1min\n";
        check(ill, "recovering", [2.0, 1.0, 1.0, 1.0], [100.0, 25.0]);
        let waiting = "md0 : active raid1 sda[0] sdb[1]\n  100 blocks [2/2] [UU]\n    resync=PENDING\n";
        check(waiting, "resync", [2.0, 2.0, 0.0, 0.0], [100.0, 0.0]);
        let striped = "md0 : active raid0 sda[0] sdb[1]\n  100 blocks 64k chunks\n";
        check(striped, "active", [2.0, 2.0, 0.0, 0.0], [100.0, 100.0]);
        let stopped = "md0 : inactive sda[0](S)\n  100 blocks\n";
        check(stopped, "inactive", [0.0, 0.0, 0.0, 1.0], [100.0, 100.0]);
        assert_eq!(parse("Personalities : [raid1]\nunused devices: <none>\n"), Ok(Vec::new()));
        assert!(parse("md0 : active raid1 sda[0]\n").is_err());
        assert!(parse("md0 : active raid1 sda[0]\n  many blocks\n").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(md0 : |active|raid1|[ \\[\\]/()0-9U_\n]){0,40}") {
            let _ = parse(&text);
        }
    }
}
