//! The pins of a running domain: the three libvirt calls that the `virt` crate does not wrap.
//!
//! Takes an open connection and a domain; gives the sets that libvirt has in force
//! (`VIR_DOMAIN_AFFECT_LIVE`). Every block with `unsafe` lends libvirt
//! buffers of the lengths it is told, or gives back what libvirt allocated exactly once.
#![allow(
    unsafe_code,
    reason = "virDomainGetVcpuPinInfo, virDomainGetEmulatorPinInfo and virDomainGetIOThreadInfo \
              are in no safe binding"
)]

use std::ffi::c_int;
use std::ptr;

use bmslice_model::{CpuId, CpuSet};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::sys;

use crate::machine::DomainPins;

const LIVE: sys::virDomainModificationImpact = sys::VIR_DOMAIN_AFFECT_LIVE;

/// Reads all pins.
///
/// # Errors
/// libvirt's own, when the domain is not running or the daemon is gone.
pub fn read(connect: &Connect, domain: &Domain) -> Result<DomainPins, Error> {
    // One bit for every CPU that the host could have, online or not.
    let length = host_cpus(connect)?.div_ceil(8);
    let vcpus = domain.get_vcpus_flags(sys::VIR_DOMAIN_VCPU_LIVE)? as usize;
    Ok(DomainPins {
        vcpus: vcpu_pins(domain, vcpus, length)?,
        emulator: emulator_pin(domain, length)?,
        iothreads: iothread_pins(domain)?,
    })
}

fn host_cpus(connect: &Connect) -> Result<usize, Error> {
    // SAFETY: the connection is open while it is borrowed; null asks libvirt for neither map.
    let count =
        unsafe { sys::virNodeGetCPUMap(connect.as_ptr(), ptr::null_mut(), ptr::null_mut(), 0) };
    usize::try_from(count).map_err(|_| Error::last_error())
}

fn vcpu_pins(domain: &Domain, vcpus: usize, length: usize) -> Result<Vec<CpuSet>, Error> {
    if vcpus == 0 || length == 0 {
        return Ok(Vec::new());
    }
    let mut maps = vec![0u8; vcpus * length];
    // SAFETY: `maps` holds `vcpus` maps of `length` bytes, as libvirt is told, and outlives the
    // call.
    let filled = unsafe {
        sys::virDomainGetVcpuPinInfo(
            domain.as_ptr(),
            as_int(vcpus),
            maps.as_mut_ptr(),
            as_int(length),
            LIVE,
        )
    };
    let filled = usize::try_from(filled).map_err(|_| Error::last_error())?;
    Ok(maps.chunks(length).take(filled).map(set).collect())
}

fn emulator_pin(domain: &Domain, length: usize) -> Result<CpuSet, Error> {
    let mut map = vec![0u8; length];
    // SAFETY: `map` holds `length` bytes, as libvirt is told, and outlives the call.
    let answer = unsafe {
        sys::virDomainGetEmulatorPinInfo(domain.as_ptr(), map.as_mut_ptr(), as_int(length), LIVE)
    };
    if answer < 0 {
        return Err(Error::last_error());
    }
    Ok(set(&map))
}

fn iothread_pins(domain: &Domain) -> Result<Vec<(u32, CpuSet)>, Error> {
    let mut infos: *mut sys::virDomainIOThreadInfoPtr = ptr::null_mut();
    // SAFETY: libvirt stores an array that it allocated into `infos`; null when it answers 0 or -1.
    let count = unsafe { sys::virDomainGetIOThreadInfo(domain.as_ptr(), &raw mut infos, LIVE) };
    let count = usize::try_from(count).map_err(|_| Error::last_error())?;
    let mut pins = Vec::with_capacity(count);
    for i in 0..count {
        // SAFETY: the array has `count` pointers to infos, each with a map of `cpumaplen` bytes;
        // each info is freed once, after its map was copied.
        unsafe {
            let info = *infos.add(i);
            let length = usize::try_from((*info).cpumaplen).unwrap_or(0);
            let cpus = if (*info).cpumap.is_null() || length == 0 {
                CpuSet::new()
            } else {
                set(std::slice::from_raw_parts((*info).cpumap, length))
            };
            pins.push(((*info).iothread_id, cpus));
            sys::virDomainIOThreadInfoFree(info);
        }
    }
    // SAFETY: the array came from libvirt's allocator, which is malloc(3); free(3) takes null.
    unsafe { libc::free(infos.cast()) };
    pins.sort_by_key(|&(id, _)| id);
    Ok(pins)
}

/// libvirt counts in C integers; no host comes near their end.
fn as_int(count: usize) -> c_int {
    c_int::try_from(count).unwrap_or(c_int::MAX)
}

/// libvirt's map: CPU 0 is the lowest bit of the first byte.
fn set(map: &[u8]) -> CpuSet {
    map.iter()
        .enumerate()
        .flat_map(|(byte, bits)| {
            (0..8usize)
                .filter(move |bit| bits & (1 << bit) != 0)
                .filter_map(move |bit| CpuId::new(u32::try_from(byte * 8 + bit).ok()?).ok())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_bit_of_the_first_byte_is_cpu_0() {
        assert_eq!(set(&[0b0000_0001, 0b1000_0010]).to_string(), "0,9,15");
        assert_eq!(set(&[]).to_string(), "");
    }
}
