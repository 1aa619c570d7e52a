//! The guest as a whole: libvirt's domain, and the process that runs it.

use crate::checks::SliceView;
use crate::report::{NotSeen, Seen, Verdict};

pub(crate) fn domain(view: &SliceView) -> Seen<Vec<Verdict>> {
    let name = view.slice.name.as_str();
    let domains = view.observed.domains.as_ref().map_err(Clone::clone)?;
    let what = format!("the domain `{name}`");
    let Some(state) = domains.iter().find(|domain| domain.name == name) else {
        return Ok(vec![Verdict::differs(what, "running", "not defined")]);
    };
    let mut verdicts = Vec::new();
    let mut expect = |subject: &str, want: &str, got: &str| {
        if want != got {
            verdicts.push(Verdict::differs(subject, want, got));
        }
    };
    let running = if state.running { "running" } else { "shut off" };
    expect(&what, "running", running);
    expect(
        &format!("the UUID of {what}"),
        &view.slice.uuid,
        &state.uuid,
    );
    let stored = |yes: bool| if yes { "persistent" } else { "transient" };
    expect(&what, stored(true), stored(state.persistent));
    // At a boot libvirt would start it before anybody has looked at its devices.
    let starts = |yes: bool| {
        if yes {
            "started by libvirt with the host"
        } else {
            "left to `bmslice-slices.service` to start"
        }
    };
    expect(&what, starts(false), starts(state.autostart));
    if state.running {
        let live = view.guest.live.as_ref().map_err(Clone::clone)?;
        expect(&format!("the type of {what}"), "kvm", &live.kind);
    }
    if verdicts.is_empty() {
        verdicts.push(Verdict::satisfied(format!("{what} runs, of type kvm")));
    }
    Ok(verdicts)
}

pub(crate) fn process(view: &SliceView) -> Seen<Vec<Verdict>> {
    let process = view.guest.process.as_ref().map_err(Clone::clone)?;
    let pid = process.pid;
    let Some(uuid) = &process.uuid else {
        return Err(NotSeen::Unreadable(format!(
            "the QEMU process {pid} has no `-uuid` among its arguments"
        )));
    };
    Ok(vec![if *uuid == view.slice.uuid {
        Verdict::satisfied(format!("QEMU runs it as process {pid}"))
    } else {
        Verdict::differs(
            format!("the UUID of the guest that the QEMU process {pid} runs"),
            &view.slice.uuid,
            uuid,
        )
    }])
}
