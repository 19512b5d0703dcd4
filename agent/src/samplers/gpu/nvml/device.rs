//! One GPU: who it is, and everything that the driver tells of it now.

use super::super::metric::{GpuValues, LinkMetric, LinkValues, Metric};
use super::super::reading::{
    GpuDescription, GpuReading, InstanceDescription, LINKS_MAX, PROCESSES_MAX, ProcessReading,
};
use super::calls::Calls;
use super::instances::{self, Instance};
use super::profile::Profile;
use super::raw::{self, ALL_LINKS, FieldBatch};
use nvml_wrapper::enum_wrappers::device::{
    Clock, InfoRom, PcieUtilCounter, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::sys_exports::field_id::*;
use nvml_wrapper::{Device, Nvml};
use std::time::Instant;

/// Readings from one look at what hardly changes (limits, link widths, MIG instances) to the next.
const READINGS_BETWEEN_SLOW: u32 = 10;
const MEBIBYTE: f64 = 1_048_576.0;
const KIBIBYTE: f64 = 1_024.0;
const MILLI: f64 = 0.001;

/// Fields of a whole GPU that come with one call, their columns, and the factor to DCGM's unit.
const FIELDS: [(u32, Metric, f64); 28] = [
    (NVML_FI_DEV_MEMORY_TEMP, Metric::MemoryTemp, 1.0),
    (NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, Metric::Energy, 1.0),
    (NVML_FI_DEV_POWER_INSTANT, Metric::PowerUsageInstant, MILLI),
    (NVML_FI_DEV_PCIE_REPLAY_COUNTER, Metric::PcieReplay, 1.0),
    (NVML_FI_DEV_ECC_SBE_VOL_TOTAL, Metric::EccSbeVolatile, 1.0),
    (NVML_FI_DEV_ECC_DBE_VOL_TOTAL, Metric::EccDbeVolatile, 1.0),
    (NVML_FI_DEV_ECC_SBE_AGG_TOTAL, Metric::EccSbeAggregate, 1.0),
    (NVML_FI_DEV_ECC_DBE_AGG_TOTAL, Metric::EccDbeAggregate, 1.0),
    (NVML_FI_DEV_RETIRED_SBE, Metric::RetiredSbe, 1.0),
    (NVML_FI_DEV_RETIRED_DBE, Metric::RetiredDbe, 1.0),
    (NVML_FI_DEV_RETIRED_PENDING, Metric::RetiredPending, 1.0),
    (NVML_FI_DEV_REMAPPED_COR, Metric::RemappedCorrectable, 1.0),
    (NVML_FI_DEV_REMAPPED_UNC, Metric::RemappedUncorrectable, 1.0),
    (NVML_FI_DEV_REMAPPED_PENDING, Metric::RemapPending, 1.0),
    (NVML_FI_DEV_REMAPPED_FAILURE, Metric::RemapFailure, 1.0),
    (NVML_FI_DEV_PERF_POLICY_POWER, Metric::PowerViolation, 1.0),
    (NVML_FI_DEV_PERF_POLICY_THERMAL, Metric::ThermalViolation, 1.0),
    (NVML_FI_DEV_PERF_POLICY_SYNC_BOOST, Metric::SyncBoostViolation, 1.0),
    (NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT, Metric::BoardLimitViolation, 1.0),
    (NVML_FI_DEV_PERF_POLICY_LOW_UTILIZATION, Metric::LowUtilViolation, 1.0),
    (NVML_FI_DEV_PERF_POLICY_RELIABILITY, Metric::ReliabilityViolation, 1.0),
    (NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL, Metric::NvlinkCrcFlit, 1.0),
    (NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL, Metric::NvlinkCrcData, 1.0),
    (NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL, Metric::NvlinkReplay, 1.0),
    (NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL, Metric::NvlinkRecovery, 1.0),
    // The sum of both directions is one column; see `fill_fields`.
    (NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, Metric::NvlinkBandwidth, 1.0),
    (NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, Metric::NvlinkBandwidth, 1.0),
    (NVML_FI_DEV_POWER_CURRENT_LIMIT, Metric::PowerLimitEnforced, MILLI),
];

/// Fields of one link, their columns, and the factor to the column's unit.
const LINK_FIELDS: [(u32, LinkMetric, f64); 6] = [
    (NVML_FI_DEV_NVLINK_GET_STATE, LinkMetric::Up, 1.0),
    (NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, LinkMetric::Transmitted, KIBIBYTE),
    (NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, LinkMetric::Received, KIBIBYTE),
    (NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY, LinkMetric::Replay, 1.0),
    (NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY, LinkMetric::Recovery, 1.0),
    (NVML_FI_DEV_NVLINK_ERROR_DL_CRC, LinkMetric::Crc, 1.0),
];

/// Numbers of the calls that a GPU may not offer.
mod call {
    pub(super) const FIELDS: u8 = 0;
    pub(super) const UTILIZATION: u8 = 1;
    pub(super) const MEMORY: u8 = 2;
    pub(super) const TEMPERATURE: u8 = 3;
    pub(super) const POWER: u8 = 4;
    pub(super) const SM_CLOCK: u8 = 5;
    pub(super) const MEM_CLOCK: u8 = 6;
    pub(super) const VIDEO_CLOCK: u8 = 7;
    pub(super) const ENCODER: u8 = 8;
    pub(super) const DECODER: u8 = 9;
    pub(super) const REASONS: u8 = 10;
    pub(super) const FAN: u8 = 11;
    pub(super) const STATE: u8 = 12;
    pub(super) const BAR1: u8 = 13;
    pub(super) const GPM_SUPPORT: u8 = 14;
    pub(super) const GPM: u8 = 15;
    pub(super) const INSTANCE_GPM: u8 = 16;
    pub(super) const PCIE_TX: u8 = 17;
    pub(super) const PCIE_RX: u8 = 18;
    pub(super) const COMPUTE: u8 = 19;
    pub(super) const MPS: u8 = 20;
    pub(super) const PROCESS_UTIL: u8 = 21;
    pub(super) const MIG: u8 = 22;
    pub(super) const MIG_LIST: u8 = 23;
    pub(super) const SLOW_FIRST: u8 = 30;
    pub(super) const LINKS: u8 = 50;
}

/// A GPU and what is kept for it.
pub(super) struct Gpu<'nvml> {
    nvml: &'nvml Nvml,
    device: Device<'nvml>,
    description: GpuDescription,
    calls: Calls,
    fields: FieldBatch,
    link_fields: FieldBatch,
    instances: Vec<Instance<'nvml>>,
    profile: Profile<'nvml>,
    has_gpm: bool,
    mig: bool,
    slow: GpuValues,
    readings_until_slow: u32,
    seen_process_util: u64,
    pcie: PcieBytes,
    reading: GpuReading,
}

