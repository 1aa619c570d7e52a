//! Parsers of what the kernel, QEMU, libvirt and `ip` write. Text in, typed facts out; none panics
//! on any text.

pub(crate) mod cmdline;
pub(crate) mod domain_xml;
pub(crate) mod numa_maps;
pub(crate) mod task;
pub(crate) mod vfinfo;
