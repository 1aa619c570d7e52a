//! The programs of the server, as far as `bmslice` calls them.
//!
//! Takes argv; gives standard output, or an exit status with the program's own words. Keeps true:
//! what a program would change is changed, what it would refuse is refused, and an option or verb
//! that is not acted out is an error rather than silence.

use serde_json::{Value, json};

use super::grub;
use super::pci::{Function, Net};
use super::world::World;

/// Standard output, or exit status and standard error.
pub type Answer = Result<String, (i32, String)>;

pub fn fail(status: i32, text: impl Into<String>) -> Answer {
    Err((status, text.into()))
}

impl World {
    /// Runs a program; with `half` only as far as a kill in its middle would let it.
    pub fn command(&mut self, program: &str, args: &[String], half: bool) -> Answer {
        match program {
            "qemu-img" => return self.qemu_img(args, half),
            "genisoimage" | "mkisofs" | "xorriso" | "xorrisofs" => {
                return self.make_iso(program, args, half);
            }
            "virt-customize" | "virt-resize" => return self.guestfs(program, args, half),
            _ if half => return Ok(String::new()),
            _ => {}
        }
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        match program {
            "true" | "sync" | "chown" => Ok(String::new()),
            "chmod" => self.chmod(&words),
            "ethtool" => self.ethtool(&words),
            "ip" => self.ip(&words),
            "modprobe" => self.modprobe(&words),
            "udevadm" => match words.first() {
                Some(&("settle" | "trigger" | "control")) => Ok(String::new()),
                verb => fail(1, format!("Unknown command verb {}.", verb.unwrap_or(&""))),
            },
            "update-grub" => self.mkconfig(&["-o", "/boot/grub/grub.cfg"]),
            "grub-mkconfig" | "grub2-mkconfig" => self.mkconfig(&words),
            "systemctl" => self.systemctl(&words),
            "rmdir" => self.rmdir(&words),
            "bootctl" => self.bootctl(&words),
            "grub2-editenv" => self.editenv(&words),
            "grubby" => self.grubby(&words),
            "rpm-ostree" => self.rpm_ostree(&words),
            "taskset" => self.taskset(&words),
            other => fail(
                127,
                format!("{other}: the fake does not act this program out"),
            ),
        }
    }

    fn chmod(&mut self, words: &[&str]) -> Answer {
        let [mode, path] = words else {
            return fail(1, "chmod: missing operand");
        };
        let Ok(mode) = u32::from_str_radix(mode, 8) else {
            return fail(1, format!("chmod: invalid mode: '{mode}'"));
        };
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        match std::fs::set_permissions(self.tree.at(path), permissions) {
            Ok(()) => Ok(String::new()),
            Err(_) => fail(
                1,
                format!("chmod: cannot access '{path}': No such file or directory"),
            ),
        }
    }

    fn ethtool(&mut self, words: &[&str]) -> Answer {
        let ["-L", name, "combined", count] = words else {
            return fail(1, "ethtool: bad command line argument(s)");
        };
        let Some(function) = self.interface(name) else {
            return fail(1, "netlink error: No such device");
        };
        let (address, most) = (function.address, self.most_queues(function));
        match count.parse() {
            Ok(count) if (1..=most).contains(&count) => {
                self.set_queues(address, count);
                Ok(String::new())
            }
            Ok(_) => fail(
                1,
                "netlink error: requested channel count exceeds maximum (offset 36)\nnetlink error: Invalid argument",
            ),
            Err(_) => fail(1, "ethtool: bad command line argument(s)"),
        }
    }

    fn rmdir(&mut self, words: &[&str]) -> Answer {
        for path in words {
            let failed = |what: &str| fail(1, format!("rmdir: failed to remove '{path}': {what}"));
            if !self.tree.at(path).is_dir() {
                return failed("No such file or directory");
            }
            if !self.tree.list(path).is_empty() {
                return failed("Directory not empty");
            }
            self.tree.remove(path);
        }
        Ok(String::new())
    }

    fn modprobe(&mut self, words: &[&str]) -> Answer {
        for name in words.iter().filter(|word| !word.starts_with('-')) {
            match name.replace('_', "-").as_str() {
                driver @ ("vfio-pci" | "igb" | "igbvf" | "ixgbe" | "ixgbevf") => {
                    self.add_driver(driver);
                }
                "vfio" | "vfio-iommu-type1" | "kvm" | "kvm-amd" | "kvm-intel" => {
                    self.modules.insert(name.replace('-', "_"));
                }
                _ => {
                    return fail(
                        1,
                        format!(
                            "modprobe: FATAL: Module {name} not found in directory \
                             /lib/modules/{}",
                            self.server.kernel
                        ),
                    );
                }
            }
        }
        Ok(String::new())
    }

