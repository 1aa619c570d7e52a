//! `doctor`, `plan`, refusals and a dry run: everything before anything is done.

use anyhow::{Context, Result, ensure};

use super::read::ensure_same;
use super::{PLAN, SPEC, Story, slice};
use crate::lab::Lab;

pub fn doctor(lab: &Lab, _: &mut Story) -> Result<()> {
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

pub fn bad_specs(lab: &Lab, _: &mut Story) -> Result<()> {
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
pub fn untouched(lab: &Lab) -> Result<()> {
    lab.server(
        "test -z \"$(ls /etc/default/grub.d /etc/grub.d /boot/grub | grep bmslice; ls /etc/systemd/system | grep bmslice; virsh list --all --name)\" \
         && ! test -e /var/lib/bmslice/plan.json && cat /sys/bus/pci/devices/*/sriov_numvfs | grep -qv '[1-9]'",
    )?
    .expect(0)
    .context("something was left on the server")?;
    Ok(())
}

pub fn plan(lab: &Lab, story: &mut Story) -> Result<()> {
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

pub fn dry_run(lab: &Lab, _: &mut Story) -> Result<()> {
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
