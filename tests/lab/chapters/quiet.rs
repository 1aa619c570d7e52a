//! Isolation without a reboot: on the emulated server's own kernel, systemd and libvirt.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::asked::untouched;
use super::read::{comparable, ensure_same, inventory};
use super::{MINUTE, Story, slice};
use crate::lab::{Lab, Ran};

const DYNAMIC: &str = "/root/dynamic.yaml";

/// What the kernel may run where, a line each. Threads by their names: khugepaged ends when it has
/// nothing to do any more, and is another one when it has.
const WHERE: &str = "cd /proc/irq; for f in default_smp_affinity */smp_affinity_list; do \
    echo $f $(cat $f); done; cat /sys/devices/virtual/workqueue/cpumask; \
    for g in init.scope system.slice user.slice machine.slice bmslice.slice; do \
    echo $g $(cat /sys/fs/cgroup/$g/cpuset.cpus 2>/dev/null); done; \
    cat /sys/fs/cgroup/cgroup.subtree_control /sys/fs/cgroup/cpuset.cpus.effective; \
    cat /sys/kernel/mm/ksm/run /sys/kernel/mm/transparent_hugepage/enabled; \
    for p in 2 $(pgrep -x kauditd) $(pgrep -x khugepaged); do \
    echo $(cat /proc/$p/comm) $(grep Cpus_allowed_list /proc/$p/status); done";

fn places(lab: &Lab) -> Result<String> {
    Ok(lab.server(WHERE)?.expect(0)?.stdout)
}

/// What `verify` finds open, but for the switch, which nobody asked.
fn open(lab: &Lab) -> Result<Vec<String>> {
    let report = lab.server("bmslice verify -o json")?.json()?;
    let findings = report["findings"].as_array().context("no findings")?;
    Ok(findings
        .iter()
        .filter(|f| f["verdict"] != "satisfied" && f["check"] != "fabric")
        .map(Value::to_string)
        .collect())
}

pub fn dynamic(lab: &Lab, _: &mut Story) -> Result<()> {
    let status = lab.run(&["status", "-o", "json"])?.expect(0)?.json()?;
    let emulated = status["accel"] == "tcg";
    // Enough to write something to its console, and no login.
    let red = if emulated { 45 } else { 0 };
    let spec = lab.run(&["spec"])?.expect(0)?.stdout;
    let spec = spec
        .replace("isolation: boot", "isolation: dynamic")
        .replace("hugepages: 1GiB", "hugepages: 2MiB")
        .replace(
            "host:\n",
            "host:\n  ksm: true\n  transparentHugePages: never\n",
        )
        // What the NIC's own driver takes and tells of a VF beside its MAC and VLAN; it takes no
        // link state.
        .replace(
            "trust: false",
            "trust: true, spoofCheck: false, maxRate: 500M",
        )
        // No emulated guest is up so soon: Red is told, and Blue is not waited for.
        .replacen(
            "upWithinSeconds: 900",
            &format!("upWithinSeconds: {red}"),
            1,
        )
        .replace("upWithinSeconds: 900", "upWithinSeconds: 0");
    for part in [
        "isolation: dynamic",
        "ksm: true",
        "transparentHugePages: never",
        "spoofCheck: false, maxRate: 500M",
        "upWithinSeconds: 0",
    ] {
        ensure!(spec.contains(part), "no {part} in {spec}");
    }
    lab.server_with(&format!("cat > {DYNAMIC}"), spec.as_bytes())?
        .expect(0)?;
    let boot = lab.boot_id()?;
    let before = comparable(inventory(lab)?);
    let places_before = places(lab)?;
    let plan = lab
        .server(&format!("bmslice plan {DYNAMIC} -o json"))?
        .expect(0)?
        .json()?;
    let isolated = plan["host"]["isolated"].as_str().context("no CPUs")?;
    let blue = &slice(&plan, "blue")?["nics"][0];
    let settings_before = settings(lab)?;
    let rules_before = rules(lab, blue)?;
    let ran = lab
        .server(&format!("bmslice apply {DYNAMIC} --yes"))?
        .expect(if emulated { 1 } else { 0 })?;
    ensure!(lab.boot_id()? == boot, "it rebooted");
    if emulated {
        not_up_yet(lab, &ran)?;
    }
    let asked = ["1", "always madvise [never]"].map(str::to_owned);
    ensure!(
        settings_before != asked && settings(lab)? == asked,
        "KSM and transparent huge pages: {settings_before:?}, then {:?}",
        settings(lab)?
    );
    held_to_its_rules(lab, blue)?;

    in_force(lab, isolated)?;
    lab.server("systemctl daemon-reload && sleep 2")?
        .expect(0)?;
    in_force(lab, isolated).context("after a daemon-reload")?;
    // A guest that is still starting its threads, or a unit that was just moved, is waited for.
    let mut last = Vec::new();
    lab.wait("verify to hold", 2 * MINUTE, || {
        last = open(lab)?;
        Ok(last.is_empty().then_some(()))
    })
    .with_context(|| last.join("\n"))?;
    shown(lab)?;
    let again = lab
        .server(&format!("bmslice apply {DYNAMIC} --yes"))?
        .expect(0)?;
    ensure!(
        format!("{}{}", again.stdout, again.stderr).contains("Everything held already"),
        "a second apply did something: {again:?}"
    );
    // What somebody does by hand is found.
    let pf = interface(blue)?;
    lab.server(&format!(
        "echo 0 > /sys/fs/cgroup/user.slice/cpuset.cpus && echo 0 > /sys/kernel/mm/ksm/run \
         && echo always > /sys/kernel/mm/transparent_hugepage/enabled \
         && ip link set dev {pf} vf {} max_tx_rate 0 && ip link set dev {pf} vf {} trust off",
        blue["index"], blue["index"]
    ))?
    .expect(0)?;
    let found = open(lab)?.join("\n");
    for part in [
        "user.slice",
        "(KSM)",
        "transparent huge pages",
        "at most 500 Mbit/s",
        "the trust in VF",
    ] {
        ensure!(found.contains(part), "`{part}` is not found: {found}");
    }

    // Guests that are still booting do not hear that they are to shut down.
    lab.server("bmslice release --yes --force --patience 20 --delete-images")?
        .expect(0)?;
    untouched(lab)?;
    // A NIC that was split has other interrupts after it: those that are still there count.
    let places_after = places(lab)?;
    for line in places_before.lines() {
        let key = line.split(' ').next().unwrap_or_default();
        let is_gone = key.ends_with("/smp_affinity_list") && !places_after.contains(key);
        ensure!(
            is_gone || places_after.lines().any(|after| after == line),
            "`{line}` before; after:\n{places_after}"
        );
    }
    let settings_after = settings(lab)?;
    ensure!(
        settings_after == settings_before,
        "KSM and transparent huge pages: {settings_before:?} before, {settings_after:?} after"
    );
    ensure_same(&rules_before, &rules(lab, blue)?, "the NIC of the VF")?;
    ensure_same(&before, &comparable(inventory(lab)?), "before and after")
}