    fn mkconfig(&mut self, words: &[&str]) -> Answer {
        let text = match grub::generate(&self.tree, &self.server) {
            Ok(text) => text,
            Err(what) => return fail(2, format!("/usr/sbin/grub-mkconfig: {what}")),
        };
        let output = match words {
            [] => return Ok(text),
            ["-o" | "--output", path] => (*path).to_owned(),
            [one] => match one.strip_prefix("--output=") {
                Some(path) => path.to_owned(),
                None => return fail(1, format!("Unrecognized option `{one}'")),
            },
            _ => return fail(1, "Unrecognized options"),
        };
        if self.disk_full {
            // It writes `grub.cfg.new` and renames: the old one stays.
            self.tree.put(format!("{output}.new"), "", 0o600);
            return fail(
                1,
                format!(
                    "/usr/sbin/grub-mkconfig: cannot write {output}.new: No space left on device"
                ),
            );
        }
        self.tree.put(output, text, 0o600);
        Ok("Generating grub configuration file ...\ndone\n".into())
    }

    fn ip(&mut self, words: &[&str]) -> Answer {
        let options = words
            .iter()
            .take_while(|word| word.starts_with('-'))
            .count();
        let (options, rest) = words.split_at(options);
        let json = options.iter().any(|word| matches!(*word, "-j" | "-json"));
        match rest {
            ["link" | "l", "show" | "list" | "ls", select @ ..] => {
                let name = match select {
                    [] => None,
                    ["dev", name] | [name] => Some(*name),
                    _ => return fail(255, "Error: either \"dev\" is duplicate or garbage"),
                };
                self.ip_show(name, json)
            }
            ["link" | "l", "set", "dev", name, settings @ ..]
            | ["link" | "l", "set", name, settings @ ..] => self.ip_set(name, settings),
            _ => fail(
                1,
                format!(
                    "Command \"{}\" is unknown, try \"ip help\".",
                    rest.join(" ")
                ),
            ),
        }
    }

    fn ip_show(&self, name: Option<&str>, as_json: bool) -> Answer {
        let shown: Vec<&Function> = match name {
            Some(name) => match self.interface(name) {
                Some(function) => vec![function],
                None => return fail(1, format!("Device \"{name}\" does not exist.")),
            },
            None => self
                .functions
                .values()
                .filter(|function| function.has_interface())
                .collect(),
        };
        if as_json {
            let links: Vec<Value> = shown.into_iter().map(|of| self.link_json(of)).collect();
            return Ok(format!("{}\n", Value::Array(links)));
        }
        let mut text = String::new();
        for (i, function) in shown.into_iter().enumerate() {
            let Some(net) = &function.net else { continue };
            let (name, mac) = (&net.name, &net.mac);
            let (state, flags) = (link_state(net), flags(net).join(","));
            text.push_str(&format!(
                "{}: {name}: <{flags}> mtu 1500 qdisc mq state {state} mode DEFAULT \
                 group default qlen 1000\n    link/ether {mac} brd ff:ff:ff:ff:ff:ff\n",
                i + 2
            ));
            for (index, vf) in function.sriov.iter().flat_map(|s| &s.vfs).enumerate() {
                let vlan = match vf.vlan {
                    0 => String::new(),
                    vlan => format!(", vlan {vlan}"),
                };
                let on = |on| if on { "on" } else { "off" };
                text.push_str(&format!(
                    "    vf {index}     link/ether {} brd ff:ff:ff:ff:ff:ff{vlan}, spoof checking \
                     {}, link-state {}, trust {}\n",
                    vf.mac,
                    on(vf.spoof_check),
                    vf.link_state,
                    on(vf.trust),
                ));
            }
        }
        Ok(text)
    }

    fn link_json(&self, function: &Function) -> Value {
        let Some(net) = &function.net else {
            return Value::Null;
        };
        let mut link = json!({
            "ifname": net.name,
            "flags": flags(net),
            "mtu": 1500,
            "qdisc": if net.up { "mq" } else { "noop" },
            "operstate": link_state(net),
            "linkmode": "DEFAULT",
            "group": "default",
            "txqlen": 1000,
            "link_type": "ether",
            "address": net.mac,
            "broadcast": "ff:ff:ff:ff:ff:ff",
        });
        if let Some(sriov) = &function.sriov {
            let vfs = sriov.vfs.iter().enumerate().map(|(index, vf)| {
                let vlan = match vf.vlan {
                    0 => json!({}),
                    vlan => json!({ "vlan": vlan }),
                };
                json!({
                    "vf": index,
                    "link_type": "ether",
                    "address": vf.mac,
                    "broadcast": "ff:ff:ff:ff:ff:ff",
                    "vlan_list": [vlan],
                    "rate": { "max_tx": vf.max_rate, "min_tx": 0 },
                    "spoofchk": vf.spoof_check,
                    "link_state": vf.link_state,
                    "trust": vf.trust,
                })
            });
            link["vfinfo_list"] = Value::Array(vfs.collect());
        }
        link
    }

