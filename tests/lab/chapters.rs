//! The chapters, in their order.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::{Lab, Ran};

const MINUTE: Duration = Duration::from_secs(60);
const SPEC: &str = "/root/red-blue.yaml";
const PLAN: &str = "/root/plan.json";

type Chapter = fn(&Lab, &mut Story) -> Result<()>;

/// What later chapters know of earlier ones.
#[derive(Default)]
pub struct Story {
    /// The server before anything was done to it.
    before: Value,
    /// The plan.
    plan: Value,
}

const CHAPTERS: [(&str, Chapter); 14] = [
    ("a pristine server starts", start),
    (
        "inspect reads it, live and from a copy of its files alike",
        inspect,
    ),
    ("doctor finds it fit", doctor),
    (
        "a spec with mistakes is refused, and nothing is done",
        bad_specs,
    ),
    (
        "plan gives Red a whole NIC on the first node and Blue a VF on the last",
        plan,
    ),
    ("a dry run changes nothing", dry_run),
    (
        "apply killed in the middle, then again, takes the reboot",
        apply,
    ),
    (
        "after the reboot both guests run, and apply has nothing to do",
        resume,
    ),
    ("the fabric learns both guests, and verify holds", verify),
    ("a wrong pin is found", wrong_pin),
    ("a NIC in the wrong VLAN is found", wrong_vlan),
    (
        "a domain of somebody else's is never taken over",
        foreign_domain,
    ),
    ("release gives the server back", release),
    ("after a reboot it is as it was", as_before),
];

/// Tells the story.
pub fn tell(lab: &Lab, passed: &mut usize) -> Result<()> {
    let mut story = Story::default();
    for (name, chapter) in CHAPTERS {
        lab.say(name);
        chapter(lab, &mut story).with_context(|| format!("chapter: {name}"))?;
        *passed += 1;
    }
    Ok(())
}

fn start(lab: &Lab, _: &mut Story) -> Result<()> {
    // While a chapter is written, the server that runs will do: `BMSLICE_STORY=running`.
    if std::env::var("BMSLICE_STORY").is_ok_and(|wish| wish == "running") {
        lab.say("  the running server is taken as it is");
    } else {
        lab.show(&["stop"])?;
        lab.show(&["reset"])?;
        lab.show(&["start"])?;
    }
    lab.install()?;
    let spec = lab.run(&["spec"])?.expect(0)?;
    lab.server_with(&format!("cat > {SPEC}"), spec.stdout.as_bytes())?
        .expect(0)?;
    Ok(())
}

fn inventory(lab: &Lab) -> Result<Value> {
    lab.server("bmslice inspect -o json")?.expect(0)?.json()
}

/// The files that `inspect` reads, copied as a captured tree would hold them.
const COPY: &str = r#"set -e
rm -rf /root/tree; mkdir -p /root/tree; cd /
for path in sys/devices/system/cpu sys/devices/system/node sys/devices/pci* sys/devices/virtual/net \
  sys/bus/pci sys/class/net sys/kernel/iommu_groups sys/kernel/mm/hugepages sys/module/kvm* \
  sys/firmware/acpi/tables sys/class/dmi sys/devices/virtual/dmi sys/dev/block sys/devices/virtual/block sys/class/iommu \
  sys/devices/virtual/iommu sys/fs/cgroup/cgroup.controllers \
  proc/cmdline proc/cpuinfo proc/meminfo proc/swaps proc/net/route proc/net/ipv6_route proc/net/fib_trie \
  proc/net/if_inet6 proc/net/vlan proc/sys/kernel/hostname proc/sys/kernel/osrelease proc/self/status proc/self/mountinfo \
  proc/self/cgroup etc/os-release usr/lib/os-release etc/default/grub etc/default/grub.d boot/grub/grub.cfg \
  usr/sbin/update-grub usr/sbin/grub-mkconfig usr/share/misc/pci.ids dev/kvm proc/1/mountinfo; do
  # Many attributes cannot be read, or only written: the copy lacks them, as a capture would.
  [ -e "$path" ] && cp -a --parents "$path" /root/tree 2>/dev/null || true
