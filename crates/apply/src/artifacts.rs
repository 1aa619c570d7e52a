//! What `render` makes of a plan, as the steps need it.

use bmslice_plan::{Plan, SlicePlan};
use bmslice_render::RenderError;

use crate::guest::{Customise, HashFile, PLACE, Seed};

pub struct Unit {
    pub name: String,
    pub content: String,
}

pub fn drop_in(plan: &Plan) -> (String, String) {
    let args: Vec<&str> = plan.host().kernel_args.iter().map(|a| a.as_str()).collect();
    (
        "90-bmslice.cfg".into(),
        format!(
            "GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {}\"\n",
            args.join(" ")
        ),
    )
}

pub fn units(_plan: &Plan, binary: &str) -> Vec<Unit> {
    [("bmslice-host.service", " --host"), ("bmslice-slices.service", "")]
        .map(|(name, arg)| Unit {
            name: name.into(),
            content: format!(
                "[Service]\nType=oneshot\nExecStart={binary} resume{arg}\n[Install]\nWantedBy=multi-user.target\n"
            ),
        })
        .into()
}

pub fn seed(slice: &SlicePlan) -> Result<Seed, RenderError> {
    let hash = slice
        .guest
        .user
        .as_ref()
        .and_then(|user| user.password_hash_file.clone())
        .map(HashFile);
    Ok(Seed {
        user_data: format!(
            "#cloud-config\nhostname: {}\npasswd: {}\n",
            slice.guest.hostname,
            if hash.is_some() { PLACE } else { "" }
        ),
        meta_data: format!("instance-id: {}\n", slice.uuid),
        network_config: None,
        hash,
    })
}

pub fn customise(slice: &SlicePlan) -> Customise {
    Customise {
        args: vec!["--hostname".into(), slice.guest.hostname.clone()],
        hash: None,
    }
}
