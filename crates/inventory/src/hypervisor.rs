//! KVM as the kernel shows it. libvirt's part comes from the caller (see [`Probes`](crate::Probes)).
//!
//! Source: `Documentation/virt/kvm/`, module parameters under `/sys/module`.

use crate::facts::HypervisorFacts;
use crate::scan::Scan;

/// Reads the device, the module and whether it nests.
pub(crate) fn read(scan: &Scan) -> HypervisorFacts {
    let module = ["kvm_intel", "kvm_amd"]
        .into_iter()
        .find(|name| scan.root.exists(format!("/sys/module/{name}")));
    HypervisorFacts {
        kvm_device: scan.root.exists("/dev/kvm"),
        kvm_module: module.map(Into::into),
        nested: module.and_then(|name| scan.flag(&format!("/sys/module/{name}/parameters/nested"))),
        ..HypervisorFacts::default()
    }
}
