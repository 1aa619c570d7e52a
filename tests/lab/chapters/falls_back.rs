//! Kernel arguments that cost the server: it comes back with those before, says so, and leaves the
//! rest to whoever asks next.

use anyhow::{Context, Result, ensure};

use super::asked::untouched;
use super::{MINUTE, SPEC, Story};
use crate::lab::Lab;

const BAD: &str = "/root/costs-the-server.yaml";

/// Applies the spec with a kernel argument more, and waits until the server is back, whichever boot
/// that is.
fn apply_with(lab: &Lab, argument: &str, minutes: u32) -> Result<()> {
    lab.server(&format!(
        "sed -e 's|isolation: boot.*|isolation: boot\\n  kernelArgs: [\"{argument}\"]\\n  fallBackMinutes: {minutes}|' \
         {SPEC} > {BAD}; grep -q kernelArgs {BAD}"
    ))?
    .expect(0)?;
    let boot = lab.boot_id()?;
    // ssh may end with the server: the exit code of this one says nothing.
    let ran = lab.server(&format!("bmslice apply {BAD} --yes"))?;
    ensure!(ran.code == 0 || ran.code == 255, "{ran:?}");
    lab.wait_for_reboot(&boot, 14 * MINUTE)
}

/// The server is back with the arguments before, says why, does not try again by itself, and gives
/// everything back.
fn is_back(lab: &Lab, argument: &str, why: &str) -> Result<()> {
    let line = lab.server("cat /proc/cmdline")?.expect(0)?.stdout;
    for gone in [argument, "isolcpus", "bmslice.trial"] {
        ensure!(!line.contains(gone), "the server runs with {gone}: {line}");
    }
    let boot = lab.boot_id()?;
    lab.wait("the units to say that it went back", 4 * MINUTE, || {
        let state = lab.server("systemctl show -P ActiveState bmslice-slices.service")?;
        Ok((state.stdout.trim() == "failed").then_some(()))
    })?;
    let status = lab.server("bmslice status")?.expect(0)?.stdout;
    // The page is wrapped to the width of a terminal.
    let status = status.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in ["went back", argument, why] {
        ensure!(
            status.contains(said),
            "status does not say `{said}`: {status}"
        );
    }
    let again = lab
        .server(&format!("bmslice apply {BAD} --yes"))?
        .expect(1)?;
    for said in ["went back", "--try-again"] {
        ensure!(again.stderr.contains(said), "{}", again.stderr);
    }
    ensure!(lab.boot_id()? == boot, "it tried again, and nobody asked");
    lab.server("bmslice release --yes --delete-images")?
        .expect(0)?;
    untouched(lab)?;
    lab.server("! grep -q -e isolcpus -e bmslice /boot/grub/grub.cfg")?
        .expect(0)
        .context("release left something of ours in grub.cfg")?;
    let status = lab.server("bmslice status")?.expect(0)?.stdout;
    ensure!(!status.contains("went back"), "{status}");
    Ok(())
}

/// Without its initramfs the kernel finds no root file system.
pub fn panics(lab: &Lab, _: &mut Story) -> Result<()> {
    let argument = "rdinit=/nonexistent";
    apply_with(lab, argument, 10)?;
    let console = lab.run(&["console"])?.stdout;
    ensure!(
        console.contains("Kernel panic - not syncing: VFS"),
        "it did not panic, so nothing is proved:\n{console}"
    );
    is_back(lab, argument, "panicked or hung")
}

/// The kernel comes up, and the driver of the management NIC is refused.
pub fn cut_off(lab: &Lab, _: &mut Story) -> Result<()> {
    let argument = "module_blacklist=virtio_net";
    // As soon as may be: nothing confirms this boot, however slow it is.
    apply_with(lab, argument, 2)?;
    // Now and then the emulator trips a kernel that changes its own code while other CPUs run it.
    // The server goes back from that as well, and nothing is proved about its network.
    let console = lab.run(&["console"])?.stdout;
    let tried = console.rsplit("Loading Linux").nth(1).unwrap_or_default();
    if tried.contains("Kernel panic") {
        lab.say("  the emulated kernel crashed by itself: once more");
        let boot = lab.boot_id()?;
        let ran = lab.server(&format!("bmslice apply {BAD} --yes --try-again"))?;
        ensure!(ran.code == 0 || ran.code == 255, "{ran:?}");
        lab.wait_for_reboot(&boot, 14 * MINUTE)?;
    }
    is_back(lab, argument, "there is no interface `enp0s2`")
}
