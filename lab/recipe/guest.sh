#!/bin/sh
# Runs as the last step of building the guest image's tree; $1 is the tree.
# A guest boots as a nested virtual machine, under emulation twice slow: what it
# does not need is masked, and cloud-init runs only the modules a slice is given.
set -eu
tree=$1

echo localhost > "$tree/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost\n' > "$tree/etc/hosts"
: > "$tree/etc/machine-id"
rm -f "$tree"/etc/ssh/ssh_host_* "$tree/var/lib/dbus/machine-id" "$tree/etc/resolv.conf"
ln -s ../run/systemd/resolve/resolv.conf "$tree/etc/resolv.conf"
echo 'UUID=@ROOT_UUID@ / ext4 errors=remount-ro,noatime,noinit_itable 0 0' > "$tree/etc/fstab"
chroot "$tree" passwd -l root >/dev/null

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

# -- udev: as in the server, only the devices that somebody waits for -----------------
mkdir -p "$tree/etc/systemd/system/systemd-udev-trigger.service.d" "$tree/etc/udev"
cat > "$tree/etc/systemd/system/systemd-udev-trigger.service.d/lab.conf" <<'EOF'
[Service]
ExecStart=
ExecStart=-udevadm trigger --type=subsystems --action=add
ExecStart=-udevadm trigger --type=devices --action=add --prioritized-subsystem=module,block,net --subsystem-nomatch=cpu --subsystem-nomatch=memory --subsystem-nomatch=node --subsystem-nomatch=acpi --subsystem-nomatch=tty --subsystem-nomatch=vc --subsystem-nomatch=machinecheck --subsystem-nomatch=workqueue --subsystem-nomatch=event_source --subsystem-nomatch=clockevents --subsystem-nomatch=serio --subsystem-nomatch=pnp --subsystem-nomatch=wakeup --subsystem-nomatch=bdi
ExecStart=-udevadm trigger --action=add /sys/class/tty/ttyS0
EOF
for module in iTCO_wdt lpc_ich i2c_i801 ahci pcspkr psmouse serio_raw ccp kvm_amd kvm_intel \
    aesni_intel ghash_clmulni_intel sha1_ssse3 sha256_ssse3 sha512_ssse3 cfg80211; do
    echo "blacklist $module"
done > "$tree/etc/modprobe.d/lab.conf"

# -- boot loader -----------------------------------------------------------------------
mkdir -p "$tree/etc/default/grub.d" "$tree/boot/grub/i386-pc"
cat > "$tree/etc/default/grub" <<'EOF'
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200 net.ifnames=0 tsc=reliable lpj=16000000 mitigations=off audit=0 lsm=lockdown,capability,yama nowatchdog"
GRUB_TERMINAL=serial
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
GRUB_DISABLE_OS_PROBER=true
GRUB_DISABLE_RECOVERY=true
EOF
cp "$tree"/usr/lib/grub/i386-pc/*.mod "$tree"/usr/lib/grub/i386-pc/*.lst "$tree/boot/grub/i386-pc/"
chroot "$tree" grub-mkimage -O i386-pc -o /boot/grub/i386-pc/core.img \
    -p '(hd0,msdos1)/boot/grub' biosdisk part_msdos ext2 normal
cp "$tree/usr/lib/grub/i386-pc/boot.img" "$tree/boot/grub/i386-pc/boot.img"
kernel=$(basename "$(ls "$tree"/boot/vmlinuz-* | sort -V | tail -1)" | sed s/vmlinuz-//)
cat > "$tree/boot/grub/grub.cfg" <<EOF
set timeout=0
serial --unit=0 --speed=115200
terminal_output serial
menuentry Debian {
    linux /boot/vmlinuz-$kernel root=UUID=@ROOT_UUID@ ro console=tty0 console=ttyS0,115200 net.ifnames=0 tsc=reliable lpj=16000000 mitigations=off audit=0 lsm=lockdown,capability,yama nowatchdog quiet
    initrd /boot/initrd.img-$kernel
}
EOF

# -- a small initramfs ---------------------------------------------------------------------
printf 'virtio_pci\nvirtio_blk\next4\n' > "$tree/etc/initramfs-tools/modules"
mkdir -p "$tree/etc/initramfs-tools/scripts/init-top" "$tree/etc/initramfs-tools/scripts/init-bottom"
for stage in init-top init-bottom; do
    printf '#!/bin/sh\nexit 0\n' > "$tree/etc/initramfs-tools/scripts/$stage/udev"
    chmod 755 "$tree/etc/initramfs-tools/scripts/$stage/udev"
done
cat > "$tree/etc/initramfs-tools/conf.d/lab" <<'EOF'
MODULES=list
COMPRESS=zstd
COMPRESSLEVEL=3
FSTYPE=ext4
EOF
chroot "$tree" update-initramfs -u -k all

for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer \
    systemd-timesyncd.service systemd-pstore.service systemd-random-seed.service \
    systemd-network-generator.service systemd-sysusers.service \
    dev-hugepages.mount modprobe@configfs.service sys-kernel-config.mount systemd-update-utmp.service \
    systemd-update-utmp-runlevel.service systemd-networkd-wait-online.service \
    grub-common.service apparmor.service getty@tty1.service keyboard-setup.service \
    console-setup.service sys-kernel-debug.mount sys-kernel-tracing.mount dev-mqueue.mount \
    sys-fs-fuse-connections.mount systemd-binfmt.service proc-sys-fs-binfmt_misc.automount \
    systemd-journal-flush.service modprobe@drm.service modprobe@fuse.service \
    modprobe@efi_pstore.service modprobe@dm_mod.service modprobe@loop.service \
    cloud-init-hotplugd.socket; do
    ln -sf /dev/null "$tree/etc/systemd/system/$unit"
done
mkdir -p "$tree/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nAudit=no\n' > "$tree/etc/systemd/journald.conf.d/lab.conf"
chroot "$tree" systemctl enable systemd-networkd.service ssh.service >/dev/null 2>&1
rm -f "$tree/etc/apt/apt.conf.d/99mmdebstrap"
