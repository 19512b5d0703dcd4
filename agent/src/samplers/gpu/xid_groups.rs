//! XIDs as series: a counter and a count of the last minutes for each number and GPU, and what each means.

use super::fleet::Known;
use super::labels::Labels;
use super::pci::PciPlace;
use super::reading::DriverInfo;
use super::xid_texts;
use super::xids::{WINDOW, Xids};
use crate::group::{ColumnSpec, GroupHandle, GroupSet, Label};

/// Columns of one number.
const COLUMNS: usize = 3;

/// The groups of XIDs.
#[derive(Debug, Default)]
pub(super) struct XidGroups {
    groups: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    place: PciPlace,
    handle: GroupHandle,
    labels: Vec<Label>,
    numbers: usize,
    version: u32,
}

impl XidGroups {
    /// Publishes all counts. Allocates only when a number or a GPU is new.
    pub(super) fn publish(
        &mut self,
        groups: &mut GroupSet,
        xids: &mut Xids,
        known: &[Known],
        labels: &Labels,
        driver: &DriverInfo,
        relabel: bool,
    ) {
        for gpu in xids.places().filter(|gpu| !gpu.counts.is_empty()) {
            let kept = self.groups.iter().position(|kept| kept.place == gpu.place);
            let fits = kept.and_then(|at| self.groups.get(at));
            let fits = fits.is_some_and(|kept| kept.numbers == gpu.counts.len() && !relabel);
            let at = match kept {
                Some(at) if fits => at,
                _ => {
                    let found = known.iter().find(|known| known.place == Some(gpu.place));
                    let wanted = match found {
                        Some(known) => labels.of_gpu(&known.description, driver),
                        None => labels.of_place(gpu.place.label()),
                    };
                    let columns = gpu.counts.iter().flat_map(|count| columns(count.xid)).collect();
                    self.define(groups, gpu.place, wanted, columns, gpu.counts.len())
                }
            };
            let Some(group) = self.groups.get(at).and_then(|kept| groups.group(kept.handle)) else {
                continue;
            };
            for at in 0..gpu.counts.len() {
                let Some(count) = gpu.counts.get(at).copied() else { continue };
                // Rates need a zero before the first count.
                let total = if count.announced { count.total as f64 } else { 0.0 };
                group.put(at * COLUMNS, total);
                group.put(at * COLUMNS + 1, gpu.within_window(count.xid) as f64);
                group.put(at * COLUMNS + 2, 1.0);
                if let Some(count) = gpu.counts.get_mut(at) {
                    count.announced = true;
                }
            }
        }
    }

    fn define(
        &mut self,
        groups: &mut GroupSet,
        place: PciPlace,
        labels: Vec<Label>,
        columns: Vec<ColumnSpec>,
        numbers: usize,
    ) -> usize {
        let at = self.groups.iter().position(|kept| kept.place == place);
        if let Some(at) = at
            && let Some(kept) = self.groups.get_mut(at)
        {
            kept.numbers = numbers;
            if kept.labels == labels {
                groups.redefine(kept.handle, columns);
            } else {
                kept.version += 1;
                groups.end(kept.handle);
                let key = format!("gpu-xids/{}/{}", place.label(), kept.version);
                kept.handle = groups.define(key, labels.clone(), columns);
                kept.labels = labels;
            }
            return at;
        }
        let handle = groups.define(format!("gpu-xids/{}/0", place.label()), labels.clone(), columns);
        self.groups.push(Kept { place, handle, labels, numbers, version: 0 });
        self.groups.len() - 1
    }
}

fn columns(xid: u32) -> [ColumnSpec; COLUMNS] {
    let (class, text) = xid_texts::describe(xid);
    let number = xid.to_string();
    [
        ColumnSpec::plain("pharos_gpu_xid_errors_total").with("xid", number.clone()),
        ColumnSpec::plain("DCGM_EXP_XID_ERRORS_COUNT")
            .with("xid", number.clone())
            .with("window_size_in_ms", WINDOW.as_millis().to_string()),
        ColumnSpec::plain("pharos_gpu_xid_info").with("xid", number).with("class", class).with("text", text),
    ]
}
