//! Specs and plans from files, and plans from specs.

use std::path::Path;

use bmslice_inventory::Inventory;
use bmslice_plan::{Fingerprint, Plan, PlanFileError};
use bmslice_planner::{Refusal, Running};
use bmslice_spec::Slicing;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::files;
use crate::own::Own;

/// What a file holds that may be either.
pub(crate) enum Document {
    /// What is wanted.
    Spec(Slicing),
    /// What was decided.
    Plan(Box<Plan>),
}

/// Reads a spec.
pub(crate) fn spec(path: &Path) -> Result<Slicing, Failure> {
    let bytes = files::read(path, "a spec")?;
    match Own::read(&String::from_utf8_lossy(&bytes)).format {
        Some(format) => Err(not(path, "a spec", &format)),
        None => spec_of(path, &bytes),
    }
}

/// Reads a plan file.
pub(crate) fn plan(path: &Path) -> Result<Plan, Failure> {
    let bytes = files::read(path, "a plan")?;
    let text = String::from_utf8_lossy(&bytes);
    let own = Own::read(&text);
    match &own.format {
        Some(format) if !own.is_plan() => Err(not(path, "a plan", format)),
        _ => plan_of(path, &own),
    }
}

/// Reads a spec or a plan file, whichever it is.
pub(crate) fn spec_or_plan(path: &Path) -> Result<Document, Failure> {
    let bytes = files::read(path, "a spec or plan")?;
    let text = String::from_utf8_lossy(&bytes);
    let own = Own::read(&text);
    match &own.format {
        Some(_) if own.is_plan() => plan_of(path, &own).map(|plan| Document::Plan(Box::new(plan))),
        Some(format) => Err(not(path, "a spec or plan", format)),
        None => spec_of(path, &bytes).map(Document::Spec),
    }
}

fn spec_of(path: &Path, bytes: &[u8]) -> Result<Slicing, Failure> {
    let name = if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    Ok(Slicing::parse_bytes(&name, bytes)?)
}

fn plan_of(path: &Path, own: &Own<'_>) -> Result<Plan, Failure> {
    Plan::parse(own.json()).map_err(|error| {
        let failure = Failure::refused(format!("`{}`: {}", path.display(), own.said(&error)));
        match error {
            PlanFileError::Malformed(_) => {
                failure.hint("`bmslice plan SPEC --out FILE` writes one")
            }
            _ => failure.hint("plan anew: a plan is not to be edited"),
        }
    })
}

/// Whether a file holds a plan, of whatever version.
pub(crate) fn is_plan(path: &Path) -> Result<bool, Failure> {
    let bytes = files::read(path, "an inventory or a plan")?;
    Ok(Own::read(&String::from_utf8_lossy(&bytes)).is_plan())
}

/// Whether a file holds a plan that can be read, so that another one may take its place.
pub(crate) fn holds_plan(bytes: &[u8]) -> bool {
    Plan::parse(Own::read(&String::from_utf8_lossy(bytes)).json()).is_ok()
}

fn not(path: &Path, wanted: &str, format: &str) -> Failure {
    let kind = match format.split('/').nth(1) {
        Some("plan") => "a plan",
        Some("inventory") => "an inventory",
        _ => "another file of bmslice",
    };
    let failure = Failure::refused(format!(
        "`{}` is {kind} (`{format}`), where {wanted} is wanted",
        path.display()
    ));
    match (wanted, kind) {
        ("a spec", "a plan") => failure.hint("`bmslice render` and `bmslice apply` take plans"),
        ("a plan", "an inventory") | ("a spec", "an inventory") => {
            failure.hint("give it with `--inventory`")
        }
        _ => failure,
    }
}

/// Places the slices on a server, and has the plan judged by the checker before anybody sees it.
pub(crate) fn planned(
    spec: &Slicing,
    inventory: &Inventory,
    previous: Option<&Plan>,
) -> Result<Plan, Failure> {
    planned_with(spec, inventory, previous, Running::Stays)
}

/// As [`planned`]; slices in force may make room for others when that is allowed.
pub(crate) fn planned_with(
    spec: &Slicing,
    inventory: &Inventory,
    previous: Option<&Plan>,
    running: Running,
) -> Result<Plan, Failure> {
    let plan = bmslice_planner::plan_with(spec, inventory, previous, running).map_err(refusal)?;
    judged(spec, inventory, &plan, previous)?;
    Ok(plan)
}

