//! A plan: parts that hold together, read from a file and written as one.
//!
//! Keeps true: what [`Plan`] says; nothing in a file is passed over.

use std::collections::BTreeSet;

use bmslice_model::{CpuId, CpuSet, PciAddress, SliceName, TenantName};
use serde_json::Value;
use thiserror::Error;

use crate::document::{FORMAT, HostPlan, NicPlan, PlanParts, SlicePlan};

/// Why something is not a plan.
#[derive(Debug, Error)]
pub enum PlanFileError {
    /// Not JSON, or not of this form.
    #[error("this is not a plan file: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A field that plans do not have, where the form itself would not notice it.
    #[error("the plan has a field `{0}`, which this bmslice does not know")]
    Unknown(String),
    /// Of another version.
    #[error("the plan has format `{found}`; this bmslice reads `{FORMAT}`")]
    Format {
        /// What it says it is.
        found: String,
    },
    /// Two owners of one CPU.
    #[error("in the plan, CPUs {cpus} belong to {first} and to {second}")]
    Shared {
        /// Which.
        cpus: CpuSet,
        /// One owner.
        first: String,
        /// The other.
        second: String,
    },
    /// Two slices of one name.
    #[error("the plan has two slices named `{0}`")]
    Duplicate(SliceName),
    /// vCPU numbers with holes, or a vCPU in no cell.
    #[error("in the plan, the vCPUs of slice `{0}` are not numbered 0, 1, 2, …")]
    Numbering(SliceName),
    /// A sibling that is said to be another slice's, and is not.
    #[error(
        "in the plan, slice `{slice}` has a vCPU beside CPU {cpu} on a core, which is not an odd vCPU of another slice of tenant `{tenant}` that says the same"
    )]
    Sibling {
        /// Which slice.
        slice: SliceName,
        /// Its tenant.
        tenant: TenantName,
        /// The sibling.
        cpu: CpuId,
    },
    /// Two cards on one function.
    #[error("in the plan, PCI function {0} is given twice")]
    Device(PciAddress),
}

/// A plan, all of whose invariants hold: every CPU has at most one owner, names and devices are
/// given once, vCPUs are numbered without holes, and who runs beside another slice's vCPU is of its
/// tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(PlanParts);

/// Of a text that is not a plan of this format: that it is one of another.
fn other_format(text: &str) -> Option<PlanFileError> {
    let value: Value = serde_json::from_str(text).ok()?;
    let found = value.get("format")?.as_str()?;
    (found != FORMAT).then(|| PlanFileError::Format {
        found: found.to_owned(),
    })
}

/// The path of the first field with a value that the second lacks: `slices[0].nics[0].vlna`.
fn lost(read: &Value, kept: &Value) -> Option<String> {
    match (read, kept) {
        (Value::Object(read), Value::Object(kept)) => read.iter().find_map(|(key, value)| {
            let deeper = match kept.get(key) {
                Some(kept) => lost(value, kept)?,
                None if value.is_null() || value.as_array().is_some_and(Vec::is_empty) => {
                    return None;
                }
                None => String::new(),
            };
            let dot = if deeper.is_empty() || deeper.starts_with('[') {
                ""
            } else {
                "."
            };
            Some(format!("{key}{dot}{deeper}"))
        }),
        (Value::Array(read), Value::Array(kept)) => {
            read.iter()
                .zip(kept)
                .enumerate()
                .find_map(|(i, (read, kept))| {
                    let deeper = lost(read, kept)?;
                    let dot = if deeper.starts_with('[') { "" } else { "." };
                    Some(format!("[{i}]{dot}{deeper}"))
                })
        }
        _ => None,
    }
}

/// Whether those that share a core say so of each other, and are of one tenant.
fn siblings(slices: &[SlicePlan]) -> Result<(), PlanFileError> {
    for (at, slice) in slices.iter().enumerate() {
        for cpu in slice.shared_siblings.iter() {
            let shared = |a: &SlicePlan, b: &SlicePlan| {
                let beside = a.shared_siblings.intersection(&b.vcpu_cpus());
                beside.len()
            };
            let mutual = slices.iter().enumerate().any(|(other, beside)| {
                other != at
                    && beside.tenant == slice.tenant
                    && beside.vcpus.contains(&cpu)
                    && shared(slice, beside) == shared(beside, slice)
            });
            if !mutual {
                return Err(PlanFileError::Sibling {
                    slice: slice.name.clone(),
                    tenant: slice.tenant.clone(),
                    cpu,
                });
            }
        }
    }
    Ok(())
}

