//! Frequencies, governors and idle states.

use bmslice_model::CpuSet;
use serde::{Deserialize, Serialize};

/// How the CPUs are clocked and how deep they sleep.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PowerFacts {
    /// Whether CPUs may run above their base frequency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boost: Option<bool>,
    /// CPUs that are clocked alike, by lowest CPU.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frequencies: Vec<Frequencies>,
    /// Idle states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<IdleFacts>,
}

impl PowerFacts {
    /// Whether the server told nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// CPUs with the same limits and policy. Frequencies are in kHz.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Frequencies {
    /// The CPUs, online ones.
    pub cpus: CpuSet,
    /// `scaling_driver`: `intel_pstate`, `acpi-cpufreq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// `scaling_governor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
    /// `energy_performance_preference`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<String>,
    /// `cpuinfo_min_freq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u64>,
    /// `cpuinfo_max_freq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// `base_frequency`: what it can hold with every core busy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
}

/// What CPUs do when they have nothing to do, as the first online CPU tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdleFacts {
    /// `intel_idle`, `acpi_idle`, `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// `menu`, `teo`, `haltpoll`, `ladder`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
    /// The states, shallowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<IdleState>,
}

impl IdleFacts {
    /// The deepest state that is not disabled.
    #[must_use]
    pub fn deepest(&self) -> Option<&IdleState> {
        self.states.iter().rev().find(|state| !state.disabled)
    }
}

/// An idle state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdleState {
    /// `POLL`, `C1`, `C6`.
    pub name: String,
    /// How long waking takes, in microseconds.
    pub latency: u64,
    /// Whether it was turned off (for that CPU).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}