/// Has a plan judged by the checker.
pub(crate) fn judged(
    spec: &Slicing,
    inventory: &Inventory,
    plan: &Plan,
    in_force: Option<&Plan>,
) -> Result<(), Failure> {
    let violations = bmslice_check::check_following(spec, inventory, plan, in_force);
    if violations.is_empty() {
        return Ok(());
    }
    let all = violations.iter().fold(
        "the plan breaks its own rules and is not used:".to_owned(),
        |all, violation| format!("{all}\n  - {violation}"),
    );
    Err(Failure::failed(all).hint(
        "this is a mistake of bmslice, unless the inventory was changed by hand: report it with the spec and `bmslice inspect -o json`",
    ))
}

/// Has a plan file judged by the checker on the server that it is for. Of one that has moved since,
/// `apply` says what moved.
pub(crate) fn judged_alone(path: &Path, inventory: &Inventory, plan: &Plan) -> Result<(), Failure> {
    let fingerprint = &plan.parts().server.fingerprint;
    if !fingerprint.moved(&Fingerprint::of(inventory)).is_empty() {
        return Ok(());
    }
    let violations = bmslice_check::check_alone(inventory, plan);
    if violations.is_empty() {
        return Ok(());
    }
    let all = violations.iter().fold(
        format!("`{}` breaks the rules of plans:", path.display()),
        |all, violation| format!("{all}\n  - {violation}"),
    );
    Err(Failure::refused(all).hint("plan anew: a plan is not to be edited"))
}

fn refusal(refusal: Refusal) -> Failure {
    let (exit, mut text) = match &refusal {
        Refusal::Unsound(source) => (Exit::Failed, format!("{refusal}: {source}")),
        Refusal::Argument(source) => (Exit::Failed, format!("{refusal}: {source}")),
        _ => (Exit::Refused, refusal.to_string()),
    };
    // A refusal with several parts reads better below each other.
    if text.len() > 160 && text.contains("; ") {
        text = text.replacen("; ", ";\n  ", 1);
    }
    let failure = Failure::message(exit, text);
    match refusal.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmslice_plan::PlanParts;

    fn seed() -> (Inventory, PlanParts) {
        let inventory = include_str!("../../../examples/seed/inventory.json");
        let plan = include_str!("../../../examples/seed/plan.json");
        let plan = Plan::parse(plan).unwrap();
        (serde_json::from_str(inventory).unwrap(), plan.into_parts())
    }

    fn said(inventory: &Inventory, parts: PlanParts) -> String {
        let plan = Plan::new(parts).unwrap();
        match judged_alone(Path::new("plan.json"), inventory, &plan) {
            Ok(()) => String::new(),
            Err(failure) => format!("{failure:?}"),
        }
    }

    #[test]
    fn a_plan_file_that_was_edited_is_refused_before_it_is_applied() {
        let (inventory, right) = seed();
        assert_eq!(said(&inventory, right.clone()), "");
        // Red's first vCPU on a core of Blue's node, Blue's on Red's.
        let mut swapped = right.clone();
        let (red, blue) = (swapped.slices[0].vcpus[0], swapped.slices[1].vcpus[0]);
        swapped.slices[0].vcpus[0] = blue;
        swapped.slices[1].vcpus[0] = red;
        let told = said(&inventory, swapped);
        assert!(told.contains("which is not on node 0"), "{told}");
        assert!(told.contains("a plan is not to be edited"), "{told}");
        // More memory in a cell than the slice has.
        let mut more = right.clone();
        more.slices[0].cells[0].memory = bmslice_model::ByteSize::from_gib(9);
        assert!(said(&inventory, more).contains("[cells]"));
    }

    #[test]
    fn of_a_server_that_has_moved_apply_says_what_did() {
        let (mut inventory, mut edited) = seed();
        edited.slices[0].cells[0].memory = bmslice_model::ByteSize::from_gib(9);
        inventory.pci.retain(|function| !function.is_network());
        assert_eq!(said(&inventory, edited), "");
    }
}
