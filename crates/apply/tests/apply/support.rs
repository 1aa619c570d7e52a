//! A fake lab server, a plan for it, and what the units do after a boot.

use std::collections::BTreeMap;
use std::path::Path;

use bmslice_apply::{
    ApplyError, ApplyOptions, Event, Outcome, Phase, ReleaseOptions, Released, State, Which, apply,
    fall_back, release, resume, status,
};
use bmslice_host::fake::{FakeLoader, FakeMachine, FakeServer};
use bmslice_host::{DomainState, Machine};
use bmslice_inventory::{Inventory, LiveInventory};
use bmslice_model::ByteSize;
use bmslice_plan::{Plan, PlanParts};
use bmslice_spec::Slicing;

pub const BASE: &str = "/var/lib/libvirt/images/debian-12-guest.qcow2";
pub const HASH: &str = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/";
pub const BINARY: &str = "/usr/local/bin/bmslice";

/// Red with a whole card on node 0, Blue with a VF on node 1, both on boot-time huge pages.
pub fn spec() -> String {
    include_str!("../../../../examples/red-blue.yaml").replacen(
        "user: { name: ops, sshKeys: [], sudo: true }",
        "user: { name: ops, sshKeys: [], sudo: true, passwordHashFile: /root/ops.hash }",
        1,
    )
}

pub struct Server {
    pub fake: FakeMachine,
    pub plan: Plan,
}

/// The lab's server with a base image, and the plan of [`spec`] for it.
pub fn lab() -> Server {
    let fake = machine();
    let plan = plan(&fake, &spec());
    Server { fake, plan }
}

/// The same server, booted by systemd-boot.
pub fn efi() -> Server {
    server_of(FakeServer {
        loader: FakeLoader::SystemdBoot,
        ..FakeServer::lab()
    })
}

/// The same server, as Rocky Linux 9 boots it: GRUB with boot loader entries.
pub fn rocky() -> Server {
    server_of(FakeServer::rocky())
}

/// The same server, as Fedora IoT boots it: GRUB with the entries of ostree's deployments.
pub fn iot() -> Server {
    server_of(FakeServer::iot())
}

pub fn server_of(server: FakeServer) -> Server {
    let fake = machine_of(server);
    let plan = plan(&fake, &spec());
    Server { fake, plan }
}

pub fn machine() -> FakeMachine {
    machine_of(FakeServer::lab())
}

pub fn machine_of(server: FakeServer) -> FakeMachine {
    // A fake server is thousands of small files, and a crash at every effect takes hundreds of
    // servers: in memory that is seconds. Where there is no such folder it is only slower.
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        let _ = tempfile::env::override_temp_dir(memory);
    }
    let fake = FakeMachine::new(server);
    fake.add_image(BASE, ByteSize::from_gib(2), ByteSize::from_mib(1));
    // Debian's grub-mkconfig reads drop-ins, and says so.
    fake.put_with_mode(
        "/usr/sbin/grub-mkconfig",
        "#!/bin/sh\nfor x in ${sysconfdir}/default/grub.d/*.cfg ; do . $x; done\n",
        0o755,
    );
    fake.put_with_mode("/root/ops.hash", format!("{HASH}\n"), 0o600);
    fake
}

pub fn plan(fake: &FakeMachine, spec: &str) -> Plan {
    let slicing = Slicing::parse("test.yaml", spec).unwrap_or_else(|errors| panic!("{errors:?}"));
    bmslice_planner::plan(&slicing, &inventory(fake)).unwrap_or_else(|refusal| panic!("{refusal}"))
}

pub fn inventory(fake: &FakeMachine) -> LiveInventory {
    LiveInventory::read(fake, None).unwrap()
}

/// The facts that two looks at the same server share: not how much memory happens to be free.
pub fn facts(fake: &FakeMachine) -> Inventory {
    let mut inventory = inventory(fake).into_inner();
    for node in &mut inventory.nodes {
        node.memory_free = ByteSize::ZERO;
    }
    inventory
}

