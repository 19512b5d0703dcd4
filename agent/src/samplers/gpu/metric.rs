//! What is measured of a GPU, a MIG instance and an NVLink: one list each, in the order of the columns.
//!
//! The driver's reader fills arrays in this order, the wire carries them in this order, and the groups have
//! their columns in this order, so nobody looks a name up while sampling. Names are DCGM's where DCGM has
//! one; `proto/metrics.toml` holds types, units and help.

/// Declares an enum of columns and the names of their metrics.
macro_rules! metrics {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $metric:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the catalogue of metrics says what each is")]
        pub enum $name { $($variant,)* }

        impl $name {
            /// The metrics' names, in column order.
            pub const NAMES: &'static [&'static str] = &[$($metric,)*];
            /// How many there are.
            pub const COUNT: usize = Self::NAMES.len();

            /// The metric of that name.
            pub fn find(name: &str) -> Option<Self> {
                match name {
                    $($metric => Some($name::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

metrics! {
    /// Columns of a whole GPU.
    Metric {
        SmClock = "DCGM_FI_DEV_SM_CLOCK",
        MemClock = "DCGM_FI_DEV_MEM_CLOCK",
        VideoClock = "DCGM_FI_DEV_VIDEO_CLOCK",
        MaxSmClock = "DCGM_FI_DEV_MAX_SM_CLOCK",
        MaxMemClock = "DCGM_FI_DEV_MAX_MEM_CLOCK",
        MemoryTemp = "DCGM_FI_DEV_MEMORY_TEMP",
        GpuTemp = "DCGM_FI_DEV_GPU_TEMP",
        SlowdownTemp = "DCGM_FI_DEV_SLOWDOWN_TEMP",
        ShutdownTemp = "DCGM_FI_DEV_SHUTDOWN_TEMP",
        FanSpeed = "DCGM_FI_DEV_FAN_SPEED",
        PowerUsage = "DCGM_FI_DEV_POWER_USAGE",
        PowerUsageInstant = "DCGM_FI_DEV_POWER_USAGE_INSTANT",
        PowerLimit = "DCGM_FI_DEV_POWER_MGMT_LIMIT",
        PowerLimitEnforced = "DCGM_FI_DEV_ENFORCED_POWER_LIMIT",
        Energy = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        PcieReplay = "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
        PcieLinkGen = "DCGM_FI_DEV_PCIE_LINK_GEN",
        PcieLinkWidth = "DCGM_FI_DEV_PCIE_LINK_WIDTH",
        PcieMaxLinkGen = "DCGM_FI_DEV_PCIE_MAX_LINK_GEN",
        PcieMaxLinkWidth = "DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH",
        GpuUtil = "DCGM_FI_DEV_GPU_UTIL",
        MemCopyUtil = "DCGM_FI_DEV_MEM_COPY_UTIL",
        EncUtil = "DCGM_FI_DEV_ENC_UTIL",
        DecUtil = "DCGM_FI_DEV_DEC_UTIL",
        PowerViolation = "DCGM_FI_DEV_POWER_VIOLATION",
        ThermalViolation = "DCGM_FI_DEV_THERMAL_VIOLATION",
        SyncBoostViolation = "DCGM_FI_DEV_SYNC_BOOST_VIOLATION",
        BoardLimitViolation = "DCGM_FI_DEV_BOARD_LIMIT_VIOLATION",
        LowUtilViolation = "DCGM_FI_DEV_LOW_UTIL_VIOLATION",
        ReliabilityViolation = "DCGM_FI_DEV_RELIABILITY_VIOLATION",
        ClockReasons = "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS",
        FbFree = "DCGM_FI_DEV_FB_FREE",
        FbUsed = "DCGM_FI_DEV_FB_USED",
        FbReserved = "DCGM_FI_DEV_FB_RESERVED",
        FbTotal = "DCGM_FI_DEV_FB_TOTAL",
        Bar1Total = "DCGM_FI_DEV_BAR1_TOTAL",
        Bar1Used = "DCGM_FI_DEV_BAR1_USED",
        Bar1Free = "DCGM_FI_DEV_BAR1_FREE",
        EccSbeVolatile = "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",
        EccDbeVolatile = "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
        EccSbeAggregate = "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL",
        EccDbeAggregate = "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL",
        RetiredSbe = "DCGM_FI_DEV_RETIRED_SBE",
        RetiredDbe = "DCGM_FI_DEV_RETIRED_DBE",
        RetiredPending = "DCGM_FI_DEV_RETIRED_PENDING",
        RemappedUncorrectable = "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        RemappedCorrectable = "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        RemapPending = "DCGM_FI_DEV_ROW_REMAP_PENDING",
        RemapFailure = "DCGM_FI_DEV_ROW_REMAP_FAILURE",
        NvlinkCrcFlit = "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
        NvlinkCrcData = "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL",
        NvlinkReplay = "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL",
        NvlinkRecovery = "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL",
        NvlinkBandwidth = "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
        VgpuLicense = "DCGM_FI_DEV_VGPU_LICENSE_STATUS",
        Persistence = "DCGM_FI_DEV_PERSISTENCE_MODE",
        PerformanceState = "DCGM_FI_DEV_PSTATE",
        MigMode = "DCGM_FI_DEV_MIG_MODE",
        GraphicsActive = "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
        SmActive = "DCGM_FI_PROF_SM_ACTIVE",
        SmOccupancy = "DCGM_FI_PROF_SM_OCCUPANCY",
        TensorActive = "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
        DramActive = "DCGM_FI_PROF_DRAM_ACTIVE",
        Fp64Active = "DCGM_FI_PROF_PIPE_FP64_ACTIVE",
        Fp32Active = "DCGM_FI_PROF_PIPE_FP32_ACTIVE",
        Fp16Active = "DCGM_FI_PROF_PIPE_FP16_ACTIVE",
        PcieTransmit = "DCGM_FI_PROF_PCIE_TX_BYTES",
        PcieReceive = "DCGM_FI_PROF_PCIE_RX_BYTES",
    }
}

metrics! {
    /// Columns of a MIG instance.
    InstanceMetric {
        FbFree = "DCGM_FI_DEV_FB_FREE",
        FbUsed = "DCGM_FI_DEV_FB_USED",
        FbReserved = "DCGM_FI_DEV_FB_RESERVED",
        FbTotal = "DCGM_FI_DEV_FB_TOTAL",
        GraphicsActive = "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
        SmActive = "DCGM_FI_PROF_SM_ACTIVE",
        SmOccupancy = "DCGM_FI_PROF_SM_OCCUPANCY",
        TensorActive = "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
        DramActive = "DCGM_FI_PROF_DRAM_ACTIVE",
        Fp64Active = "DCGM_FI_PROF_PIPE_FP64_ACTIVE",
        Fp32Active = "DCGM_FI_PROF_PIPE_FP32_ACTIVE",
        Fp16Active = "DCGM_FI_PROF_PIPE_FP16_ACTIVE",
    }
}

metrics! {
    /// Columns of one NVLink.
    LinkMetric {
        Up = "pharos_gpu_nvlink_up",
        Transmitted = "pharos_gpu_nvlink_transmitted_bytes_total",
        Received = "pharos_gpu_nvlink_received_bytes_total",
        Replay = "pharos_gpu_nvlink_replay_errors_total",
        Recovery = "pharos_gpu_nvlink_recovery_errors_total",
        Crc = "pharos_gpu_nvlink_crc_errors_total",
    }
}

/// Values of one object, in column order; what is not known is NaN, which no driver reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Values<const COUNT: usize>(pub [f64; COUNT]);

impl<const COUNT: usize> Values<COUNT> {
    /// Nothing known.
    pub const ABSENT: Self = Values([f64::NAN; COUNT]);

    /// Stores a value if there is one.
    #[inline]
    pub fn put(&mut self, column: usize, value: Option<f64>) {
        if let (Some(place), Some(value)) = (self.0.get_mut(column), value) {
            *place = value;
        }
    }

    /// The value of a column, if it is known.
    #[inline]
    pub fn get(&self, column: usize) -> Option<f64> {
        self.0.get(column).copied().filter(|value| !value.is_nan())
    }

    /// What is known, with its column.
    pub fn known(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        self.0.iter().copied().enumerate().filter(|(_, value)| !value.is_nan())
    }
}

/// Values of a whole GPU.
pub type GpuValues = Values<{ Metric::COUNT }>;
/// Values of a MIG instance.
pub type InstanceValues = Values<{ InstanceMetric::COUNT }>;
/// Values of one NVLink.
pub type LinkValues = Values<{ LinkMetric::COUNT }>;
