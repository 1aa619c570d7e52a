//! The last chapter: a server that systemd-boot boots, under UEFI, with kernel arguments that are
//! tried, confirmed, gone back to and taken out again.
//!
//! A small server of its own, in the place of the story's: four boots of four CPUs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::chapters::read::captured_alike;
use crate::lab::Lab;

const MINUTE: Duration = Duration::from_secs(60);
const NAME: &str =
    "on systemd-boot, arguments are tried, kept, gone back to, and taken out to the byte";
const SPEC: &str = "/root/one.yaml";
const BAD: &str = "/root/costs-the-server.yaml";
/// An argument that the kernel does not know, and [`HANGS`] does.
const HANG: &str = "lab.hang";

/// Ends PID 1 once systemd feeds the watchdog: on a signal like this it freezes (systemd(1),
/// `systemd.crash_reboot=`). The kernel runs on and panics at nothing; only the watchdog is left.
const HANGS: &str = "\
[Unit]
ConditionKernelCommandLine=lab.hang
DefaultDependencies=no

[Service]
Type=oneshot
ExecStart=sh -c 'until grep -qx active /sys/class/watchdog/watchdog0/state; do sleep 1; done; kill -SEGV 1'

[Install]
WantedBy=sysinit.target
";

/// One slice without a NIC, and boot arguments.
const ONE: &str = "\
apiVersion: bmslice/v1
kind: Slicing
host:
  reserve: { cores: 1, perNuma: true }
  isolation: boot
  fallBackMinutes: 6
slices:
  - name: only
    tenant: red
    upWithinSeconds: 0
    vcpus: 1
    emulator: { cores: 1 }
    memory: { size: 512MiB }
    image: { base: debian-12-guest.qcow2, size: 8GiB }
    user: { name: ops, passwordHashFile: /root/ops.hash }
";

/// Tells it, unless other chapters are asked for.
pub fn tell(lab: &Lab, passed: &mut usize) -> Result<()> {
    let wanted = std::env::var("BMSLICE_STORY_CHAPTERS").unwrap_or_default();
    if !wanted.is_empty() && !wanted.split(',').any(|part| NAME.contains(part)) {
        return Ok(());
    }
    lab.say(NAME);
    chapter(lab).with_context(|| format!("chapter: {NAME}"))?;
    *passed += 1;
    Ok(())
}

fn chapter(lab: &Lab) -> Result<()> {
    // While it is written, the server that runs will do: `BMSLICE_STORY=running`.
    if std::env::var("BMSLICE_STORY").is_ok_and(|wish| wish == "running") {
        lab.say("  the running server is taken as it is");
    } else {
        lab.show(&["stop"])?;
        lab.show(&["reset"])?;
        let shape = ["--topology", "1x4x1", "--memory-per-node", "4GiB"];
        lab.show(&[&["start", "--loader", "systemd-boot"], &shape[..]].concat())?;
    }
    lab.install()?;
    lab.server_with(&format!("cat > {SPEC}"), ONE.as_bytes())?
        .expect(0)?;
    let before = kept(lab)?;
    ensure!(
        before.contains("options "),
        "there are no entries: {before}"
    );
    let inspect = lab.server("bmslice inspect")?.expect(0)?.stdout;
    ensure!(
        inspect.contains("systemd-boot, reads /boot/efi/loader/entries"),
        "{inspect}"
    );

    let read = captured_alike(lab)?;
    ensure!(
        read["boot"]["loader"]["kind"] == "systemdBoot",
        "boot loader: {}",
        read["boot"]["loader"]
    );

    tried_and_kept(lab)?;
    gone_back_from(lab)?;

    // A guest that was started a minute ago does not hear that it is to shut down.
    lab.server("bmslice release --yes --force --patience 10 --delete-images")?
        .expect(0)?;
    let after = kept(lab)?;
    ensure!(
        before == after,
        "before release:\n{before}\nafter it:\n{after}"
    );
    lab.server("! find /boot/efi /etc/kernel -name '*bmslice*' | grep .")?
        .expect(0)?;
    reboot(lab, "systemctl reboot")?;
    let line = cmdline(lab)?;
    ensure!(
        !line.contains("isolcpus") && !line.contains("bmslice"),
        "{line}"
    );
    lab.show(&["down"])?;
    lab.show(&["reset"])
}