/// What an administrator would call his, without the lock's file.
pub fn state(fake: &FakeMachine) -> BTreeMap<String, String> {
    let mut state = fake.state();
    state.remove("/var/lib/bmslice/lock");
    state
}

/// What differs between two states, for messages.
pub fn differences(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<String> {
    let keys = before.keys().chain(after.keys());
    let mut lines: Vec<String> = keys
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| format!("{key}: {:?} -> {:?}", before.get(key), after.get(key)))
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

/// The arguments of the running kernel.
pub fn cmdline(fake: &FakeMachine) -> String {
    fake.root().read_text("/proc/cmdline").unwrap()
}

impl Server {
    pub fn options(&self) -> ApplyOptions {
        ApplyOptions {
            allow_reboot: true,
            binary: BINARY.into(),
            ..ApplyOptions::default()
        }
    }

    pub fn apply(&self) -> Result<Outcome, ApplyError> {
        self.apply_with(&self.options(), &mut |_| {})
    }

    /// Applies although the server went back from these kernel arguments.
    pub fn try_again(&self) -> Result<Outcome, ApplyError> {
        let options = ApplyOptions {
            try_again: true,
            ..self.options()
        };
        self.apply_with(&options, &mut |_| {})
    }

    pub fn apply_with(
        &self,
        options: &ApplyOptions,
        events: &mut dyn FnMut(Event),
    ) -> Result<Outcome, ApplyError> {
        let inventory = inventory(&self.fake);
        apply(&self.fake, &inventory, &self.plan, options, events)
    }

    /// Everything that a boot of the host does for us.
    pub fn reboot(&self) -> Option<Result<Outcome, ApplyError>> {
        let mut outcome = None;
        let units = |fake: &FakeMachine| {
            if fake
                .enabled_units()
                .contains(&"bmslice-host.service".to_owned())
            {
                outcome = Some(resume(fake, Phase::Host, BINARY, &mut |_| {}));
            }
        };
        self.fake.reboot_with(units);
        if !matches!(outcome, Some(Ok(_)) | None) {
            return outcome;
        }
        self.fake
            .enabled_units()
            .contains(&"bmslice-slices.service".to_owned())
            .then(|| resume(&self.fake, Phase::All, BINARY, &mut |_| {}))
    }

    /// Applies, and takes the reboot that it asks for.
    pub fn slice(&self) {
        assert_eq!(self.apply().unwrap(), Outcome::Rebooting);
        assert!(self.fake.reboot_requested());
        let outcome = self.reboot().unwrap().unwrap();
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    }

    pub fn release(&self) -> Result<Released, ApplyError> {
        let options = ReleaseOptions {
            delete_images: true,
            ..ReleaseOptions::default()
        };
        release(&self.fake, &Which::All, &options, &mut |_| {})
    }

    /// The arguments are there from now on, and no longer on trial.
    pub fn assert_kept_for_good(&self) {
        for _ in 0..3 {
            self.fake.reboot();
            let line = cmdline(&self.fake);
            assert!(
                line.contains("isolcpus=") && !line.contains("panic="),
                "{line}"
            );
        }
    }

    /// All that libvirt knows, running or not.
    pub fn domains(&self) -> Vec<DomainState> {
        self.fake.hypervisor().unwrap().domains().unwrap()
    }

    pub fn is_running(&self, name: &str) -> bool {
        let domains = self.domains();
        domains.iter().any(|d| d.name == name && d.running)
    }

    /// The same plan, changed by hand.
    pub fn change(mut self, change: impl FnOnce(&mut PlanParts)) -> Self {
        let mut parts = self.plan.into_parts();
        change(&mut parts);
        self.plan = Plan::new(parts).unwrap();
        self
    }
}

/// The steps that were done, from the events.
pub fn done(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Step {
                what,
                state: State::Done,
                ..
            } => Some(what.clone()),
            _ => None,
        })
        .collect()
}

