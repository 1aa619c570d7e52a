//! What is not the spec's fault: libvirt is down, a disk runs full.

use anyhow::{Context, Result, ensure};

use super::asked::untouched;
use super::{SPEC, Story};
use crate::lab::Lab;

const SOCKETS: &str = "libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd.service";

pub fn libvirt_down(lab: &Lab, _: &mut Story) -> Result<()> {
    lab.server(&format!("systemctl stop {SOCKETS} 2>/dev/null; true"))?
        .expect(0)?;
    let ran = lab.server(&format!("bmslice apply {SPEC} --yes"));
    lab.server(&format!("systemctl start {SOCKETS}"))?
        .expect(0)?;
    let ran = ran?.expect(3)?;
    for word in ["libvirt", "systemctl start libvirtd"] {
        ensure!(
            ran.stderr.contains(word),
            "`{word}` is not said:\n{}",
            ran.stderr
        );
    }
    untouched(lab)
}

/// The base image is compressed, so its copy needs more than the base takes: what looked enough
/// beforehand runs out in the middle of the copy.
pub fn disk_full(lab: &Lab, _: &mut Story) -> Result<()> {
    let pool = "/mnt/small";
    lab.server(&format!(
        "set -e; mkdir -p {pool}; mount -t tmpfs -o size=560M,mode=711 tmpfs {pool}; \
         cp /var/lib/libvirt/images/debian-12-guest.qcow2 {pool}; \
         sed -e 's|isolation: boot.*|isolation: boot\\n  images: {pool}|' \
             -e 's|size: 8GiB }}|size: 8GiB, from: copy }}|' {SPEC} > /root/small.yaml; \
         grep -q 'images: {pool}' /root/small.yaml; grep -q 'from: copy' /root/small.yaml"
    ))?
    .expect(0)?;
    let ran = lab
        .server("bmslice apply /root/small.yaml --no-reboot")?
        .expect(3)?;
    ensure!(
        ran.stderr.contains(&format!("no space left in `{pool}`")),
        "it is not said that the disk is full:\n{}",
        ran.stderr
    );
    let list = || Ok::<_, anyhow::Error>(lab.server(&format!("ls {pool}"))?.expect(0)?.stdout);
    let left = list()?;
    ensure!(
        left.contains("red-worker1.qcow2") && !left.contains("blue") && !left.contains(".part"),
        "Red's disk was whole, and of Blue's nothing may be left:\n{left}"
    );
    // What it had done by then is given back.
    lab.server("bmslice release --yes --delete-images")?
        .expect(0)?;
    untouched(lab)?;
    let left = list()?;
    ensure!(
        left.trim() == "debian-12-guest.qcow2",
        "release was to delete the disks, and left\n{left}"
    );
    lab.server(&format!("umount {pool} && rmdir {pool}"))?
        .expect(0)
        .context("something still uses the small file system")?;
    Ok(())
}
