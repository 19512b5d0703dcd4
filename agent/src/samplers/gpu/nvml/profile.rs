//! GPM, the profiling counters of Hopper and later: how busy which part of a GPU was between two samples.

use super::super::metric::{InstanceMetric, Metric};
use nvml_wrapper::Nvml;
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::gpm::{GpmSample, gpm_metrics_get};
use std::time::{Duration, Instant};

/// The driver refreshes its counters ten times a second; faster reads return zeros or the same again.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Values this old are not shown again while the next pair of samples is too young.
const AGE_MAX: Duration = Duration::from_millis(200);
/// Divides: a hundredth has no exact factor, and a power of two has.
const PERCENT: f64 = 100.0;
const MEBIBYTES: f64 = 1.0 / 1_048_576.0;

/// What is asked for, its column in a GPU and in a MIG instance, and the divisor to DCGM's unit.
const METRICS: [(GpmMetricId, Metric, Option<InstanceMetric>, f64); 10] = [
    (GpmMetricId::GraphicsUtil, Metric::GraphicsActive, Some(InstanceMetric::GraphicsActive), PERCENT),
    (GpmMetricId::SmUtil, Metric::SmActive, Some(InstanceMetric::SmActive), PERCENT),
    (GpmMetricId::SmOccupancy, Metric::SmOccupancy, Some(InstanceMetric::SmOccupancy), PERCENT),
    (GpmMetricId::AnyTensorUtil, Metric::TensorActive, Some(InstanceMetric::TensorActive), PERCENT),
    (GpmMetricId::DramBwUtil, Metric::DramActive, Some(InstanceMetric::DramActive), PERCENT),
    (GpmMetricId::Fp64Util, Metric::Fp64Active, Some(InstanceMetric::Fp64Active), PERCENT),
    (GpmMetricId::Fp32Util, Metric::Fp32Active, Some(InstanceMetric::Fp32Active), PERCENT),
    (GpmMetricId::Fp16Util, Metric::Fp16Active, Some(InstanceMetric::Fp16Active), PERCENT),
    (GpmMetricId::PcieTxPerSec, Metric::PcieTransmit, None, MEBIBYTES),
    (GpmMetricId::PcieRxPerSec, Metric::PcieReceive, None, MEBIBYTES),
];
const IDS: [GpmMetricId; METRICS.len()] = {
    let mut ids = [GpmMetricId::GraphicsUtil; METRICS.len()];
    let mut at = 0;
    while at < METRICS.len() {
        ids[at] = METRICS[at].0;
        at += 1;
    }
    ids
};

/// The last sample of a GPU or a MIG instance, and what the last two said.
#[derive(Debug, Default)]
pub(super) struct Profile<'nvml> {
    last: Option<(GpmSample<'nvml>, Instant)>,
    values: [Option<f64>; METRICS.len()],
    taken: Option<Instant>,
}

impl<'nvml> Profile<'nvml> {
    /// Takes a sample if the last is old enough, and says what lies between the two.
    pub(super) fn read(
        &mut self,
        nvml: &'nvml Nvml,
        sample: impl FnOnce() -> Result<GpmSample<'nvml>, NvmlError>,
    ) -> Result<(), NvmlError> {
        let now = Instant::now();
        if let Some((_, then)) = &self.last
            && now.duration_since(*then) < INTERVAL_MIN
        {
            if self.taken.is_none_or(|taken| now.duration_since(taken) > AGE_MAX) {
                self.values = [None; METRICS.len()];
            }
            return Ok(());
        }
        self.values = [None; METRICS.len()];
        let sample = sample()?;
        if let Some((last, _)) = self.last.replace((sample, now))
            && let Some((sample, _)) = &self.last
        {
            let results = gpm_metrics_get(nvml, &last, sample, &IDS)?;
            for (place, (result, metric)) in self.values.iter_mut().zip(results.into_iter().zip(&METRICS)) {
                // A counter that wrapped or was not ready is reported as a negative or a nonsense share.
                let value = result.ok().map(|result| result.value / metric.3);
                *place = value.filter(|value| value.is_finite() && *value >= 0.0);
            }
            self.taken = Some(now);
        }
        Ok(())
    }

    /// The values, for a whole GPU.
    pub(super) fn of_gpu(&self) -> impl Iterator<Item = (Metric, f64)> + '_ {
        METRICS.iter().zip(self.values).filter_map(|(metric, value)| Some((metric.1, value?)))
    }

    /// The values, for a MIG instance.
    pub(super) fn of_instance(&self) -> impl Iterator<Item = (InstanceMetric, f64)> + '_ {
        METRICS.iter().zip(self.values).filter_map(|(metric, value)| Some((metric.2?, value?)))
    }
}
