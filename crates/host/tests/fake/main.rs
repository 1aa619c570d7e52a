//! The fake reacts as what it stands for. What the kernel and libvirt answer in these tests was
//! seen on Linux 6.12 with igb cards and on libvirt 9.0.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails where it stands"
)]

mod bls;
mod boot;
mod faults;
mod kernel;
mod libvirt;
mod ostree;
mod programs;

use std::path::Path;

use bmslice_host::fake::{FakeMachine, FakeServer};
use bmslice_host::{Command, HostError, Machine, Output};
use bmslice_model::PciAddress;

/// The lab's server with the IOMMU on and two 1 GiB pages on each node.
fn server() -> FakeServer {
    FakeServer {
        cmdline: "intel_iommu=on iommu=pt hugepagesz=1G hugepages=0:2,1:2".into(),
        ..FakeServer::lab()
    }
}

fn address(text: &str) -> PciAddress {
    text.parse().unwrap()
}

fn run(fake: &FakeMachine, program: &str, args: &[&str]) -> Result<Output, HostError> {
    fake.run(&Command::new(program, args.iter().copied()))
}

/// Writes an attribute; the errno's text when the kernel refuses.
fn write(fake: &FakeMachine, path: &str, value: &str) -> Result<(), String> {
    fake.write_attribute(Path::new(path), value)
        .map_err(|error| {
            let text = error.to_string();
            let (_, errno) = text.rsplit_once(": ").unwrap();
            errno.split(" (os").next().unwrap().to_owned()
        })
}

fn read(fake: &FakeMachine, path: &str) -> String {
    fake.root()
        .attribute(path)
        .unwrap_or_else(|| panic!("{path} is not there"))
}
