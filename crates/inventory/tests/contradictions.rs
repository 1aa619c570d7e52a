//! A file that was changed after it was written is told by what does not fit any more.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use bmslice_inventory::{CapturedInventory, Contradiction, ReadError, contradictions};
use serde_json::{Value, json};

const SEED: &str = include_str!("../../../examples/seed/inventory.json");

/// The contradictions of the seed's server after a change of its file.
fn after(change: impl FnOnce(&mut Value)) -> Vec<Contradiction> {
    let mut file: Value = serde_json::from_str(SEED).unwrap();
    change(&mut file);
    match CapturedInventory::from_json(&file.to_string()) {
        Ok(inventory) => contradictions(&inventory),
        Err(ReadError::Contradicts { found }) => found,
        Err(error) => panic!("{error}"),
    }
}

fn says(change: impl FnOnce(&mut Value)) -> Vec<String> {
    after(change).iter().map(ToString::to_string).collect()
}

#[test]
fn a_file_as_it_was_written_contradicts_nothing() {
    assert_eq!(after(|_| {}), []);
}

#[test]
fn a_core_that_was_cut_in_two_is_told_from_its_other_half() {
    assert_eq!(
        says(|file| file["cpus"][3]["siblings"] = json!("3")),
        [
            "`cpus[15].siblings`: CPU 15 has the siblings 3,15, among them CPU 3, whose own siblings are 3"
        ]
    );
    let gone = says(|file| {
        file["cpus"].as_array_mut().unwrap().remove(15);
    });
    for text in [
        "`cpus[3].siblings`: CPU 3 has the siblings 3,15, among them CPU 15, which is not there",
        "`nodes[1].cpus`: CPU 15 is not among `cpus`",
    ] {
        assert!(gone.iter().any(|said| said == text), "{gone:?}");
    }
    let offline = says(|file| file["cpus"][15]["online"] = json!(false));
    assert!(
        offline[0].ends_with("CPU 15, one of which is offline"),
        "{offline:?}"
    );
}

#[test]
fn a_cpu_that_was_moved_is_told_by_its_node() {
    assert_eq!(
        says(|file| file["cpus"][3]["node"] = json!(0)),
        ["`cpus[3].node`: CPU 3 is on node 0, whose CPUs are 0,2,4,6,8,10,12,14,16,18,20,22"]
    );
    assert_eq!(
        says(|file| file["cpus"][3]["node"] = json!(5)),
        ["`cpus[3].node`: CPU 3 is on node 5, which is not there"]
    );
}

#[test]
fn what_is_given_twice_is_told() {
    let twice = |list: &'static str, at: usize| {
        says(move |file| {
            let copy = file[list][at].clone();
            file[list].as_array_mut().unwrap().push(copy);
        })
    };
    assert_eq!(
        twice("cpus", 0),
        [
            "`cpus`: the CPUs are not in the order of their numbers",
            "`cpus[24].id`: CPU 0 is there already"
        ]
    );
    let nodes = twice("nodes", 1);
    assert!(
        nodes.contains(&"`nodes[2].id`: node 1 is there already".to_owned()),
        "{nodes:?}"
    );
    assert_eq!(
        twice("pci", 3),
        ["`pci[7].address`: the function 0000:01:00.0 is there already"]
    );
    let name = says(|file| file["pci"][4]["interfaces"] = json!(["eno1"]));
    assert_eq!(
        name,
        ["`pci[4].interfaces`: the interface `eno1` is that of 0000:01:00.0 already"]
    );
}

#[test]
fn memory_groups_and_virtual_functions_that_do_not_fit_are_told() {
    assert_eq!(
        says(|file| file["nodes"][0]["memoryTotal"] = json!("8GiB")),
        ["`nodes[0].memoryFree`: of the 8GiB of node 0, 62GiB are free"]
    );
    let moved = says(|file| file["pci"][3]["iommuGroup"] = json!(26));
    assert_eq!(moved.len(), 2, "{moved:?}");
    assert!(
        moved[0].starts_with("`iommuGroups[3].members`: of IOMMU group 25, 0000:01:00.0 is listed")
    );
    assert!(moved[1].starts_with("`iommuGroups[4].members`: of IOMMU group 26, 0000:01:00.0 says"));
    let strange = says(|file| {
        file["pci"][3]["sriov"]["vfs"] = json!(["0000:01:10.0"]);
        file["pci"][4]["physfn"] = json!("0000:01:00.0");
    });
    assert_eq!(
        strange,
        [
            "`pci[4].physfn`: 0000:01:00.1 is a virtual function of 0000:01:00.0, which does not name it"
        ]
    );
}
