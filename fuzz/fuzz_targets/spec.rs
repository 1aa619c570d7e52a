#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(errors) = bmslice_spec::Slicing::parse_bytes("fuzz.yaml", data) {
        assert!(!errors.render(false).is_empty());
    }
});