    fn ip_set(&mut self, name: &str, settings: &[&str]) -> Answer {
        let Some(function) = self.interface(name) else {
            return fail(1, format!("Cannot find device \"{name}\""));
        };
        let pf = function.address;
        match settings {
            [state @ ("up" | "down")] => {
                self.set_link(pf, *state == "up");
                Ok(String::new())
            }
            ["vf", index, rest @ ..] => {
                let Ok(index) = index.parse::<u16>() else {
                    return fail(
                        255,
                        format!("Error: argument \"{index}\" is wrong: Invalid \"vf\" value"),
                    );
                };
                self.ip_set_vf(pf, index, rest)
            }
            ["mtu" | "address" | "promisc", _] => Ok(String::new()),
            _ => fail(
                255,
                format!(
                    "Error: either \"dev\" is duplicate, or \"{}\" is a garbage.",
                    settings.join(" ")
                ),
            ),
        }
    }

    fn ip_set_vf(&mut self, pf: bmslice_model::PciAddress, index: u16, words: &[&str]) -> Answer {
        let Some(known) = self.vf_settings(pf, index) else {
            return fail(2, "RTNETLINK answers: Invalid argument");
        };
        let mut settings = known.clone();
        let mut words = words.iter();
        while let Some(key) = words.next() {
            let Some(value) = words.next() else {
                return fail(255, "Command line is not complete. Try option \"help\"");
            };
            let wrong = || {
                fail(
                    255,
                    format!("Error: argument \"{value}\" is wrong: Invalid \"{key}\" value"),
                )
            };
            let switch = match *value {
                "on" => Some(true),
                "off" => Some(false),
                _ => None,
            };
            match (*key, switch) {
                ("mac", _) => match value.parse::<bmslice_model::MacAddress>() {
                    // igb refuses what no station can have.
                    Ok(mac) if mac.is_group() => {
                        return fail(2, "RTNETLINK answers: Invalid argument");
                    }
                    Ok(mac) => settings.mac = mac.to_string(),
                    Err(_) => return wrong(),
                },
                ("vlan", _) => match value.parse() {
                    Ok(vlan) if vlan < 4096 => settings.vlan = vlan,
                    _ => return wrong(),
                },
                ("qos", _) => {}
                ("max_tx_rate", _) => match value.parse() {
                    Ok(rate) => settings.max_rate = rate,
                    Err(_) => return wrong(),
                },
                ("trust", Some(on)) => settings.trust = on,
                ("spoofchk", Some(on)) => settings.spoof_check = on,
                ("state", _) if ["auto", "enable", "disable"].contains(value) => {
                    settings.link_state = (*value).to_owned();
                }
                ("trust" | "spoofchk", None) => {
                    return fail(
                        1,
                        format!(
                            "Error: argument of \"{key}\" must be one of \"off\", \"on\", not \
                             \"{value}\""
                        ),
                    );
                }
                _ => return wrong(),
            }
        }
        let known = self.vf_settings(pf, index).cloned().unwrap_or_default();
        if let Some(refusal) = self.refuse_vf(pf, &known, &settings) {
            return refusal;
        }
        if let Some(known) = self.vf_settings(pf, index) {
            *known = settings;
        }
        Ok(String::new())
    }

    fn unit(&self, name: &str) -> Option<String> {
        ["/etc/systemd/system", "/usr/lib/systemd/system"]
            .iter()
            .map(|dir| format!("{dir}/{name}"))
            .find(|path| self.tree.exists(path))
    }