impl<'nvml> Gpu<'nvml> {
    /// Finds a GPU by its number and asks who it is.
    pub(super) fn open(nvml: &'nvml Nvml, index: u32) -> Result<Self, NvmlError> {
        let device = nvml.device_by_index(index)?;
        let description = describe(&device, index)?;
        let mut fields: Vec<(u32, u32)> = FIELDS.iter().map(|(field, ..)| (*field, ALL_LINKS)).collect();
        fields.extend([(NVML_FI_DEV_PCIE_COUNT_TX_BYTES, 0), (NVML_FI_DEV_PCIE_COUNT_RX_BYTES, 0)]);
        let links = description.links.iter();
        let links = links.flat_map(|link| LINK_FIELDS.iter().map(|(field, ..)| (*field, *link))).collect();
        Ok(Gpu {
            nvml,
            device,
            description,
            has_gpm: false,
            calls: Calls::default(),
            fields: FieldBatch::new(fields),
            link_fields: FieldBatch::new(links),
            instances: Vec::new(),
            profile: Profile::default(),
            mig: false,
            slow: GpuValues::ABSENT,
            readings_until_slow: 0,
            seen_process_util: 0,
            pcie: PcieBytes::default(),
            reading: GpuReading::empty(index),
        })
    }

    /// Who it is, MIG instances as of the last reading.
    pub(super) fn description(&self) -> &GpuDescription {
        &self.description
    }