done
bmslice inspect --root /root/tree -o json"#;

fn inspect(lab: &Lab, story: &mut Story) -> Result<()> {
    let live = inventory(lab)?;
    let cpus = live["cpus"].as_array().context("no CPUs")?;
    let topology = lab.run(&["status", "-o", "json"])?.expect(0)?.json()?;
    let shape = &topology["topology"];
    let count = |key: &str| {
        shape[key]
            .as_u64()
            .with_context(|| format!("lab status has no {key}"))
    };
    let threads = count("threads")?;
    ensure!(
        cpus.len() as u64 == count("sockets")? * count("cores")? * threads,
        "{} CPUs",
        cpus.len()
    );
    let nics = physical_nics(&live);
    ensure!(
        nics.len() as u64 == count("nodes")? * count("nics_per_node")?,
        "{} SR-IOV NICs",
        nics.len()
    );
    for nic in &nics {
        ensure!(
            nic["node"].is_u64() && nic["mac"].is_string(),
            "a NIC without node or MAC: {nic}"
        );
        ensure!(nic["driver"] == "igb", "a NIC without its driver: {nic}");
    }
    ensure!(
        live["boot"]["loader"]["kind"] == "grub",
        "boot loader: {}",
        live["boot"]["loader"]
    );
    ensure!(
        live["hypervisor"]["libvirt"]["kvm"] == true,
        "libvirt: {}",
        live["hypervisor"]
    );
    let needed = live["pci"]
        .as_array()
        .context("no PCI")?
        .iter()
        .filter(|f| {
            f["hostNeeds"]
                .as_array()
                .is_some_and(|needs| !needs.is_empty())
        });
    ensure!(
        needed.count() >= 2,
        "the root disk and the management NIC are not recognised"
    );
    let table = lab.server("bmslice inspect")?.expect(0)?.stdout;
    for nic in &nics {
        let address = nic["address"].as_str().context("a NIC without address")?;
        ensure!(
            table.contains(address),
            "the table lacks {address}:\n{table}"
        );
    }

    let copied = comparable(lab.server(COPY)?.expect(0)?.json()?);
    let live = comparable(inventory(lab)?);
    ensure_same(&live, &copied, "live and copied inventory")?;
    story.before = live;
    Ok(())
}

/// An inventory without what no file tells (libvirt's answers, the session that asks) and what
/// changes from one reading to the next (free memory).
fn comparable(mut inventory: Value) -> Value {
    inventory["hypervisor"] = Value::Null;
    inventory["notes"] = Value::Null;
    for node in inventory["nodes"].as_array_mut().into_iter().flatten() {
        node["memoryFree"] = Value::Null;
    }
    for function in inventory["pci"].as_array_mut().into_iter().flatten() {
        if let Some(needs) = function["hostNeeds"].as_array_mut() {
            needs.retain(|need| need["why"] != "session");
        }
    }
    inventory
}

fn physical_nics(inventory: &Value) -> Vec<&Value> {
    let functions = inventory["pci"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    functions
        .iter()
        .filter(|f| f["sriov"].is_object())
        .collect()
}

/// The first place where two values differ, said by its path.
fn ensure_same(a: &Value, b: &Value, what: &str) -> Result<()> {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            for key in x.keys().chain(y.keys()) {
                ensure_same(&a[key], &b[key], &format!("{what}, {key}"))?;
            }
            Ok(())
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            for (i, (x, y)) in x.iter().zip(y).enumerate() {
                ensure_same(x, y, &format!("{what}, {i}"))?;
            }
            Ok(())
        }
        _ => {
            ensure!(a == b, "{what}: {a} and {b}");
            Ok(())
        }
    }
}

