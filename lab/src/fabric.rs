//! The switch that the server's NICs are plugged into: an Open vSwitch of the lab's own, with its
//! own database, sockets and logs under the state folder, its datapath in user space, and one tap
//! per NIC, in the lab's network namespace. A user's own Open vSwitch is never spoken to.
//!
//! Even NICs are access ports of VLAN 101 (Red). Odd ones serve VLAN 102 (Blue) both untagged and
//! tagged, because the NIC itself inserts the tag of a VF.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::network::Network;
use crate::run::{Process, RunError, command, read, run};
use crate::state::{FabricRecord, State, StateError};
use crate::topology::{Nic, Tenant, Topology};

#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    #[error("the folder `{path}` of the fabric could not be used")]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the fabric is down; `bmslice-lab start` brings it up")]
    Down,
    #[error("the fabric has no port `{got}`; it has {}", .ports.join(", "))]
    NoPort { got: String, ports: Vec<String> },
    #[error("`{program}` started but left no process; see `{log}`")]
    NoProcess { program: &'static str, log: PathBuf },
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Run(#[from] RunError),
}

const BRIDGE: &str = "fabric";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// The parts of Open vSwitch, told where the lab keeps its own.
struct Switch {
    folder: PathBuf,
    network: Network,
}

impl Switch {
    fn new(state: &State) -> Self {
        Self {
            folder: state.path("fabric"),
            network: Network::of(state),
        }
    }

    fn command<const N: usize>(&self, program: &str, arguments: [&str; N]) -> Command {
        let mut command = command(program, arguments);
        self.at_home(&mut command);
        command
    }

    /// Sets where Open vSwitch's programs look for each other.
    fn at_home(&self, command: &mut Command) {
        for name in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
            command.env(name, &self.folder);
        }
        command.current_dir(&self.folder);
    }

    fn vsctl(&self) -> Command {
        self.command("ovs-vsctl", ["--db=unix:db.sock", "--timeout=20"])
    }

    fn appctl(&self) -> Command {
        let socket = self.folder.join("vswitchd.ctl");
        let mut appctl = self.command("ovs-appctl", ["-T", "10", "-t"]);
        appctl.arg(socket);
        appctl
    }

    /// The process that a daemon wrote into its pid file.
    fn process(&self, program: &'static str) -> Result<Process, FabricError> {
        fs::read_to_string(self.folder.join(format!("{program}.pid")))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .and_then(Process::find)
            .ok_or_else(|| FabricError::NoProcess {
                program,
                log: self.folder.join(format!("{program}.log")),
            })
    }
}

/// Whether the recorded switch still runs.
pub fn is_up(state: &State) -> bool {
    state
        .record
        .fabric
        .as_ref()
        .is_some_and(|up| up.database.alive() && up.switch.alive())
}

/// Brings the switch up with a port per NIC of the topology; a running one is taken as it is when
/// it has the right ports.
pub fn up(state: &mut State, topology: &Topology) -> Result<(), FabricError> {
    let ports: Vec<String> = topology.nics().iter().map(Nic::port).collect();
    if is_up(state)
        && state
            .record
            .fabric
            .as_ref()
            .is_some_and(|up| up.taps == ports)
    {
        return Ok(());
    }
    down(state)?;
    let switch = Switch::new(state);
    switch.network.make()?;
    let folder = switch.folder.clone();
    let bad = |source| FabricError::Folder {
        path: folder.clone(),
        source,
    };
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(bad)?;
    }
    fs::create_dir_all(&folder).map_err(bad)?;

    run(&mut switch.command("ovsdb-tool", ["create", "conf.db", SCHEMA]))?;
    run(&mut switch.command(
        "ovsdb-server",
        [
            "conf.db",
            "--remote=punix:db.sock",
            "--unixctl=ovsdb.ctl",
            "--pidfile=ovsdb-server.pid",
            "--log-file=ovsdb-server.log",
            "--no-chdir",
            "--detach",
        ],
    ))?;
    let database = switch.process("ovsdb-server")?;
    let started = start_switch(&switch).inspect_err(|_| database.end())?;
    state.record.fabric = Some(FabricRecord {
        database,
        switch: started,
        taps: ports.clone(),
    });
    state.save()?;

    for port in &ports {
        switch.network.ip(&["tuntap", "add", port, "mode", "tap"])?;
        switch.network.ip(&["link", "set", port, "up"])?;
    }
    run(switch.vsctl().args([
        "add-br",
        BRIDGE,
        "--",
        "set",
        "bridge",
        BRIDGE,
        "datapath_type=netdev",
    ]))?;
    for nic in topology.nics() {
        let port = nic.port();
        run(switch
            .vsctl()
            .args(["add-port", BRIDGE, &port, "--"])
            .args(settings(&nic, None))
            .args([
                "--",
                "set",
                "interface",
                &port,
                &format!("ofport_request={}", nic.ofport),
            ]))?;
    }
    Ok(())
}

