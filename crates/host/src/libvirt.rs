//! libvirt's QEMU driver through its own library.
//!
//! Takes a connection URI; gives [`Hypervisor`]. Keeps true: what libvirt said is in the error, not
//! on stderr, and a connection is closed when it is dropped.

mod lazy;
mod pins;

use std::path::Path;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::ErrorNumber;
use virt::nodedev::NodeDevice;
use virt::sys;

use crate::machine::{DomainPins, DomainState, HostError, Hypervisor, Version};

/// Where the daemons of libvirt listen: the one for all drivers, and the one for QEMU.
const SOCKETS: [&str; 2] = ["/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"];

/// A connection to libvirt.
pub struct LibvirtConnection {
    connect: Connect,
}

impl LibvirtConnection {
    /// Connects: `qemu:///system`, or `test:///default` for libvirt's own test driver.
    ///
    /// # Errors
    /// [`HostError::Hypervisor`] when the daemon does not answer or refuses.
    pub fn open(uri: &str) -> Result<Self, HostError> {
        let action = || format!("connect to `{uri}`");
        let unreachable = |message: String| HostError::Hypervisor {
            action: action(),
            message,
        };
        // Where the system's daemon has no socket nobody answers, and the library need not be
        // loaded to know it.
        if uri == "qemu:///system" && !SOCKETS.iter().any(|path| Path::new(path).exists()) {
            return Err(unreachable(format!(
                "its daemon does not run: neither {} is there",
                SOCKETS.join(" nor ")
            )));
        }
        lazy::load().map_err(unreachable)?;
        // libvirt's default handler prints every error to stderr before the caller sees it.
        virt::error::clear_error_callback();
        let connect = Connect::open(Some(text(uri, action)?)).map_err(failed(action))?;
        Ok(Self { connect })
    }

    fn domain(&self, name: &str, action: impl Fn() -> String) -> Result<Domain, HostError> {
        Domain::lookup_by_name(&self.connect, text(name, &action)?).map_err(failed(action))
    }
}

impl Drop for LibvirtConnection {
    fn drop(&mut self) {
        // Nothing is lost with a connection that was already gone.
        let _ = self.connect.close();
    }
}

/// libvirt takes C strings: one with a NUL inside is no name or document.
fn text(text: &str, action: impl Fn() -> String) -> Result<&str, HostError> {
    if text.contains('\0') {
        return Err(HostError::Hypervisor {
            action: action(),
            message: "the text has a NUL character in it".into(),
        });
    }
    Ok(text)
}

fn failed(action: impl Fn() -> String) -> impl Fn(virt::error::Error) -> HostError {
    move |error| HostError::Hypervisor {
        action: action(),
        message: error.message().to_owned(),
    }
}

fn version(number: u32) -> Version {
    (number / 1_000_000, number / 1_000 % 1_000, number % 1_000)
}

impl Hypervisor for LibvirtConnection {
    fn versions(&self) -> Result<(Version, Option<Version>), HostError> {
        let libvirt = self
            .connect
            .get_lib_version()
            .map_err(failed(|| "tell its version".into()))?;
        // Fails, or is 0, while no usable emulator is installed.
        let emulator = self.connect.get_hyp_version().ok().filter(|&v| v != 0);
        Ok((version(libvirt), emulator.map(version)))
    }

    fn capabilities(&self) -> Result<String, HostError> {
        self.connect
            .get_capabilities()
            .map_err(failed(|| "tell its capabilities".into()))
    }

    fn domains(&self) -> Result<Vec<DomainState>, HostError> {
        let action = || "list the domains".to_owned();
        let mut domains = Vec::new();
        for domain in self.connect.list_all_domains(0).map_err(failed(action))? {
            let uuid = domain.get_uuid_string().map_err(failed(action))?;
            let persistent = match domain.is_persistent() {
                Ok(persistent) => persistent,
                // It ended between the list and the question.
                Err(error) if error.code() == ErrorNumber::NoDomain => continue,
                Err(error) => return Err(failed(action)(error)),
            };
            domains.push(DomainState {
                name: domain.get_name().map_err(failed(action))?,
                uuid: uuid.to_lowercase(),
                running: domain.is_active().map_err(failed(action))?,
                persistent,
                // Only what is kept can start by itself; libvirt answers others with an error.
                autostart: persistent && domain.get_autostart().map_err(failed(action))?,
            });
        }
        domains.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(domains)
    }

    fn xml(&self, name: &str, inactive: bool) -> Result<String, HostError> {
        let action = || format!("describe the domain `{name}`");
        let flags = if inactive {
            sys::VIR_DOMAIN_XML_INACTIVE
        } else {
            0
        };
        self.domain(name, action)?
            .get_xml_desc(flags)
            .map_err(failed(action))
    }

    fn pins(&self, name: &str) -> Result<DomainPins, HostError> {
        let action = || format!("tell the pins of the domain `{name}`");
        pins::read(&self.connect, &self.domain(name, action)?).map_err(failed(action))
    }

    fn define(&self, xml: &str) -> Result<(), HostError> {
        let action = || "define the domain".to_owned();
        Domain::define_xml_flags(
            &self.connect,
            text(xml, action)?,
            sys::VIR_DOMAIN_DEFINE_VALIDATE,
        )
        .map(drop)
        .map_err(failed(action))
    }

    fn undefine(&self, name: &str) -> Result<(), HostError> {
        let action = || format!("undefine the domain `{name}`");
        let known_to_all =
            sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
        let all = known_to_all
            | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_NVRAM;
        let domain = self.domain(name, action)?;
        match domain.undefine_flags(all) {
            // A driver that does not know a flag keeps nothing of that kind.
            Err(error) if error.code() == ErrorNumber::InvalidArg => {
                domain.undefine_flags(known_to_all)
            }
            answer => answer,
        }
        .map_err(failed(action))
    }

    fn start(&self, name: &str) -> Result<(), HostError> {
        let action = || format!("start the domain `{name}`");
        self.domain(name, action)?
            .create()
            .map(drop)
            .map_err(failed(action))
    }

    fn shutdown(&self, name: &str) -> Result<(), HostError> {
        let action = || format!("shut the domain `{name}` down");
        // Without flags libvirt asks the agent when it is connected, and ACPI when that fails.
        self.domain(name, action)?
            .shutdown()
            .map(drop)
            .map_err(failed(action))
    }

    fn destroy(&self, name: &str) -> Result<(), HostError> {
        let action = || format!("stop the domain `{name}`");
        self.domain(name, action)?.destroy().map_err(failed(action))
    }

    fn set_autostart(&self, name: &str, on: bool) -> Result<(), HostError> {
        let action = || format!("set the autostart of the domain `{name}`");
        self.domain(name, action)?
            .set_autostart(on)
            .map(drop)
            .map_err(failed(action))
    }

    fn reattach(&self, nodedev: &str) -> Result<(), HostError> {
        let action = || format!("give the device `{nodedev}` back to the host");
        NodeDevice::lookup_by_name(&self.connect, text(nodedev, action)?)
            .map_err(failed(action))?
            .reattach()
            .map(drop)
            .map_err(failed(action))
    }
}