/// All that says how the server boots, to the byte, but for what firmware counts.
fn kept(lab: &Lab) -> Result<String> {
    let ran = lab.server(
        "cd /boot/efi/loader; for f in loader.conf entries/*; do echo \"== $f\"; base64 -w0 $f; echo; cat $f; done; \
         ls -la --time-style=+ /etc/kernel; cat /etc/kernel/cmdline 2>/dev/null; \
         cd /sys/firmware/efi/efivars; ls LoaderEntryOneShot* LoaderEntryDefault* 2>/dev/null; true",
    )?;
    Ok(ran.expect(0)?.stdout)
}

fn cmdline(lab: &Lab) -> Result<String> {
    Ok(lab.server("cat /proc/cmdline")?.expect(0)?.stdout)
}

/// What `bootctl` says of the default.
fn default(lab: &Lab) -> Result<String> {
    let list = lab.server("bootctl --no-pager list")?.expect(0)?.stdout;
    let found = list.split("\n\n").find(|entry| entry.contains("(default)"));
    Ok(found
        .with_context(|| format!("no default: {list}"))?
        .to_owned())
}

fn reboot(lab: &Lab, line: &str) -> Result<()> {
    let boot = lab.boot_id()?;
    // ssh may end with the server: the exit code of this one says nothing.
    let ran = lab.server(line)?;
    ensure!(ran.code == 0 || ran.code == 255, "{ran:?}");
    // One that hangs is reset a minute after systemd last fed the watchdog.
    lab.wait_for_reboot(&boot, 14 * MINUTE)
}

fn wait_for_unit(lab: &Lab, wanted: &str) -> Result<()> {
    lab.wait("the units", 4 * MINUTE, || {
        let state = lab.server("systemctl show -P ActiveState bmslice-slices.service")?;
        Ok((state.stdout.trim() == wanted).then_some(()))
    })
}

fn tried_and_kept(lab: &Lab) -> Result<()> {
    reboot(lab, &format!("bmslice apply {SPEC} --yes"))?;
    let line = cmdline(lab)?;
    for word in ["isolcpus=", "bmslice.trial=", "panic=30"] {
        ensure!(
            line.contains(word),
            "the boot on trial has no {word}: {line}"
        );
    }
    wait_for_unit(lab, "active")?;
    let entry = default(lab)?;
    ensure!(
        entry.contains("isolcpus="),
        "the default is without: {entry}"
    );
    ensure!(
        !entry.contains("bmslice.trial"),
        "the default is the trial: {entry}"
    );
    let again = lab
        .server(&format!("bmslice apply {SPEC} --yes"))?
        .expect(0)?;
    ensure!(
        format!("{}{}", again.stdout, again.stderr).contains("Everything held already"),
        "a second apply did something: {again:?}"
    );
    let running = lab.server("virsh domstate only")?.expect(0)?.stdout;
    ensure!(running.contains("running"), "{running}");
    Ok(())
}

/// A plan whose arguments hang the server: the watchdog resets it, back to those that were confirmed.
fn gone_back_from(lab: &Lab) -> Result<()> {
    lab.server_with(
        "cat > /etc/systemd/system/lab-hang.service && systemctl enable lab-hang.service",
        HANGS.as_bytes(),
    )?
    .expect(0)?;
    lab.server(&format!(
        "sed -e 's|isolation: boot|isolation: boot\\n  kernelArgs: [\"{HANG}\"]|' {SPEC} > {BAD}; grep -q kernelArgs {BAD}"
    ))?
    .expect(0)?;
    reboot(lab, &format!("bmslice apply {BAD} --yes"))?;
    let console = lab.run(&["console"])?.stdout;
    // The boot on trial, between the last two times that the firmware started the loader: the device
    // was let go of without being stopped, and nobody restarted the system.
    let mut boots = console.rsplit("BdsDxe: starting Boot");
    let tried = boots.nth(1).context("one boot on the console")?;
    ensure!(
        tried.contains("watchdog did not stop")
            && !tried.contains("Restarting system")
            && !tried.contains("Kernel panic"),
        "it did not hang, so nothing is proved:\n{console}"
    );
    let line = cmdline(lab)?;
    ensure!(
        line.contains("isolcpus=") && !line.contains(HANG) && !line.contains("bmslice.trial"),
        "not the arguments that were confirmed: {line}"
    );
    wait_for_unit(lab, "failed")?;
    let status = lab.server("bmslice status")?.expect(0)?.stdout;
    // The page is wrapped to the width of a terminal.
    let status = status.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in ["went back", HANG, "panicked or hung"] {
        ensure!(
            status.contains(said),
            "status does not say `{said}`: {status}"
        );
    }
    let again = lab
        .server(&format!("bmslice apply {BAD} --yes"))?
        .expect(1)?;
    ensure!(again.stderr.contains("--try-again"), "{}", again.stderr);
    Ok(())
}