fn doctor(lab: &Lab, _: &mut Story) -> Result<()> {
    lab.server("bmslice doctor")?.expect(0)?;
    let down = lab.server(
        "systemctl stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd.service 2>/dev/null; \
         bmslice doctor; code=$?; \
         systemctl start libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd.service; exit $code",
    )?;
    ensure!(
        down.code == 1,
        "doctor said {} while libvirtd was down\n{}",
        down.code,
        down.stdout
    );
    ensure!(
        down.stdout.contains("libvirt"),
        "it does not name libvirt:\n{}",
        down.stdout
    );
    Ok(())
}

fn bad_specs(lab: &Lab, _: &mut Story) -> Result<()> {
    let refused = |edit: &str, code: i32, says: &[&str]| -> Result<()> {
        let line =
            format!("sed -e '{edit}' {SPEC} > /root/bad.yaml; bmslice apply --yes /root/bad.yaml");
        let ran = lab.server(&line)?;
        ensure!(
            ran.code == code,
            "`{edit}`: exit code {}\n{}{}",
            ran.code,
            ran.stdout,
            ran.stderr
        );
        for word in says {
            ensure!(
                ran.stderr.contains(word),
                "`{edit}`: `{word}` is not said:\n{}",
                ran.stderr
            );
        }
        Ok(())
    };
    refused("s/vcpus:/vcpu:/", 1, &["bad.yaml:", "vcpu", "vcpus"])?;
    refused("s/1GiB/1GB/", 1, &["bad.yaml:", "GiB"])?;
    refused("s/vcpus: *[0-9]*/vcpus: 64/", 1, &["whole cores"])?;
    refused(
        "s/debian-12-guest.qcow2/missing.qcow2/",
        1,
        &["missing.qcow2"],
    )?;
    // A PCI address that is not there, and the management NIC by name.
    let management = lab
        .server("ip -o route get 1.1.1.1 | sed 's/.* dev \\([^ ]*\\).*/\\1/'")?
        .expect(0)?;
    let management = management.stdout.trim().to_owned();
    refused(
        "s/passthrough: *{[^}]*}/passthrough: { pci: 0000:7f:00.0 }/",
        1,
        &["0000:7f:00.0"],
    )?;
    refused(
        &format!("s/passthrough: *{{[^}}]*}}/passthrough: {{ name: {management} }}/"),
        1,
        &[&management, "route"],
    )?;
    let missing = lab.server("bmslice plan /root/nowhere.yaml")?;
    ensure!(
        missing.code != 0 && missing.stderr.contains("/root/nowhere.yaml"),
        "{missing:?}"
    );
    let unprivileged = lab.server(&format!(
        "cp {SPEC} /tmp/spec.yaml; chmod 644 /tmp/spec.yaml; setpriv --reuid nobody --clear-groups bmslice apply --yes /tmp/spec.yaml"
    ))?;
    ensure!(
        unprivileged.code == 3 && unprivileged.stderr.contains("root"),
        "{unprivileged:?}"
    );
    untouched(lab)
}

/// Nothing of ours is on the server.
fn untouched(lab: &Lab) -> Result<()> {
    lab.server(
        "test -z \"$(ls /etc/default/grub.d | grep bmslice; ls /etc/systemd/system | grep bmslice; virsh list --all --name)\" \
         && ! test -e /var/lib/bmslice/plan.json && cat /sys/bus/pci/devices/*/sriov_numvfs | grep -qv '[1-9]'",
    )?
    .expect(0)
    .context("something was left on the server")?;
    Ok(())
}

