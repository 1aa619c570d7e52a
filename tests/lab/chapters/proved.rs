//! `verify`: it holds, and it finds what somebody did by hand.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{MINUTE, SPEC, Story, name, slice};
use crate::lab::{Lab, Ran};

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

pub fn verify(lab: &Lab, story: &mut Story) -> Result<()> {
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

pub fn wrong_pin(lab: &Lab, story: &mut Story) -> Result<()> {
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

pub fn wrong_vlan(lab: &Lab, story: &mut Story) -> Result<()> {
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

pub fn foreign_domain(lab: &Lab, story: &mut Story) -> Result<()> {
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