impl Plan {
    /// A plan of these parts.
    ///
    /// # Errors
    /// [`PlanFileError`], when an invariant does not hold.
    pub fn new(parts: PlanParts) -> Result<Self, PlanFileError> {
        if parts.format != FORMAT {
            return Err(PlanFileError::Format {
                found: parts.format,
            });
        }
        let mut names = BTreeSet::new();
        let mut devices = BTreeSet::new();
        let mut owners: Vec<(String, CpuSet)> = vec![
            ("the host".into(), parts.host.cpus.clone()),
            ("nobody".into(), parts.host.free.clone()),
        ];
        for slice in &parts.slices {
            if !names.insert(&slice.name) {
                return Err(PlanFileError::Duplicate(slice.name.clone()));
            }
            for function in slice.nics.iter().flat_map(NicPlan::functions) {
                if !devices.insert(function) {
                    return Err(PlanFileError::Device(function));
                }
            }
            let name = &slice.name;
            // A duplicate inside one slice would vanish in a set: compare the counts.
            if slice.vcpu_cpus().len() != slice.vcpus.len() {
                return Err(PlanFileError::Shared {
                    cpus: slice.vcpu_cpus(),
                    first: format!("a vCPU of `{name}`"),
                    second: "another one of its vCPUs".into(),
                });
            }
            let mut numbered: Vec<u32> = slice
                .cells
                .iter()
                .flat_map(|cell| cell.vcpus.iter())
                .map(CpuId::number)
                .collect();
            numbered.sort_unstable();
            let wanted = 0..u32::try_from(slice.vcpus.len()).unwrap_or(u32::MAX);
            if numbered.is_empty() || !numbered.into_iter().eq(wanted) {
                return Err(PlanFileError::Numbering(name.clone()));
            }
            owners.push((format!("the vCPUs of `{name}`"), slice.vcpu_cpus()));
            owners.push((format!("the idle siblings of `{name}`"), slice.idle.clone()));
            if slice.pool_is_shared {
                // One and the same pool of one tenant is one owner.
                let owner = (
                    format!("the pool of tenant `{}`", slice.tenant),
                    slice.pool(),
                );
                if !owners.contains(&owner) {
                    owners.push(owner);
                }
            } else if !slice.pool_is_host {
                owners.push((
                    format!("the emulator and IOThreads of `{name}`"),
                    slice.pool(),
                ));
            }
        }
        for (i, (first, a)) in owners.iter().enumerate() {
            if let Some((second, b)) = owners[i + 1..].iter().find(|(_, b)| !a.is_disjoint(b)) {
                return Err(PlanFileError::Shared {
                    cpus: a.intersection(b),
                    first: first.clone(),
                    second: second.clone(),
                });
            }
        }
        siblings(&parts.slices)?;
        Ok(Self(parts))
    }

    /// Reads a plan file.
    ///
    /// # Errors
    /// [`PlanFileError`].
    pub fn parse(text: &str) -> Result<Self, PlanFileError> {
        let parts: PlanParts = match serde_json::from_str(text) {
            Ok(parts) => parts,
            Err(error) => return Err(other_format(text).unwrap_or(error.into())),
        };
        let plan = Self::new(parts)?;
        // Cards are variants with common fields, of which serde cannot refuse unknown ones: what
        // was read and would not be written again was not understood.
        let (read, kept) = (serde_json::from_str(text)?, serde_json::to_value(&plan.0)?);
        match lost(&read, &kept) {
            Some(path) => Err(PlanFileError::Unknown(path)),
            None => Ok(plan),
        }
    }

    /// The bytes of the plan file: the same for the same plan.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Every map in it has text keys and every number is finite, so this cannot fail.
        let mut text = serde_json::to_string_pretty(&self.0).unwrap_or_default();
        text.push('\n');
        text
    }

    /// `sha256:…` of the plan file's bytes.
    #[must_use]
    pub fn digest(&self) -> String {
        crate::fingerprint::sha256(self.to_json().as_bytes())
    }

    /// What is done to the host.
    #[must_use]
    pub fn host(&self) -> &HostPlan {
        &self.0.host
    }

    /// The slices.
    #[must_use]
    pub fn slices(&self) -> &[SlicePlan] {
        &self.0.slices
    }

    /// A slice by its name.
    #[must_use]
    pub fn slice(&self, name: &str) -> Option<&SlicePlan> {
        self.0
            .slices
            .iter()
            .find(|slice| slice.name.as_str() == name)
    }

    /// All of it.
    #[must_use]
    pub fn parts(&self) -> &PlanParts {
        &self.0
    }

    /// All of it, to be changed and made anew.
    #[must_use]
    pub fn into_parts(self) -> PlanParts {
        self.0
    }
}
