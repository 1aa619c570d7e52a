//! No secret where everybody on the server can read it.

use anyhow::{Result, ensure};

use super::asked::untouched;
use super::{SPEC, Story};
use crate::lab::Lab;

/// Runs a shell line, and counts how often the password's hash was seen in `/proc/*/cmdline`
/// meanwhile. The pattern comes from a file, or grep would find itself.
fn seen_while(lab: &Lab, line: &str) -> Result<u64> {
    let ran = lab
        .server(&format!(
            "touch /root/watch; \
             (while [ -e /root/watch ]; do cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'; done \
              | grep -F -c -f /root/ops.hash > /root/seen) & \
             {{ {line}; }} > /dev/null 2>&1; rm /root/watch; wait; cat /root/seen"
        ))?
        .expect(0)?;
    Ok(ran.stdout.trim().parse()?)
}

pub fn no_arguments(lab: &Lab, _: &mut Story) -> Result<()> {
    let control = "sh -c 'sleep 3; :' sh \"$(cat /root/ops.hash)\"";
    ensure!(
        seen_while(lab, control)? > 0,
        "a hash that is an argument was not seen"
    );
    let seen = seen_while(lab, &format!("bmslice apply {SPEC} --no-reboot"))?;
    ensure!(seen == 0, "the hash was an argument {seen} times");
    // It did get as far as the seeds, which hold it and which only root reads.
    let seeds = "/var/lib/libvirt/images/*seed*";
    lab.server(&format!(
        "ls {seeds} && grep -l -a -F -f /root/ops.hash {seeds} && test -z \"$(find {seeds} -perm /077)\""
    ))?
    .expect(0)?;
    lab.server(
        "! grep -r -F -q -f /root/ops.hash /var/lib/bmslice && ! journalctl -b | grep -F -q -f /root/ops.hash",
    )?
    .expect(0)?;
    lab.server("bmslice release --yes --delete-images")?
        .expect(0)?;
    untouched(lab)
}