fn start_switch(switch: &Switch) -> Result<Process, FabricError> {
    run(switch.vsctl().args(["--no-wait", "init"]))?;
    let mut daemon = switch.network.command("ovs-vswitchd");
    switch.at_home(&mut daemon);
    run(daemon.args([
        "unix:db.sock",
        "--unixctl=vswitchd.ctl",
        "--pidfile=ovs-vswitchd.pid",
        "--log-file=ovs-vswitchd.log",
        "--disable-system",
        "--no-chdir",
        "--detach",
    ]))?;
    switch.process("ovs-vswitchd")
}

/// How a port treats VLANs; `wrong` moves it into another one.
fn settings(nic: &Nic, wrong: Option<u16>) -> Vec<String> {
    let tenant = nic.tenant();
    let vlan = wrong.unwrap_or(tenant.vlan());
    let (mode, trunks) = match tenant {
        Tenant::Red => ("access", "[]".to_owned()),
        Tenant::Blue => ("native-untagged", vlan.to_string()),
    };
    vec![
        "set".to_owned(),
        "port".to_owned(),
        nic.port(),
        format!("vlan_mode={mode}"),
        format!("tag={vlan}"),
        format!("trunks={trunks}"),
    ]
}

/// Moves a port into a VLAN, or back into its own.
pub fn set_vlan(
    state: &State,
    topology: &Topology,
    port: &str,
    vlan: Option<u16>,
) -> Result<u16, FabricError> {
    if !is_up(state) {
        return Err(FabricError::Down);
    }
    let nics = topology.nics();
    let nic = nics
        .iter()
        .find(|nic| nic.port() == port)
        .ok_or_else(|| FabricError::NoPort {
            got: port.to_owned(),
            ports: nics.iter().map(Nic::port).collect(),
        })?;
    let switch = Switch::new(state);
    run(switch.vsctl().args(settings(nic, vlan)))?;
    // What was learned in the old VLAN would be shown for five minutes more.
    run(switch.appctl().args(["fdb/flush", BRIDGE]))?;
    Ok(vlan.unwrap_or(nic.tenant().vlan()))
}

/// What `bmslice verify --fabric -` reads: port numbers with names, then the MAC table, both as
/// Open vSwitch prints them.
pub fn show(state: &State) -> Result<String, FabricError> {
    if !is_up(state) {
        return Err(FabricError::Down);
    }
    let switch = Switch::new(state);
    let table = read(switch.appctl().args(["fdb/show", BRIDGE]))?;
    let ports = read(switch.vsctl().args([
        "--format=csv",
        "--no-headings",
        "--columns=ofport,name,mac_in_use",
        "list",
        "interface",
    ]))?;
    let mut lines: Vec<(u32, String)> = ports
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(',').map(|field| field.trim_matches('"'));
            let (number, name, mac) = (fields.next()?, fields.next()?, fields.next()?);
            let number: u32 = number.parse().ok()?;
            (number < 65_000).then(|| (number, format!(" {number}({name}): addr:{mac}")))
        })
        .collect();
    lines.sort();
    let ports: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
    Ok(format!("{}\n{table}", ports.join("\n")))
}

/// One line per port for people: name, NIC, VLAN.
pub fn ports(topology: &Topology) -> Vec<String> {
    topology
        .nics()
        .iter()
        .map(|nic| {
            let tenant = nic.tenant();
            let name = if tenant == Tenant::Red { "red" } else { "blue" };
            format!(
                "{} (port {}): NIC {} on node {}, {name}, VLAN {}",
                nic.port(),
                nic.ofport,
                nic.pci_address(topology.nodes),
                nic.node,
                tenant.vlan()
            )
        })
        .collect()
}

/// Takes away all that `up` made and nothing else.
pub fn down(state: &mut State) -> Result<(), FabricError> {
    if let Some(up) = state.record.fabric.take() {
        up.switch.end();
        up.database.end();
    }
    Ok(Network::of(state).remove()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blue_is_served_with_and_without_a_tag() {
        let nic = |index| Nic {
            node: 0,
            index,
            ofport: index + 1,
        };
        assert_eq!(
            settings(&nic(0), None)[2..],
            ["n0p0", "vlan_mode=access", "tag=101", "trunks=[]"]
        );
        assert_eq!(
            settings(&nic(1), None)[2..],
            ["n0p1", "vlan_mode=native-untagged", "tag=102", "trunks=102"]
        );
        assert_eq!(settings(&nic(0), Some(999))[4], "tag=999");
    }
}
