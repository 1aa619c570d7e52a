# Runs as the last step of building the guest image's tree; $1 is the tree.
# A guest boots as a nested virtual machine, under emulation twice slow: what it
# does not need is masked, and cloud-init runs only the modules a slice is given.

echo localhost > "$tree/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost\n' > "$tree/etc/hosts"
no_identity
rm -f "$tree/etc/resolv.conf"
ln -s ../run/systemd/resolve/resolv.conf "$tree/etc/resolv.conf"

# -- cloud-init: NoCloud only, networkd, the modules that a seed speaks to ----------
cat > "$tree/etc/cloud/cloud.cfg" <<'EOF'
users: [default]
disable_root: false
preserve_hostname: false
datasource_list: [NoCloud, None]
ssh_genkeytypes: [ed25519]
ssh_quiet_keygen: true
no_ssh_fingerprints: true
growpart: { mode: growpart, devices: [/], ignore_growroot_disabled: true }
cloud_init_modules: [bootcmd, write-files, growpart, resizefs, set_hostname, update_hostname, update_etc_hosts, users-groups, ssh]
cloud_config_modules: [set-passwords, timezone, runcmd]
cloud_final_modules: [write-files-deferred, scripts-per-once, scripts-per-boot, scripts-per-instance, scripts-user, final-message, power-state-change]
output: { all: '>> /var/log/cloud-init-output.log' }
system_info:
  distro: debian
  default_user: { name: debian, lock_passwd: true, gecos: Debian, groups: [adm, sudo], sudo: ["ALL=(ALL) NOPASSWD:ALL"], shell: /bin/bash }
  network: { renderers: [networkd] }
  paths: { cloud_dir: /var/lib/cloud/, templates_dir: /etc/cloud/templates/ }
  ssh_svcname: ssh
EOF
rm -rf "$tree/etc/cloud/cloud.cfg.d"; mkdir "$tree/etc/cloud/cloud.cfg.d"
# Without a file to log to, cloud-init logs everything to the console, and each character
# of a nested guest's console is an exit through two hypervisors.
cat > "$tree/etc/cloud/cloud.cfg.d/05_logging.cfg" <<'EOF'
log_cfgs:
  - |
    [loggers]
    keys=root
    [handlers]
    keys=file
    [formatters]
    keys=plain
    [logger_root]
    level=INFO
    handlers=file
    [handler_file]
    class=FileHandler
    level=INFO
    formatter=plain
    args=('/var/log/cloud-init.log', 'a', 'UTF-8')
    [formatter_plain]
    format=%(asctime)s - %(filename)s[%(levelname)s]: %(message)s
EOF
printf 'policy: enabled\n' > "$tree/etc/cloud/ds-identify.cfg"

# Without this module cloud-init does not check its configuration against a schema, which
# it would do anew at each of its stages, for seconds.
rm -rf "$tree/usr/lib/python3/dist-packages/jsonschema"

mkdir -p "$tree/etc/ssh/sshd_config.d"
printf 'PasswordAuthentication no\nUseDNS no\n' > "$tree/etc/ssh/sshd_config.d/10-guest.conf"

# -- network: cloud-init writes what the seed says; a NIC that it does not name asks for an
#    address. Each NIC is up as soon as it is there: its first frames tell the switch its place.
mkdir -p "$tree/etc/systemd/network" "$tree/etc/udev/rules.d"
cat > "$tree/etc/systemd/network/90-any.network" <<'EOF'
[Match]
Name=eth*

[Network]
DHCP=ipv4
EOF
cat > "$tree/etc/udev/rules.d/80-link-up.rules" <<'EOF'
ACTION=="add", SUBSYSTEM=="net", KERNEL=="eth*", RUN+="/sbin/ip link set %k up"
EOF

# -- devices and modules ---------------------------------------------------------------
few_events
no_modules iTCO_wdt lpc_ich i2c_i801 ahci pcspkr psmouse serio_raw ccp kvm_amd kvm_intel \
    aesni_intel ghash_clmulni_intel sha1_ssse3 sha256_ssse3 sha512_ssse3 cfg80211

# -- boot loader -----------------------------------------------------------------------
boot_loader 0 serial 'console=tty0 console=ttyS0,115200 net.ifnames=0 tsc=reliable lpj=16000000 mitigations=off audit=0 lsm=lockdown,capability,yama nowatchdog'
small_initramfs virtio_pci virtio_blk ext4
no_units dev-hugepages.mount modprobe@configfs.service sys-kernel-config.mount cloud-init-hotplugd.socket
chroot "$tree" systemctl enable systemd-networkd.service ssh.service >/dev/null 2>&1
rm -f "$tree/etc/apt/apt.conf.d/99mmdebstrap"
