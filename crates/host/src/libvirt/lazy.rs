//! libvirt's library, loaded when it is first called.
//!
//! Linked in the usual way it comes with fifty other libraries, and binding their 18,000 symbols
//! takes longer than reading a server (14 ms of 22), in every command, the version too. So the
//! functions that are used have their namesakes here, and the linker, which takes libraries as
//! needed, leaves libvirt to [`load`]. A function that is used elsewhere and missing here still
//! links, to libvirt itself; only the start is then slow again.
//!
//! Keeps true: each namesake has the signature of `virt-sys`'s declaration (handles as plain
//! pointers); without the library it gives what libvirt gives for an error.
#![allow(
    unsafe_code,
    non_snake_case,
    clippy::missing_safety_doc,
    reason = "functions of a C library are called by address; the safe wrapper over them is the crate `virt`"
)]

use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_ulong, c_void};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

/// A connection, a domain, a device, an error or a callback: passed on as it is.
type Handle = *mut c_void;

/// The library's handle as a number, which threads may share; why there is none otherwise.
fn library() -> &'static Result<usize, String> {
    static LIBRARY: OnceLock<Result<usize, String>> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // SAFETY: the name is a C string; libvirt's constructors may run on any thread. It is
        // never unloaded, so that addresses stay good.
        let handle = unsafe { libc::dlopen(c"libvirt.so.0".as_ptr(), libc::RTLD_NOW) };
        if !handle.is_null() {
            return Ok(handle.expose_provenance());
        }
        // SAFETY: dlerror gives null or a C string that is good until the next call here.
        let text = unsafe {
            let text = libc::dlerror();
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        };
        Err(text.unwrap_or_else(|| "libvirt.so.0 cannot be loaded".into()))
    })
}

/// Loads the library.
///
/// # Errors
/// What the loader said.
pub(super) fn load() -> Result<(), String> {
    library().as_ref().map(drop).map_err(Clone::clone)
}

fn symbol(name: &CStr) -> Option<*mut c_void> {
    let library = *library().as_ref().ok()?;
    // SAFETY: the handle came from dlopen and is never closed; the name is a C string.
    let address = unsafe {
        libc::dlsym(
            std::ptr::with_exposed_provenance_mut(library),
            name.as_ptr(),
        )
    };
    (!address.is_null()).then_some(address)
}

macro_rules! namesakes {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $given:ty, $none:expr;)*) => {
        $(
            // SAFETY of the name: no other object of the program defines it; libvirt's own is
            // behind `dlsym`.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($argument: $type),*) -> $given {
                static ADDRESS: OnceLock<Option<usize>> = OnceLock::new();
                let address = ADDRESS.get_or_init(|| {
                    let name = concat!(stringify!($name), "\0");
                    let name = CStr::from_bytes_with_nul(name.as_bytes()).ok()?;
                    symbol(name).map(|address| address.expose_provenance())
                });
                match address {
                    Some(address) => {
                        let address: *mut c_void = std::ptr::with_exposed_provenance_mut(*address);
                        // SAFETY: the address is that of libvirt's function of this name, whose
                        // signature this is; the caller keeps that function's terms.
                        unsafe {
                            let function: unsafe extern "C" fn($($type),*) -> $given =
                                std::mem::transmute(address);
                            function($($argument),*)
                        }
                    }
                    None => $none,
                }
            }
        )*

        #[cfg(test)]
        const NAMES: &[&CStr] = &[$(
            match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => c"",
            },
        )*];
    };
}

namesakes! {
    fn virConnectClose(conn: Handle) -> c_int, -1;
    fn virConnectGetCapabilities(conn: Handle) -> *mut c_char, null_mut();
    fn virConnectGetLibVersion(conn: Handle, lib_ver: *mut c_ulong) -> c_int, -1;
    fn virConnectGetVersion(conn: Handle, hv_ver: *mut c_ulong) -> c_int, -1;
    fn virConnectListAllDomains(conn: Handle, domains: *mut *mut Handle, flags: c_uint) -> c_int, -1;
    fn virConnectOpen(name: *const c_char) -> Handle, null_mut();
    fn virDomainCreate(domain: Handle) -> c_int, -1;
    fn virDomainDefineXMLFlags(conn: Handle, xml: *const c_char, flags: c_uint) -> Handle, null_mut();
    fn virDomainDestroy(domain: Handle) -> c_int, -1;
    fn virDomainFree(domain: Handle) -> c_int, -1;
    fn virDomainGetAutostart(domain: Handle, autostart: *mut c_int) -> c_int, -1;
    fn virDomainGetEmulatorPinInfo(domain: Handle, cpumaps: *mut c_uchar, maplen: c_int, flags: c_uint) -> c_int, -1;
    fn virDomainGetIOThreadInfo(domain: Handle, info: *mut *mut Handle, flags: c_uint) -> c_int, -1;
    fn virDomainGetName(domain: Handle) -> *const c_char, null();
    fn virDomainGetUUIDString(domain: Handle, buf: *mut c_char) -> c_int, -1;
    fn virDomainGetVcpuPinInfo(domain: Handle, ncpumaps: c_int, cpumaps: *mut c_uchar, maplen: c_int, flags: c_uint) -> c_int, -1;
    fn virDomainGetVcpusFlags(domain: Handle, flags: c_uint) -> c_int, -1;
    fn virDomainGetXMLDesc(domain: Handle, flags: c_uint) -> *mut c_char, null_mut();
    fn virDomainIOThreadInfoFree(info: Handle) -> (), ();
    fn virDomainIsActive(dom: Handle) -> c_int, -1;
    fn virDomainIsPersistent(dom: Handle) -> c_int, -1;
    fn virDomainLookupByName(conn: Handle, name: *const c_char) -> Handle, null_mut();
    fn virDomainSetAutostart(domain: Handle, autostart: c_int) -> c_int, -1;
    fn virDomainShutdown(domain: Handle) -> c_int, -1;
    fn virDomainUndefineFlags(domain: Handle, flags: c_uint) -> c_int, -1;
    fn virGetLastError() -> Handle, null_mut();
    fn virNodeDeviceFree(dev: Handle) -> c_int, -1;
    fn virNodeDeviceLookupByName(conn: Handle, name: *const c_char) -> Handle, null_mut();
    fn virNodeDeviceReAttach(dev: Handle) -> c_int, -1;
    fn virNodeGetCPUMap(conn: Handle, cpumap: *mut *mut c_uchar, online: *mut c_uint, flags: c_uint) -> c_int, -1;
    fn virSetErrorFunc(user_data: *mut c_void, handler: Handle) -> (), ();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namesake_is_there_in_the_library() {
        load().unwrap();
        for name in NAMES {
            assert!(symbol(name).is_some(), "{name:?}");
        }
    }
}