/// KSM's state, and the word for transparent huge pages among the others.
fn settings(lab: &Lab) -> Result<[String; 2]> {
    let read = "cat /sys/kernel/mm/ksm/run /sys/kernel/mm/transparent_hugepage/enabled";
    let text = lab.server(read)?.expect(0)?.stdout;
    let mut lines = text.lines().map(str::to_owned);
    let mut line = || lines.next().context("a setting is not there");
    Ok([line()?, line()?])
}

/// The interface of a VF's physical function.
fn interface(nic: &Value) -> Result<&str> {
    let name = nic["pf"]["interface"].as_str();
    name.with_context(|| format!("no interface in {nic}"))
}

/// Whether the NIC is up, and what it holds its VFs to.
fn rules(lab: &Lab, nic: &Value) -> Result<Value> {
    let ask = format!("ip -j link show dev {}", interface(nic)?);
    let link = lab.server(&ask)?.expect(0)?.json()?[0].take();
    Ok(json!({"flags": link["flags"], "vfs": link["vfinfo_list"]}))
}

/// The kernel's own words for what the spec says.
fn held_to_its_rules(lab: &Lab, nic: &Value) -> Result<()> {
    let vf = rules(lab, nic)?["vfs"][nic["index"].as_u64().context("no index")? as usize].take();
    for (field, asked) in [
        ("address", nic["mac"].clone()),
        ("vlan_list", json!([{"vlan": nic["vlan"]}])),
        ("trust", json!(true)),
        ("spoofchk", json!(false)),
        ("rate", json!({"max_tx": 500, "min_tx": 0})),
    ] {
        ensure!(vf[field] == asked, "{field} is not {asked}: {vf}");
    }
    Ok(())
}

/// What holds is told as well: each setting that the spec asks for, and the VF's rules.
fn shown(lab: &Lab) -> Result<()> {
    let report = lab.server("bmslice verify -o json")?.json()?;
    let findings = report["findings"].as_array().context("no findings")?;
    for (check, part) in [
        ("settings", "(KSM): on"),
        ("settings", "transparent huge pages: never"),
        ("vf-settings", "trusted, no spoof check, at most 500 Mbit/s"),
    ] {
        let found = findings.iter().any(|finding| {
            finding["check"] == check
                && finding["verdict"] == "satisfied"
                && finding["what"]
                    .as_str()
                    .is_some_and(|what| what.contains(part))
        });
        ensure!(found, "`{part}` is not told: {findings:?}");
    }
    Ok(())
}

/// Red had less time than it takes: that is told with the end of its console, by `status` too, and
/// nothing is stopped for it.
fn not_up_yet(lab: &Lab, ran: &Ran) -> Result<()> {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = plain(&ran.stdout);
    for part in [
        "`red-worker1` runs, but its agent did not answer within 45 s",
        "the last lines of its console:",
        "Nothing was stopped",
    ] {
        ensure!(said.contains(part), "`{part}` is not said: {ran:?}");
    }
    ensure!(!said.contains("`blue-worker1` runs"), "{said}");
    let status = lab.server("bmslice status -o json")?.expect(0)?.json()?;
    let red = &status["slices"][0];
    ensure!(
        red["state"] == "running" && red["notUp"].is_string() && red["console"].is_array(),
        "{red}"
    );
    Ok(())
}

fn in_force(lab: &Lab, isolated: &str) -> Result<()> {
    let group = "/sys/fs/cgroup/bmslice.slice";
    let read = |path: &str| -> Result<String> {
        let ran = lab.server(&format!("cat {path}"))?.expect(0)?;
        Ok(ran.stdout.trim().to_owned())
    };
    let state = read(&format!("{group}/cpuset.cpus.partition"))?;
    ensure!(state == "isolated", "the partition is `{state}`");
    let cpus = read("/sys/fs/cgroup/cpuset.cpus.isolated")?;
    ensure!(cpus == isolated, "{cpus} are isolated, not {isolated}");
    let scopes = lab.server(&format!("ls -d {group}/machine-qemu*.scope | wc -l"))?;
    ensure!(
        scopes.expect(0)?.stdout.trim() == "2",
        "the guests are not in the partition"
    );
    Ok(())
}
