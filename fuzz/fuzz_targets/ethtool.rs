#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| bmslice_inventory::fuzzing::ethtool(data));
