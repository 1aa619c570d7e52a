//! The JSON schema says what the parser does.
#![allow(clippy::unwrap_used, reason = "a test")]

use bmslice_spec::{Slicing, schema};
use serde_json::{Value, json};

const EXAMPLES: [&str; 3] = [
    include_str!("../../../examples/seed/slices.yaml"),
    include_str!("../../../examples/red-blue.yaml"),
    include_str!("../../../examples/tenant.yaml"),
];

/// Every field that there is.
const EVERYTHING: &str = include_str!("everything.yaml");

/// Reads YAML by another parser than the one under test.
fn json_of(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}

#[test]
fn examples_are_valid() {
    let validator = jsonschema::draft202012::new(&schema()).unwrap();
    for example in EXAMPLES.iter().chain([&EVERYTHING]) {
        let errors: Vec<String> = validator
            .iter_errors(&json_of(example))
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:#?}");
    }
}

#[test]
fn schema_and_parser_refuse_the_same_forms() {
    let validator = jsonschema::draft202012::new(&schema()).unwrap();
    let good = json_of(EVERYTHING);
    let bad: [(&str, Value); 19] = [
        ("/apiVersion", json!("bmslice/v2")),
        ("/slices", json!([])),
        ("/slices/0/colour", json!("blue")),
        ("/slices/0/vcpus", json!(0)),
        ("/slices/0/vcpus", json!("8")),
        ("/slices/2/replicas", json!(0)),
        ("/slices/2/selector", json!({})),
        ("/slices/2/selector/zone", json!(["a"])),
        ("/fleet/place", json!("even")),
        ("/fleet/headroom/cores", json!(1025)),
        ("/slices/0/name", json!("a b")),
        ("/slices/0/memory/size", json!("8GB")),
        ("/slices/0/memory/hugepages", json!("4MiB")),
        ("/slices/0/numa", json!({ "spread": 1 })),
        ("/slices/0/nics/0/vf", json!({ "of": "eno2" })),
        ("/slices/0/nics/1/vf/vlan", json!(4095)),
        ("/slices/0/image/from", json!({ "resize": {} })),
        ("/slices/0/user/password", json!("x")),
        ("/host/reserve/cores", json!(0)),
    ];
    for (pointer, value) in bad {
        let mut spec = good.clone();
        let (owner, name) = pointer.rsplit_once('/').unwrap();
        let owner = spec.pointer_mut(owner).unwrap();
        owner.as_object_mut().unwrap().insert(name.into(), value);
        assert!(!validator.is_valid(&spec), "{pointer}");
        assert!(Slicing::parse("a", &spec.to_string()).is_err(), "{pointer}");
    }
    assert!(validator.is_valid(&good));
}

#[test]
fn json_is_yaml_and_means_the_same() {
    let from_yaml = Slicing::parse("a.yaml", EVERYTHING).unwrap();
    let text = serde_json::to_string_pretty(&json_of(EVERYTHING)).unwrap();
    assert_eq!(Slicing::parse("a.json", &text).unwrap(), from_yaml);
}

#[test]
fn every_field_is_described() {
    fn undescribed(at: &str, schema: &Value, found: &mut Vec<String>) {
        let Some(fields) = schema.get("properties").and_then(Value::as_object) else {
            return;
        };
        for (name, field) in fields {
            if field.get("description").is_none() {
                found.push(format!("{at}.{name}"));
            }
        }
    }
    let schema = schema();
    let mut found = Vec::new();
    undescribed("Slicing", &schema, &mut found);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        undescribed(name, definition, &mut found);
    }
    assert!(found.is_empty(), "{found:?}");
}