pub fn notes(events: &[Event]) -> String {
    let notes = events.iter().filter_map(|event| match event {
        Event::Note(text) => Some(text.as_str()),
        _ => None,
    });
    notes.collect::<Vec<_>>().join("\n")
}

/// The reasons of a refusal.
pub fn refusal(result: Result<Outcome, ApplyError>) -> Vec<String> {
    match result.unwrap_err() {
        ApplyError::Refused { problems } => problems.into_iter().map(|p| p.text).collect(),
        error => panic!("not a refusal: {error}"),
    }
}

/// A kernel that does not find its init, and panics.
pub const PANICS: &str = "rdinit=/nonexistent";
/// A kernel that comes up without the management NIC.
pub const CUTS_OFF: &str = "module_blacklist=virtio_net";

pub fn with_argument(arg: &'static str) -> impl FnOnce(&mut PlanParts) {
    move |parts| parts.host.kernel_args.push(arg.parse().unwrap())
}

/// A server that went back tries the same only when it is asked to.
pub fn never_again_unasked(server: &Server) {
    let reasons = refusal(server.apply());
    assert!(reasons[0].contains("went back"), "{reasons:?}");
    for _ in 0..2 {
        let outcome = server.reboot().unwrap();
        assert!(
            matches!(outcome, Err(ApplyError::FellBack { .. })),
            "{outcome:?}"
        );
        assert!(!server.fake.reboot_requested(), "no boot loop");
    }
}

/// Whoever boots it: arguments that panic are gone back from, told, and tried again only when asked.
pub fn goes_back_from_a_panic(server: Server) {
    let server = server.change(with_argument(PANICS));
    let (before, line) = (state(&server.fake), cmdline(&server.fake));
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    let error = server.reboot().unwrap().unwrap_err();
    assert_eq!(server.fake.power_cycles(), 0, "nobody had to come");
    assert_eq!(cmdline(&server.fake), line);
    assert!(error.to_string().contains(PANICS), "{error}");
    assert!(error.to_string().contains("panicked or hung"), "{error}");
    let fell_back = status(&server.fake).unwrap().fell_back;
    assert!(fell_back.unwrap().contains(PANICS));
    never_again_unasked(&server);
    // Once more, when asked.
    assert_eq!(server.try_again().unwrap(), Outcome::Rebooting);
    server.reboot().unwrap().unwrap_err();
    server.release().unwrap();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

/// Whoever boots it: when a plan is confirmed and the next one panics, the server is back with what
/// the first has, and its guests run. `kept` is what keeps the arguments.
pub fn falls_back_to_what_was_confirmed<T: PartialEq + std::fmt::Debug>(
    sliced: Server,
    kept: impl Fn(&FakeMachine) -> T,
) -> Server {
    let confirmed = kept(&sliced.fake);
    let server = sliced.change(with_argument(PANICS));
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    assert_eq!(kept(&server.fake), confirmed);
    server.reboot().unwrap().unwrap_err();
    let line = cmdline(&server.fake);
    assert!(
        line.contains("isolcpus=") && !line.contains("trial"),
        "{line}"
    );
    assert!(server.is_running("red-worker1") && server.is_running("blue-worker1"));
    server
}

/// Whoever boots it: so are arguments that cost the server its management.
pub fn goes_back_without_management(server: Server) {
    let server = server.change(with_argument(CUTS_OFF));
    let before = state(&server.fake);
    server.apply().unwrap();
    server.reboot().unwrap().unwrap_err();
    assert!(cmdline(&server.fake).contains(CUTS_OFF), "it is up");
    // The timer of the unit elapses.
    assert!(fall_back(&server.fake, &mut |_| {}).unwrap());
    let error = server.reboot().unwrap().unwrap_err();
    assert!(!cmdline(&server.fake).contains(CUTS_OFF));
    assert!(
        error.to_string().contains("no interface `enp0s2`"),
        "{error}"
    );
    server.release().unwrap();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}