fn plan(lab: &Lab, story: &mut Story) -> Result<()> {
    let table = lab
        .server(&format!("bmslice plan {SPEC} --out {PLAN}"))?
        .expect(0)?;
    ensure!(
        table.stdout.contains("red") && table.stdout.contains("blue"),
        "{}",
        table.stdout
    );
    let plan = lab.server(&format!("cat {PLAN}"))?.expect(0)?.json()?;
    let again = lab
        .server(&format!("bmslice plan {SPEC} -o json"))?
        .expect(0)?
        .json()?;
    ensure_same(&plan, &again, "the plan and the same plan again")?;
    let (red, blue) = (slice(&plan, "red")?, slice(&plan, "blue")?);
    ensure!(
        red["nics"][0]["kind"] == "passthrough",
        "Red's NIC: {}",
        red["nics"]
    );
    ensure!(
        red["nics"][0]["device"]["node"] == 0 && red["cells"][0]["node"] == 0,
        "Red: {red}"
    );
    ensure!(
        blue["nics"][0]["kind"] == "vf" && blue["nics"][0]["vlan"] == 102,
        "{}",
        blue["nics"]
    );
    ensure!(blue["nics"][0]["mac"].is_string(), "Blue's VF has no MAC");
    let last = story.before["nodes"].as_array().map_or(0, Vec::len) as u64 - 1;
    ensure!(
        blue["nics"][0]["pf"]["node"] == last && blue["cells"][0]["node"] == last,
        "{blue}"
    );
    lab.server(&format!(
        "bmslice render {PLAN} --out /root/artifacts && ls /root/artifacts/domains"
    ))?
    .expect(0)?;
    story.plan = plan;
    Ok(())
}

fn slice<'a>(plan: &'a Value, tenant: &str) -> Result<&'a Value> {
    let slices = plan["slices"]
        .as_array()
        .context("the plan has no slices")?;
    slices
        .iter()
        .find(|s| s["tenant"] == tenant)
        .with_context(|| format!("no slice of {tenant}"))
}

fn name<'a>(plan: &'a Value, tenant: &str) -> Result<&'a str> {
    slice(plan, tenant)?["name"]
        .as_str()
        .context("a slice without a name")
}

fn dry_run(lab: &Lab, _: &mut Story) -> Result<()> {
    let ran = lab
        .server(&format!("bmslice apply {PLAN} --dry-run"))?
        .expect(0)?;
    let said = format!("{}{}", ran.stdout, ran.stderr);
    for word in ["90-bmslice.cfg", "isolcpus", "reboot"] {
        ensure!(
            said.contains(word),
            "the dry run does not say `{word}`:\n{said}"
        );
    }
    untouched(lab)
}

fn apply(lab: &Lab, _: &mut Story) -> Result<()> {
    // Without a word of consent there is no reboot, and no half effect either.
    let boot = lab.boot_id()?;
    let killed = lab.server(&format!(
        "bmslice apply {SPEC} --no-reboot & sleep 6; kill -9 $!; wait $!; echo killed $?"
    ))?;
    ensure!(
        killed.stdout.contains("killed 137"),
        "it was not killed in the middle: {killed:?}"
    );
    lab.server(&format!("bmslice apply {SPEC} --no-reboot"))?;
    lab.server("grep -q isolcpus=domain,managed_irq /boot/grub/grub.cfg")?
        .expect(0)?;
    ensure!(
        lab.boot_id()? == boot,
        "it rebooted although it was told not to"
    );
    // ssh may end with the server: the exit code of this one says nothing.
    let ran = lab.server(&format!("bmslice apply {SPEC} --yes"))?;
    ensure!(ran.code == 0 || ran.code == 255, "{ran:?}");
    lab.wait_for_reboot(&boot, 6 * MINUTE)
}

