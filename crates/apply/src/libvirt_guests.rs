//! What libvirt-guests.service would start at a boot without a look at anything.
//!
//! With `ON_BOOT=start` it starts every guest whose UUID its list has, which it wrote at the shutdown
//! (libvirt-guests(8); `start()` of libvirt-guests.sh). It comes after our unit for the host, which
//! takes our guests out of the list: with others it goes on as its administrator wants (ADR 0012).
//! What `ON_BOOT` is need not be known, since with `ignore` it throws the whole list away.

use bmslice_host::{HostError, Machine};
use bmslice_plan::Plan;

use crate::apply::stored_plan;
use crate::error::ApplyError;
use crate::event::Event;
use crate::paths::PLAN_BEFORE;

/// A line for each connection: its URI, and the UUIDs of what ran.
const LIST: &str = "/var/lib/libvirt/libvirt-guests";

/// Takes the guests of our plans out of the list, and says so, or that it could not.
pub fn keep_out(machine: &dyn Machine, events: &mut dyn FnMut(Event)) {
    let said = match strike(machine) {
        Ok(0) => return,
        Ok(guests) => format!(
            "libvirt-guests.service does not start {guests} of ours: bmslice-slices.service looks at their devices first"
        ),
        Err(error) => format!("libvirt-guests.service may start ours unseen: {error}"),
    };
    events(Event::Note(said));
}

fn strike(machine: &dyn Machine) -> Result<usize, ApplyError> {
    let list = match machine.root().read_text(LIST) {
        Ok(list) => list,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(source) => {
            return Err(ApplyError::Host(HostError::File {
                action: "read",
                path: LIST.into(),
                source,
            }));
        }
    };
    let before = machine.root().read_text(PLAN_BEFORE).ok();
    let before = before.and_then(|text| Plan::parse(&text).ok());
    let plans = stored_plan(machine)?.into_iter().chain(before);
    let ours: Vec<String> = plans
        .flat_map(|plan| {
            let uuids = plan.slices().iter().map(|slice| slice.uuid.to_lowercase());
            uuids.collect::<Vec<_>>()
        })
        .collect();
    let (left, struck) = without(&list, &ours);
    if struck > 0 {
        if left.is_empty() {
            machine.remove(LIST.as_ref())?;
        } else {
            machine.install(LIST.as_ref(), left.as_bytes(), 0o644)?;
        }
    }
    Ok(struck)
}

/// The list without these, and how many of them it had. A line that loses none stays to the byte; one
/// that loses all goes.
fn without(list: &str, ours: &[String]) -> (String, usize) {
    let is_ours = |word: &&str| ours.contains(&word.to_lowercase());
    let (mut left, mut struck) = (String::new(), 0);
    for line in list.split_inclusive('\n') {
        let mut words = line.split_whitespace();
        let uri = words.next().unwrap_or_default();
        let (gone, kept): (Vec<&str>, Vec<&str>) = words.partition(is_ours);
        struck += gone.len();
        if gone.is_empty() {
            left.push_str(line);
        } else if !kept.is_empty() {
            left.push_str(&format!("{uri} {}\n", kept.join(" ")));
        }
    }
    (left, struck)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_guests_are_taken_out_of_the_list() {
        let ours = ["aa-1".to_owned(), "bb-2".to_owned()];
        assert_eq!(
            without("default aa-1 cc-3 BB-2\nxen:///system  dd-4\n", &ours),
            ("default cc-3\nxen:///system  dd-4\n".into(), 2)
        );
        assert_eq!(without("default bb-2\n", &ours), (String::new(), 1));
        assert_eq!(without("default cc-3", &ours), ("default cc-3".into(), 0));
        assert_eq!(without("", &ours), (String::new(), 0));
    }
}
