//! `apply`: through a kill and a reboot, to guests that run and are what was asked for.

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use super::{MINUTE, SPEC, Story, name, slice};
use crate::lab::Lab;

pub fn apply(lab: &Lab, _: &mut Story) -> Result<()> {
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

pub fn resume(lab: &Lab, story: &mut Story) -> Result<()> {
    // The units go on by themselves; this call waits for them, and finds nothing left to do. Until
    // then a guest that runs is one that they wait for.
    let mut waited_for = false;
    lab.wait(
        "the units to finish, and the guests to be up",
        12 * MINUTE,
        || {
            let state = lab.server("systemctl show -P ActiveState bmslice-slices.service")?;
            let state = state.stdout.trim().to_owned();
            ensure!(
                state != "failed",
                "{}",
                lab.server("journalctl -b -u 'bmslice*' --no-pager")?.stdout
            );
            if !waited_for && state == "activating" {
                let status = lab.server("bmslice status -o json")?.expect(0)?.json()?;
                let mut slices = status["slices"].as_array().into_iter().flatten();
                waited_for = slices
                    .any(|slice| slice["notUp"].is_string() && slice["waitedForSeconds"].is_u64());
            }
            Ok((state == "active").then_some(()))
        },
    )?;
    // Under KVM they may be up before anybody asks.
    let lab_is = lab.run(&["status", "-o", "json"])?.expect(0)?.json()?;
    ensure!(
        waited_for || lab_is["accel"] != "tcg",
        "`status` did not say that guests are waited for"
    );
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
    let status = lab.server("bmslice status -o json")?.expect(0)?.json()?;
    for slice in status["slices"].as_array().context("no slices")? {
        ensure!(
            slice["notUp"].is_null() && slice["waitedForSeconds"].is_null(),
            "{slice}"
        );
    }
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

/// What a shell in the guest says, by the guest's agent.
fn guest(lab: &Lab, domain: &str, line: &str) -> Result<Option<String>> {
    let agent = |request: &Value| -> Result<Option<Value>> {
        let ran = lab.server_with(
            &format!("timeout 60 virsh qemu-agent-command {domain} --timeout 50 \"$(cat)\""),
            request.to_string().as_bytes(),
        )?;
        // A guest that still boots has no agent.
        (ran.code == 0).then(|| ran.json()).transpose()
    };
    let request = json!({"execute": "guest-exec", "arguments":
        {"path": "/bin/sh", "arg": ["-c", line], "capture-output": true}});
    let Some(started) = agent(&request)? else {
        return Ok(None);
    };
    let status = json!({"execute": "guest-exec-status", "arguments":
        {"pid": started["return"]["pid"]}});
    lab.wait("the guest's shell", 2 * MINUTE, || {
        let Some(status) = agent(&status)? else {
            return Ok(None);
        };
        let result = &status["return"];
        let out = result["out-data"].as_str().unwrap_or_default();
        Ok((result["exited"] == true).then(|| out.to_owned()))
    })
    .and_then(|out| Ok(String::from_utf8(BASE64_STANDARD.decode(out)?)?))
    .map(Some)
}

/// cloud-init has done what the spec says, and the guest sees the CPUs, memory and NICs of the plan.
pub fn inside(lab: &Lab, story: &mut Story) -> Result<()> {
    for tenant in ["red", "blue"] {
        let slice = slice(&story.plan, tenant)?;
        let domain = name(&story.plan, tenant)?;
        lab.wait("cloud-init to be done", 8 * MINUTE, || {
            let done = guest(
                lab,
                domain,
                "test -e /var/tmp/first-commands-ran && echo done",
            )?;
            Ok(done.is_some_and(|said| said.contains("done")).then_some(()))
        })?;
        let see = |line: &str, wanted: &str| -> Result<()> {
            let said = guest(lab, domain, line)?.context("the agent went away")?;
            ensure!(
                said.lines().any(|found| found.trim() == wanted),
                "{domain}: `{line}` says\n{said}and not `{wanted}`"
            );
            Ok(())
        };
        see("hostname", domain)?;
        see(
            "nproc",
            &slice["vcpus"].as_array().map_or(0, Vec::len).to_string(),
        )?;
        see("sudo -l -U ops", "(ALL) NOPASSWD: ALL")?;
        // The hash of the file that the spec names, and no other.
        let hash = lab.server("cat /root/ops.hash")?.expect(0)?.stdout;
        see("cut -d: -f2 /etc/shadow", hash.trim())?;
        let nic = &slice["nics"][0];
        let mac = nic["mac"].as_str().context("no MAC")?;
        see("cat /sys/class/net/nic0/address", mac)?;
        let address = nic["guestNetwork"]["addresses"][0]
            .as_str()
            .context("no address in the plan")?;
        see("ip -o -4 address show nic0 | awk '{print $4}'", address)?;
        // The guest's NUMA cells are the plan's.
        let cells = slice["cells"].as_array().map_or(0, Vec::len);
        see(
            "ls -d /sys/devices/system/node/node[0-9]* | wc -l",
            &cells.to_string(),
        )?;
    }
    Ok(())
}