    /// Whether events of this device are of this GPU.
    pub(super) fn device(&self) -> &Device<'nvml> {
        &self.device
    }

    /// What the last [`Gpu::read`] brought.
    pub(super) fn latest(&self) -> &GpuReading {
        &self.reading
    }

    /// Asks everything, and says whether the description has changed.
    pub(super) fn read(&mut self) -> Result<bool, NvmlError> {
        self.reading.clear();
        self.calls.begin();
        let slow = self.readings_until_slow == 0;
        let mut changed = false;
        if slow {
            self.readings_until_slow = READINGS_BETWEEN_SLOW;
            self.read_slow()?;
            changed = self.list_instances()?;
        }
        self.readings_until_slow -= 1;
        self.reading.values = self.slow;
        self.read_fields()?;
        self.read_fast()?;
        self.read_profile()?;
        self.read_links()?;
        changed |= self.read_instances()?;
        self.read_processes()?;
        self.reading.errors = self.calls.errors + self.fields.failures + self.link_fields.failures;
        Ok(changed)
    }

    fn read_fast(&mut self) -> Result<(), NvmlError> {
        let Gpu { device, calls, reading, .. } = self;
        let values = &mut reading.values;
        if let Some(utilization) = calls.ask(call::UTILIZATION, || device.utilization_rates())? {
            values.put(Metric::GpuUtil as usize, Some(utilization.gpu.into()));
            values.put(Metric::MemCopyUtil as usize, Some(utilization.memory.into()));
        }
        if let Some(memory) = calls.ask(call::MEMORY, || device.memory_info())? {
            let mebibytes = |bytes: u64| Some((bytes as f64 / MEBIBYTE).round());
            values.put(Metric::FbUsed as usize, mebibytes(memory.used));
            values.put(Metric::FbFree as usize, mebibytes(memory.free));
            values.put(Metric::FbReserved as usize, mebibytes(memory.reserved));
            values.put(Metric::FbTotal as usize, mebibytes(memory.total));
        }
        let temperature = calls.ask(call::TEMPERATURE, || device.temperature(TemperatureSensor::Gpu))?;
        values.put(Metric::GpuTemp as usize, temperature.map(f64::from));
        let power = calls.ask(call::POWER, || device.power_usage())?;
        values.put(Metric::PowerUsage as usize, power.map(|milliwatts| f64::from(milliwatts) / 1_000.0));
        let clocks = [
            (call::SM_CLOCK, Clock::SM, Metric::SmClock),
            (call::MEM_CLOCK, Clock::Memory, Metric::MemClock),
            (call::VIDEO_CLOCK, Clock::Video, Metric::VideoClock),
        ];
        for (number, clock, metric) in clocks {
            let megahertz = calls.ask(number, || device.clock_info(clock))?;
            values.put(metric as usize, megahertz.map(f64::from));
        }
        let encoder = calls.ask(call::ENCODER, || device.encoder_utilization())?;
        values.put(Metric::EncUtil as usize, encoder.map(|encoder| encoder.utilization.into()));
        let decoder = calls.ask(call::DECODER, || device.decoder_utilization())?;
        values.put(Metric::DecUtil as usize, decoder.map(|decoder| decoder.utilization.into()));
        let reasons = calls.ask(call::REASONS, || device.current_throttle_reasons())?;
        values.put(Metric::ClockReasons as usize, reasons.map(|reasons| reasons.bits() as f64));
        let fan = calls.ask(call::FAN, || device.fan_speed(0))?;
        values.put(Metric::FanSpeed as usize, fan.map(f64::from));
        let state = calls.ask(call::STATE, || device.performance_state())?;
        values.put(Metric::PerformanceState as usize, state.map(|state| f64::from(state.as_c())));
        Ok(())
    }

    fn read_fields(&mut self) -> Result<(), NvmlError> {
        let Gpu { nvml, device, calls, fields, reading, .. } = self;
        if calls.ask(call::FIELDS, || fields.read(nvml, device))?.is_none() {
            return Ok(());
        }
        let values = &mut reading.values;
        for (at, (_, metric, factor)) in FIELDS.iter().enumerate() {
            let value = fields.value(at).map(|value| value * factor);
            // Two directions make one sum; one of them alone is not the total.
            let sum = match (*metric as usize, values.get(*metric as usize)) {
                (column, Some(before)) if column == Metric::NvlinkBandwidth as usize => {
                    value.map(|value| value + before)
                }
                _ => value,
            };
            values.put(*metric as usize, sum);
        }
        Ok(())
    }

    /// Busy shares of the parts where the GPU offers them; the PCIe rates of older ones from byte counters,
    /// or, where there are none, from the driver's own measurement, which takes it 20 ms a direction.
    fn read_profile(&mut self) -> Result<(), NvmlError> {
        let Gpu { nvml, device, calls, fields, reading, profile, has_gpm, mig, pcie, .. } = self;
        let nvml: &'nvml Nvml = nvml;
        let values = &mut reading.values;
        if *has_gpm && !*mig {
            calls.ask(call::GPM, || profile.read(nvml, || device.gpm_sample()))?;
            for (metric, value) in profile.of_gpu() {
                values.put(metric as usize, Some(value));
            }
        }
        if *has_gpm {
            return Ok(());
        }
        let (sent, received) = (fields.value(FIELDS.len()), fields.value(FIELDS.len() + 1));
        if let (Some(sent), Some(received)) = (sent, received) {
            if let Some((transmit, receive)) = pcie.rates(sent, received) {
                values.put(Metric::PcieTransmit as usize, Some(transmit));
                values.put(Metric::PcieReceive as usize, Some(receive));
            }
            return Ok(());
        }
        let directions = [
            (call::PCIE_TX, PcieUtilCounter::Send, Metric::PcieTransmit),
            (call::PCIE_RX, PcieUtilCounter::Receive, Metric::PcieReceive),
        ];
        for (number, direction, metric) in directions {
            let kilobytes = calls.ask(number, || device.pcie_throughput(direction))?;
            values.put(metric as usize, kilobytes.map(|kilobytes| f64::from(kilobytes) * KIBIBYTE));
        }
        Ok(())
    }

    fn read_links(&mut self) -> Result<(), NvmlError> {
        let Gpu { nvml, device, calls, link_fields, reading, description, .. } = self;
        if calls.ask(call::LINKS, || link_fields.read(nvml, device))?.is_none() {
            return Ok(());
        }
        for link in 0..description.links.len() {
            let mut values = LinkValues::ABSENT;
            for (at, (_, metric, factor)) in LINK_FIELDS.iter().enumerate() {
                let value = link_fields.value(link * LINK_FIELDS.len() + at).map(|value| value * factor);
                values.put(*metric as usize, value);
            }
            reading.links.push(values);
        }
        Ok(())
    }

    /// What hardly ever changes; shown with every reading, asked for now and then.
    fn read_slow(&mut self) -> Result<(), NvmlError> {
        let Gpu { nvml, device, calls, slow, has_gpm, mig, .. } = self;
        let device: &Device<'nvml> = device;
        *slow = GpuValues::ABSENT;
        let limit = |milliwatts: u32| f64::from(milliwatts) / 1_000.0;
        let mut number = call::SLOW_FIRST;
        let mut ask = |metric: Metric, ask: &dyn Fn() -> Result<f64, NvmlError>| {
            number += 1;
            let value = calls.ask(number, ask)?;
            slow.put(metric as usize, value);
            Ok::<(), NvmlError>(())
        };
        let threshold = |kind| move || device.temperature_threshold(kind).map(f64::from);
        ask(Metric::SlowdownTemp, &threshold(TemperatureThreshold::Slowdown))?;
        ask(Metric::ShutdownTemp, &threshold(TemperatureThreshold::Shutdown))?;
        ask(Metric::PowerLimit, &|| device.power_management_limit().map(limit))?;
        ask(Metric::PowerLimitEnforced, &|| device.enforced_power_limit().map(limit))?;
        ask(Metric::MaxSmClock, &|| device.max_clock_info(Clock::SM).map(f64::from))?;
        ask(Metric::MaxMemClock, &|| device.max_clock_info(Clock::Memory).map(f64::from))?;
        ask(Metric::PcieLinkGen, &|| device.current_pcie_link_gen().map(f64::from))?;
        ask(Metric::PcieLinkWidth, &|| device.current_pcie_link_width().map(f64::from))?;
        ask(Metric::PcieMaxLinkGen, &|| device.max_pcie_link_gen().map(f64::from))?;
        ask(Metric::PcieMaxLinkWidth, &|| device.max_pcie_link_width().map(f64::from))?;
        ask(Metric::Persistence, &|| device.is_in_persistent_mode().map(|on| f64::from(u8::from(on))))?;
        if let Some(bar1) = calls.ask(call::BAR1, || device.bar1_memory_info())? {
            let mebibytes = |bytes: u64| Some((bytes as f64 / MEBIBYTE).round());
            slow.put(Metric::Bar1Total as usize, mebibytes(bar1.total));
            slow.put(Metric::Bar1Used as usize, mebibytes(bar1.used));
            slow.put(Metric::Bar1Free as usize, mebibytes(bar1.free));
        }
        let licensed = calls.ask(call::SLOW_FIRST, || raw::vgpu_licensed(nvml, device))?.flatten();
        slow.put(Metric::VgpuLicense as usize, licensed.map(|licensed| f64::from(u8::from(licensed))));
        let mode = calls.ask(call::MIG, || device.mig_mode())?;
        slow.put(Metric::MigMode as usize, mode.as_ref().map(|mode| mode.current.into()));
        *mig = mode.is_some_and(|mode| mode.current == 1);
        *has_gpm = calls.ask(call::GPM_SUPPORT, || device.gpm_support())?.unwrap_or(false);
        Ok(())
    }

    /// Looks which MIG instances there are; says whether others than before.
    fn list_instances(&mut self) -> Result<bool, NvmlError> {
        let found = if self.mig {
            let (nvml, device) = (self.nvml, &self.device);
            self.calls.ask(call::MIG_LIST, || instances::list(nvml, device))?.unwrap_or_default()
        } else {
            Vec::new()
        };
        let same = found.iter().map(|instance| &instance.description).eq(&self.description.instances);
        if same {
            return Ok(false);
        }
        let descriptions = found.iter().map(|instance| instance.description.clone());
        self.description.instances = descriptions.collect::<Vec<InstanceDescription>>();
        self.instances = found;
        Ok(true)
    }

    fn read_instances(&mut self) -> Result<bool, NvmlError> {
        let mut changed = false;
        // Once more at most: an instance that was destroyed since the last look is an error here.
        for _ in 0..2 {
            self.reading.instances.clear();
            let gpm = self.has_gpm.then_some(call::INSTANCE_GPM);
            let Gpu { nvml, device, calls, reading, instances, .. } = self;
            let outcome = instances.iter_mut().try_for_each(|instance| {
                reading.instances.push(instance.read(nvml, device, gpm, calls)?);
                Ok::<(), NvmlError>(())
            });
            match outcome {
                Ok(()) => return Ok(changed),
                Err(_) => {
                    self.reading.instances.clear();
                    changed |= self.list_instances()?;
                }
            }
        }
        Ok(changed)
    }

    fn read_processes(&mut self) -> Result<(), NvmlError> {
        let Gpu { device, calls, reading, seen_process_util, .. } = self;
        let compute = calls.ask(call::COMPUTE, || device.running_compute_processes())?.unwrap_or_default();
        let mps = calls.ask(call::MPS, || device.mps_running_compute_processes())?.unwrap_or_default();
        let both = compute.into_iter().map(|process| (process, false));
        for (process, is_mps) in both.chain(mps.into_iter().map(|process| (process, true))) {
            if let Some(known) = reading.processes.iter_mut().find(|known| known.pid == process.pid) {
                known.mps |= is_mps;
                continue;
            }
            if reading.processes.len() >= PROCESSES_MAX {
                break;
            }
            let memory_bytes = match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => bytes as f64,
                UsedGpuMemory::Unavailable => f64::NAN,
            };
            let gpu_instance = process.gpu_instance_id.unwrap_or(u32::MAX);
            let (pid, sm_util) = (process.pid, f64::NAN);
            reading.processes.push(ProcessReading { pid, memory_bytes, sm_util, gpu_instance, mps: is_mps });
        }
        if reading.processes.is_empty() {
            return Ok(());
        }
        let since = *seen_process_util;
        let samples = calls.ask(call::PROCESS_UTIL, || device.process_utilization_stats(since))?;
        for sample in samples.unwrap_or_default() {
            *seen_process_util = (*seen_process_util).max(sample.timestamp);
            if let Some(process) = reading.processes.iter_mut().find(|process| process.pid == sample.pid) {
                process.sm_util = sample.sm_util.into();
            }
        }
        Ok(())
    }
}

