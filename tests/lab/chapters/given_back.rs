//! `release`: the server as it was.

use anyhow::{Context, Result, ensure};

use super::asked::untouched;
use super::read::{comparable, ensure_same, inventory};
use super::{MINUTE, Story, slice};
use crate::lab::Lab;

pub fn release(lab: &Lab, story: &mut Story) -> Result<()> {
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

pub fn as_before(lab: &Lab, story: &mut Story) -> Result<()> {
    let boot = lab.boot_id()?;
    lab.server("systemctl reboot")?;
    lab.wait_for_reboot(&boot, 6 * MINUTE)?;
    let after = comparable(inventory(lab)?);
    ensure_same(&story.before, &after, "the server before and after")?;
    lab.show(&["down"])
}