    fn systemctl(&mut self, words: &[&str]) -> Answer {
        let (options, words): (Vec<&str>, Vec<&str>) =
            words.iter().partition(|word| word.starts_with("--"));
        let Some((verb, units)) = words.split_first() else {
            return fail(1, "Too few arguments.");
        };
        let units: Vec<String> = units
            .iter()
            .map(|name| match name.contains('.') {
                true => (*name).to_owned(),
                false => format!("{name}.service"),
            })
            .collect();
        let mut said = String::new();
        match *verb {
            "daemon-reload" => self.reload_units(),
            "reset-failed" => {}
            "reboot" => self.reboot_requested = true,
            "enable" | "disable" | "reenable" => {
                for unit in &units {
                    said.push_str(&self.enable(unit, *verb != "disable")?);
                    if options.contains(&"--now") {
                        self.run_unit(unit, *verb != "disable");
                    }
                }
            }
            "is-enabled" => {
                let Some(unit) = units.first() else {
                    return fail(1, "Too few arguments.");
                };
                if self.unit(unit).is_none() {
                    return fail(
                        1,
                        format!(
                            "Failed to get unit file state for {unit}: No such file or directory"
                        ),
                    );
                }
                if self.wanted_by(unit).is_empty() {
                    return fail(1, "disabled");
                }
                said.push_str("enabled\n");
            }
            "is-active" => {
                let active = match units.first().map(String::as_str) {
                    Some("libvirtd.service" | "virtqemud.service" | "libvirtd.socket") => {
                        self.libvirtd
                    }
                    Some(unit) => self.unit(unit).is_some(),
                    None => false,
                };
                if !active {
                    return fail(3, "inactive");
                }
                said.push_str("active\n");
            }
            "start" | "restart" | "try-restart" | "stop" => {
                for unit in &units {
                    if self.unit(unit).is_none() {
                        let text = format!("Failed to {verb} {unit}: Unit {unit} not found.");
                        return fail(5, text);
                    }
                    self.run_unit(unit, *verb != "stop");
                }
            }
            other => return fail(1, format!("Unknown command verb {other}.")),
        }
        Ok(said)
    }

    fn run_unit(&mut self, unit: &str, on: bool) {
        if unit == "libvirtd.service" {
            self.libvirtd = on;
        } else if unit.ends_with(".slice") {
            self.run_slice(unit, on);
        }
    }

    /// The targets whose `.wants` has the unit.
    fn wanted_by(&self, unit: &str) -> Vec<String> {
        let dir = "/etc/systemd/system";
        let wants = self.tree.list(dir).into_iter();
        wants
            .filter(|name| name.ends_with(".wants") || name.ends_with(".requires"))
            .filter(|name| self.tree.at(format!("{dir}/{name}/{unit}")).is_symlink())
            .collect()
    }

    fn enable(&mut self, unit: &str, on: bool) -> Answer {
        let dir = "/etc/systemd/system";
        if !on {
            // Works without the unit file too: the links go.
            for wants in self.wanted_by(unit) {
                self.tree.remove(format!("{dir}/{wants}/{unit}"));
            }
            if self.unit(unit).is_none() {
                return fail(
                    1,
                    format!("Failed to disable unit: Unit file {unit} does not exist."),
                );
            }
            return Ok(String::new());
        }
        let Some(path) = self.unit(unit) else {
            return fail(
                1,
                format!("Failed to enable unit: Unit file {unit} does not exist."),
            );
        };
        let text = self.tree.read(&path).unwrap_or_default();
        let mut said = String::new();
        for line in text.lines() {
            let Some((key @ ("WantedBy" | "RequiredBy"), targets)) = line.split_once('=') else {
                continue;
            };
            let suffix = if key == "WantedBy" {
                "wants"
            } else {
                "requires"
            };
            for target in targets.split_whitespace() {
                let link = format!("{dir}/{target}.{suffix}/{unit}");
                self.tree.link(&link, &path);
                said.push_str(&format!("Created symlink {link} → {path}.\n"));
            }
        }
        Ok(said)
    }

    /// Enabled units, by name.
    pub fn enabled_units(&self) -> Vec<String> {
        let dir = "/etc/systemd/system";
        let mut units: Vec<String> = self
            .tree
            .list(dir)
            .into_iter()
            .filter(|name| name.ends_with(".wants") || name.ends_with(".requires"))
            .flat_map(|wants| self.tree.list(format!("{dir}/{wants}")))
            .collect();
        units.sort();
        units.dedup();
        units
    }
}

fn link_state(net: &Net) -> &'static str {
    if net.has_link() { "UP" } else { "DOWN" }
}

fn flags(net: &Net) -> Vec<&'static str> {
    let mut flags = vec!["BROADCAST", "MULTICAST"];
    match (net.up, net.has_link()) {
        (true, true) => flags.extend(["UP", "LOWER_UP"]),
        (true, false) => flags.extend(["NO-CARRIER", "UP"]),
        (false, _) => {}
    }
    flags
}