/// Rates from the two byte counters of PCIe.
#[derive(Debug, Default)]
struct PcieBytes {
    last: Option<(f64, f64, Instant)>,
}

impl PcieBytes {
    fn rates(&mut self, sent: f64, received: f64) -> Option<(f64, f64)> {
        let now = Instant::now();
        let (last_sent, last_received, then) = self.last.replace((sent, received, now))?;
        let seconds = now.duration_since(then).as_secs_f64();
        let rate = |now: f64, then: f64| (now - then) / seconds;
        (seconds > 0.0 && sent >= last_sent && received >= last_received)
            .then(|| (rate(sent, last_sent), rate(received, last_received)))
    }
}

fn describe(device: &Device<'_>, index: u32) -> Result<GpuDescription, NvmlError> {
    let mut details = Vec::new();
    let mut detail = |name: &str, value: Result<String, NvmlError>| {
        // A board without a serial number is a board all the same.
        if let Ok(value) = value
            && !value.is_empty()
        {
            details.push((name.to_owned(), value));
        }
    };
    detail("DCGM_FI_DEV_BRAND", device.brand().map(|brand| format!("{brand:?}")));
    detail("DCGM_FI_DEV_SERIAL", device.serial());
    detail("DCGM_FI_DEV_OEM_INFOROM_VER", device.info_rom_version(InfoRom::OEM));
    detail("DCGM_FI_DEV_ECC_INFOROM_VER", device.info_rom_version(InfoRom::ECC));
    detail("DCGM_FI_DEV_POWER_INFOROM_VER", device.info_rom_version(InfoRom::Power));
    detail("DCGM_FI_DEV_INFOROM_IMAGE_VER", device.info_rom_image_version());
    detail("DCGM_FI_DEV_VBIOS_VERSION", device.vbios_version());
    let mut links = Vec::new();
    for link in 0..LINKS_MAX as u32 {
        // The first link that the GPU does not have ends the list; one that is down is listed.
        let mut asked = Calls::default();
        match asked.ask(0, || device.link_wrapper_for(link).is_active())? {
            Some(_) => links.push(link),
            None => break,
        }
    }
    Ok(GpuDescription {
        index,
        minor: device.minor_number().unwrap_or(index),
        uuid: device.uuid()?,
        pci_bus_id: device.pci_info()?.bus_id,
        model: device.name()?,
        details,
        instances: Vec::new(),
        links,
    })
}
