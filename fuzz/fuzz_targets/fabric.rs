#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(table) = bmslice_verify::FabricTable::parse(&String::from_utf8_lossy(data)) {
        for entry in &table.entries {
            assert!(table.of(entry.mac).any(|found| found == entry));
        }
    }
});