fn resume(lab: &Lab, story: &mut Story) -> Result<()> {
    // The units go on by themselves; this call waits for them, and finds nothing left to do.
    lab.wait("the units to finish", 8 * MINUTE, || {
        let state = lab.server("systemctl show -P ActiveState bmslice-slices.service")?;
        let state = state.stdout.trim().to_owned();
        ensure!(
            state != "failed",
            "{}",
            lab.server("journalctl -b -u 'bmslice*' --no-pager")?.stdout
        );
        Ok((state == "active").then_some(()))
    })?;
    let units = "journalctl -b -u bmslice-host.service -u bmslice-slices.service --no-pager";
    let again = lab
        .server(&format!("bmslice apply {SPEC} --yes"))?
        .expect(0)
        .with_context(|| {
            lab.server(units)
                .map_or_else(|e| e.to_string(), |ran| ran.stdout)
        })?;
    let said = format!("{}{}", again.stdout, again.stderr);
    ensure!(
        said.contains("Everything held already; nothing was done"),
        "a second apply did something:\n{said}"
    );
    for tenant in ["red", "blue"] {
        let domain = name(&story.plan, tenant)?;
        let state = lab
            .server(&format!("virsh domstate {domain}"))?
            .expect(0)?
            .stdout;
        ensure!(state.trim() == "running", "{domain} is {state}");
        let xml = lab
            .server(&format!("virsh dumpxml {domain}"))?
            .expect(0)?
            .stdout;
        ensure!(
            xml.contains("<domain type='kvm'"),
            "{domain} does not run under KVM"
        );
    }
    let isolated = lab
        .server("cat /sys/devices/system/cpu/isolated")?
        .expect(0)?
        .stdout;
    ensure!(
        isolated.trim() == story.plan["host"]["isolated"],
        "isolated: {isolated}"
    );
    Ok(())
}

/// Lets each guest send a frame, by its agent: an idle one says nothing for hours, and a switch that
/// has forgotten it learns nothing. A guest that is still booting has no agent yet, and sends by
/// itself.
fn stir(lab: &Lab) -> Result<()> {
    lab.server(
        r#"for guest in $(virsh list --name); do timeout 10 virsh qemu-agent-command "$guest" \
           '{"execute":"guest-exec","arguments":{"path":"ping","arg":["-c1","-w1","10.101.0.1"]}}'; \
           timeout 10 virsh qemu-agent-command "$guest" \
           '{"execute":"guest-exec","arguments":{"path":"ping","arg":["-c1","-w1","10.102.0.1"]}}'; done"#,
    )?;
    Ok(())
}

/// What `verify` says with the switch's table.
fn verified(lab: &Lab) -> Result<Ran> {
    let table = lab.run(&["fabric"])?.expect(0)?.stdout;
    lab.server_with("bmslice verify -o json --fabric -", table.as_bytes())
}

