//! Files that bmslice wrote: plans and inventories, as JSON or as the YAML of `-o yaml`.
//!
//! Takes a text, gives the JSON that the libraries read. Keeps true: JSON is passed on as it is, so
//! that what they say has its lines.

use std::borrow::Cow;
use std::fmt::Display;

use serde_json::Value;

/// A text that is read as one of our own files, if it is one.
pub(crate) struct Own<'a> {
    json: Cow<'a, str>,
    /// `bmslice/plan/v1`; a spec has none.
    pub format: Option<String>,
    yaml: Yaml,
}

enum Yaml {
    /// JSON, or nothing of ours.
    No,
    Read,
    /// Ours to look at, and no YAML: why.
    Broken(String),
}

impl<'a> Own<'a> {
    pub(crate) fn read(text: &'a str) -> Self {
        let as_is = |format, yaml| Self {
            json: Cow::Borrowed(text),
            format,
            yaml,
        };
        if let Ok(value) = serde_json::from_str::<Value>(text) {
            return as_is(format(&value), Yaml::No);
        }
        if !looks_like_our_yaml(text) {
            return as_is(None, Yaml::No);
        }
        match serde_saphyr::from_str::<Value>(text) {
            Ok(value) => Self {
                json: Cow::Owned(value.to_string()),
                format: format(&value),
                yaml: Yaml::Read,
            },
            Err(error) => {
                let first = error.to_string();
                let first = first.lines().next().unwrap_or_default();
                let why = first.trim_start_matches("error: ").to_owned();
                as_is(None, Yaml::Broken(why))
            }
        }
    }

    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// Whether it is a plan, of whatever version.
    pub(crate) fn is_plan(&self) -> bool {
        let format = self.format.as_deref();
        format.is_some_and(|format| format.starts_with("bmslice/plan/"))
    }

    /// What a library says of the JSON, without places that are not those of the file.
    pub(crate) fn said(&self, error: &dyn Display) -> String {
        let said = error.to_string();
        match &self.yaml {
            Yaml::No => said,
            Yaml::Read => match said.rfind(" at line ") {
                Some(at) => said[..at].to_owned(),
                None => said,
            },
            Yaml::Broken(why) => format!("this is not YAML: {why}"),
        }
    }
}

fn format(value: &Value) -> Option<String> {
    let format = value.get("format")?.as_str()?;
    format.starts_with("bmslice/").then(|| format.to_owned())
}

/// Whether a line of the outermost mapping names a format of ours.
fn looks_like_our_yaml(text: &str) -> bool {
    text.lines().any(|line| {
        let value = line.strip_prefix("format:").map(str::trim_start);
        value.is_some_and(|value| {
            value
                .trim_start_matches(['"', '\''])
                .starts_with("bmslice/")
        })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use bmslice_inventory::CapturedInventory;
    use bmslice_plan::Plan;

    use super::*;

    const PLAN: &str = include_str!("../../../examples/seed/plan.json");
    const INVENTORY: &str = include_str!("../../../examples/seed/inventory.json");

    #[test]
    fn a_plan_and_an_inventory_come_back_from_yaml_as_they_were() {
        let plan = Plan::parse(PLAN).unwrap();
        let yaml = serde_saphyr::to_string(plan.parts()).unwrap();
        let own = Own::read(&yaml);
        assert!(own.is_plan() && yaml.starts_with("format:"), "{yaml}");
        assert_eq!(Plan::parse(own.json()).unwrap(), plan);

        let inventory = CapturedInventory::from_json(INVENTORY).unwrap();
        let yaml = serde_saphyr::to_string(&*inventory).unwrap();
        let own = Own::read(&yaml);
        assert!(!own.is_plan());
        assert_eq!(CapturedInventory::from_json(own.json()).unwrap(), inventory);
    }

    #[test]
    fn a_spec_is_none_of_ours_whatever_it_holds() {
        for text in [
            include_str!("../../../examples/seed/slices.yaml"),
            "apiVersion: bmslice/v1\nslices:\n  - format: bmslice/plan/v1\n",
            "",
            "{ not: json }",
        ] {
            assert_eq!(Own::read(text).format, None, "{text}");
            assert_eq!(Own::read(text).json(), text);
        }
    }

    #[test]
    fn a_mistake_in_yaml_has_no_line_of_json() {
        let yaml = "format: bmslice/plan/v1\nspecDigest: 7\n";
        let own = Own::read(yaml);
        let said = own.said(&Plan::parse(own.json()).unwrap_err());
        assert!(
            said.contains("specDigest") || said.contains("string"),
            "{said}"
        );
        assert!(!said.contains("at line"), "{said}");

        let own = Own::read("format: bmslice/plan/v1\nserver: [\n");
        let said = own.said(&Plan::parse(own.json()).unwrap_err());
        assert!(said.starts_with("this is not YAML: "), "{said}");
    }
}
