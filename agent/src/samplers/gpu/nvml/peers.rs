//! Which GPUs reach each other's memory over NVLink.
//!
//! A pair is asked about only when both of its GPUs have just answered: the driver may touch either, and one
//! that hangs must not be taken for the other. It hardly ever changes, so it is asked for now and then.

use super::super::reading::PeerReading;
use super::calls::{Meaning, meaning};
use super::device::Gpu;
use nvml_wrapper::enum_wrappers::device::P2pCapabilitiesIndex;
use nvml_wrapper::error::NvmlError;

/// Readings from one look to the next.
const READINGS_BETWEEN: u32 = 10;
/// The same where the driver does not tell.
const READINGS_BETWEEN_RETRIES: u32 = 300;

/// When the next look is due.
#[derive(Debug, Default)]
pub(super) struct Peers {
    readings_left: u32,
}

impl Peers {
    /// Asks about all pairs of `gpus` that answered, if it is time to. `begins` hears of whom a pair is asked,
    /// `tell` what each GPU's peers are.
    ///
    /// # Errors
    /// If the driver is gone.
    pub(super) fn read<'nvml, 'gpu, S>(
        &mut self,
        sink: &mut S,
        gpus: impl Iterator<Item = (u32, Option<&'gpu Gpu<'nvml>>)>,
        mut begins: impl FnMut(&mut S, u32),
        mut tell: impl FnMut(&mut S, u32, &[PeerReading]),
    ) -> Result<(), NvmlError>
    where
        'nvml: 'gpu,
    {
        if self.readings_left > 0 {
            self.readings_left -= 1;
            return Ok(());
        }
        self.readings_left = READINGS_BETWEEN - 1;
        let gpus: Vec<(u32, &Gpu<'nvml>)> = gpus.filter_map(|(index, gpu)| Some((index, gpu?))).collect();
        let linked: Vec<&(u32, &Gpu<'nvml>)> =
            gpus.iter().filter(|(_, gpu)| !gpu.description().links.is_empty()).collect();
        let mut found: Vec<Vec<PeerReading>> = vec![Vec::new(); linked.len()];
        for first in 0..linked.len() {
            let &(index, gpu) = linked[first];
            for second in first + 1..linked.len() {
                let &(other, peer) = linked[second];
                begins(sink, index);
                match gpu.device().p2p_status(peer.device(), P2pCapabilitiesIndex::NvLink) {
                    Ok(status) => {
                        let status = status.as_c();
                        found[first].push(PeerReading { index: other, status });
                        found[second].push(PeerReading { index, status });
                    }
                    Err(error) => match meaning(&error) {
                        Meaning::DriverGone => return Err(error),
                        Meaning::NotOffered => {
                            self.readings_left = READINGS_BETWEEN_RETRIES - 1;
                            return Ok(());
                        }
                        // One that is lost says so itself in the next reading.
                        Meaning::NothingNow | Meaning::Failed | Meaning::GpuLost => {}
                    },
                }
            }
        }
        for ((index, _), peers) in linked.iter().zip(&found) {
            tell(sink, *index, peers);
        }
        Ok(())
    }
}