fn open_findings(report: &Value) -> Vec<String> {
    let findings = report["findings"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    findings
        .iter()
        .filter(|f| f["verdict"] != "satisfied")
        .map(Value::to_string)
        .collect()
}

fn verify(lab: &Lab, story: &mut Story) -> Result<()> {
    wait_until_verified(lab, 8 * MINUTE)?;
    let table = lab.run(&["fabric"])?.expect(0)?.stdout;
    for (tenant, vlan) in [("red", "101"), ("blue", "102")] {
        let mac = slice(&story.plan, tenant)?["nics"][0]["mac"]
            .as_str()
            .context("no MAC")?;
        let line = table.lines().find(|line| line.contains(mac));
        let line = line.with_context(|| format!("the switch has not learned {mac}:\n{table}"))?;
        ensure!(
            line.split_whitespace().nth(1) == Some(vlan),
            "{mac} is not in VLAN {vlan}: {line}"
        );
    }
    // Without the switch's table the fabric is unknown, and unknown is no success.
    let blind = lab.server("bmslice verify -o json")?;
    ensure!(
        blind.code == 1,
        "verify held without having seen the fabric"
    );
    lab.server("bmslice status")?.expect(0)?;
    Ok(())
}

fn wait_until_verified(lab: &Lab, patience: Duration) -> Result<()> {
    let mut last = String::new();
    let outcome = lab.wait("all verdicts to be satisfied", patience, || {
        let ran = verified(lab)?;
        if ran.code == 0 {
            return Ok(Some(()));
        }
        stir(lab)?;
        ensure!(ran.code == 1, "verify could not be carried out: {ran:?}");
        last = open_findings(&ran.json()?).join("\n");
        Ok(None)
    });
    outcome.with_context(|| format!("still open:\n{last}"))
}

fn wrong_pin(lab: &Lab, story: &mut Story) -> Result<()> {
    let red = slice(&story.plan, "red")?;
    let (domain, right) = (name(&story.plan, "red")?, &red["vcpus"][0]);
    let wrong = &red["vcpus"][1];
    lab.server(&format!("virsh vcpupin {domain} 0 {wrong} --live"))?
        .expect(0)?;
    let ran = verified(lab)?.expect(1)?;
    let open = open_findings(&ran.json()?);
    let found = open.iter().any(|f| {
        f.contains(r#""verdict":"differs""#)
            && f.contains(&format!(r#""want":"{right}""#))
            && f.contains(&format!(r#""got":"{wrong}""#))
    });
    ensure!(
        found,
        "the wrong pin was not found as wanted {right}, got {wrong}:\n{}",
        open.join("\n")
    );
    lab.server(&format!("virsh vcpupin {domain} 0 {right} --live"))?
        .expect(0)?;
    wait_until_verified(lab, 2 * MINUTE)
}

fn wrong_vlan(lab: &Lab, story: &mut Story) -> Result<()> {
    let red = &slice(&story.plan, "red")?["nics"][0];
    let port = red["fabric"]["port"].as_str().context("no port")?;
    lab.run(&["fabric", "set-vlan", port, "999"])?.expect(0)?;
    lab.wait(
        "the switch to learn Red in the wrong VLAN",
        4 * MINUTE,
        || {
            stir(lab)?;
            let open = open_findings(&verified(lab)?.json()?);
            let found = open.iter().any(|f| {
                f.contains(r#""verdict":"differs""#) && f.contains("999") && f.contains("101")
            });
            Ok(found.then_some(()))
        },
    )?;
    lab.run(&["fabric", "set-vlan", port, "101"])?.expect(0)?;
    wait_until_verified(lab, 4 * MINUTE)
}

fn foreign_domain(lab: &Lab, story: &mut Story) -> Result<()> {
    let domain = name(&story.plan, "blue")?;
    // A domain that bmslice did not define, and a spec whose slice has its name.
    let xml = "<domain type='kvm'><name>foreign</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>";
    lab.server_with(
        "cat > /root/foreign.xml; virsh define /root/foreign.xml",
        xml.as_bytes(),
    )?
    .expect(0)?;
    let ran = lab.server(&format!(
        "sed 's/name: {domain}$/name: foreign/' {SPEC} > /root/bad.yaml; \
         grep -q 'name: foreign' /root/bad.yaml && bmslice apply --yes /root/bad.yaml"
    ))?;
    ensure!(ran.code == 1 && ran.stderr.contains("foreign"), "{ran:?}");
    lab.server("virsh undefine foreign")?.expect(0)?;
    let state = lab
        .server(&format!("virsh domstate {domain}"))?
        .expect(0)?
        .stdout;
    ensure!(
        state.trim() == "running",
        "{domain} is {state} after a refusal"
    );
    Ok(())
}

fn release(lab: &Lab, story: &mut Story) -> Result<()> {
    let disk = slice(&story.plan, "red")?["disk"]["path"]
        .as_str()
        .context("no disk")?;
    lab.server("bmslice release --yes --force")?.expect(0)?;
    untouched(lab)?;
    lab.server(&format!("test -e {disk}"))?
        .expect(0)
        .context("the disk of a slice was deleted")?;
    lab.server("! grep -q isolcpus /boot/grub/grub.cfg")?
        .expect(0)?;
    let status = lab.server("bmslice status")?.expect(0)?;
    ensure!(!status.stdout.contains("running"), "{}", status.stdout);
    Ok(())
}

fn as_before(lab: &Lab, story: &mut Story) -> Result<()> {
    let boot = lab.boot_id()?;
    lab.server("systemctl reboot")?;
    lab.wait_for_reboot(&boot, 6 * MINUTE)?;
    let after = comparable(inventory(lab)?);
    ensure_same(&story.before, &after, "the server before and after")?;
    lab.show(&["stop"])
}
