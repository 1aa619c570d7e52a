#!/bin/sh
# Runs as the last step of building the emulated server's tree; $1 is the tree.
# Everything here serves one of three ends: the server boots by its own GRUB,
# it boots fast under emulation, and it carries nothing that is the same on two labs.
set -eu
tree=$1

# -- identity -----------------------------------------------------------------
echo bmserver > "$tree/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 bmserver\n::1 localhost\n' > "$tree/etc/hosts"
: > "$tree/etc/machine-id"
rm -f "$tree"/etc/ssh/ssh_host_* "$tree/var/lib/dbus/machine-id"
echo 'nameserver 10.0.2.3' > "$tree/etc/resolv.conf"
echo 'UUID=@ROOT_UUID@ / ext4 errors=remount-ro,noatime,noinit_itable 0 0' > "$tree/etc/fstab"
chroot "$tree" passwd -l root >/dev/null

# -- network: the management NIC only; the slicing NICs are left alone ----------
mkdir -p "$tree/etc/systemd/network"
cat > "$tree/etc/systemd/network/10-management.network" <<'EOF'
[Match]
Driver=virtio_net

[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
DNS=10.0.2.3
LinkLocalAddressing=no
IPv6AcceptRA=no
EOF

# -- ssh: the lab hands over keys as systemd credentials through fw_cfg ---------
mkdir -p "$tree/etc/ssh/sshd_config.d" "$tree/etc/tmpfiles.d" \
    "$tree/etc/systemd/system/systemd-tmpfiles-setup.service.d" \
    "$tree/etc/systemd/system/ssh.service.d"
cat > "$tree/etc/ssh/sshd_config.d/lab.conf" <<'EOF'
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
PermitRootLogin prohibit-password
UseDNS no
EOF
cat > "$tree/etc/tmpfiles.d/bmslice-lab.conf" <<'EOF'
f+^ /etc/ssh/ssh_host_ed25519_key 0600 root root - bmslice-lab.host-key
EOF
cat > "$tree/etc/systemd/system/systemd-tmpfiles-setup.service.d/bmslice-lab.conf" <<'EOF'
[Service]
LoadCredential=bmslice-lab.host-key
EOF

# -- udev: an emulated CPU pays dearly for each event, and 24 CPUs, 64 consoles and
#    hundreds of memory blocks would each ask for modules that are not there ---------
mkdir -p "$tree/etc/systemd/system/systemd-udev-trigger.service.d" "$tree/etc/udev"
cat > "$tree/etc/systemd/system/systemd-udev-trigger.service.d/lab.conf" <<'EOF'
[Service]
ExecStart=
ExecStart=-udevadm trigger --type=subsystems --action=add
ExecStart=-udevadm trigger --type=devices --action=add --prioritized-subsystem=module,block,net --subsystem-nomatch=cpu --subsystem-nomatch=memory --subsystem-nomatch=node --subsystem-nomatch=acpi --subsystem-nomatch=tty --subsystem-nomatch=vc --subsystem-nomatch=machinecheck --subsystem-nomatch=workqueue --subsystem-nomatch=event_source --subsystem-nomatch=clockevents --subsystem-nomatch=serio --subsystem-nomatch=pnp --subsystem-nomatch=wakeup --subsystem-nomatch=bdi
ExecStart=-udevadm trigger --action=add /sys/class/tty/ttyS0
EOF
echo 'children_max=4' >> "$tree/etc/udev/udev.conf"
for module in ahci iTCO_wdt lpc_ich i2c_i801 pcspkr psmouse serio_raw vga16fb ccp cfg80211 \
    aesni_intel ghash_clmulni_intel sha1_ssse3 sha256_ssse3 sha512_ssse3; do
    echo "blacklist $module"
done > "$tree/etc/modprobe.d/lab.conf"
# a vCPU that waits would spin for a while in the hope of work, on CPUs that are emulated
echo 'options kvm halt_poll_ns=0' >> "$tree/etc/modprobe.d/lab.conf"

# -- boot loader; on the kernel's command line:
#    tsc=reliable   an emulated AMD CPU claims no constant TSC, and without the TSC every look
#                   at the clock is an exit to the emulator under one lock
#    lpj=           saves each CPU its delay calibration; only a lower bound matters here
#    nokaslr        a kernel at a random place takes one of the few whole 1 GiB pages
#    nowatchdog     a slow host is not a soft lockup -----------------------------------------------------------------
mkdir -p "$tree/etc/default/grub.d" "$tree/boot/grub/i386-pc"
cat > "$tree/etc/default/grub" <<'EOF'
GRUB_DEFAULT=0
GRUB_TIMEOUT=1
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200 tsc=reliable lpj=16000000 mitigations=off audit=0 lsm=lockdown,capability,yama nokaslr nowatchdog"
GRUB_TERMINAL="console serial"
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
# The first one, written by the lab; the server's own update-grub replaces it.
set timeout=0
serial --unit=0 --speed=115200
terminal_output console serial
menuentry Debian {
    linux /boot/vmlinuz-$kernel root=UUID=@ROOT_UUID@ ro console=tty0 console=ttyS0,115200 tsc=reliable lpj=16000000 mitigations=off audit=0 lsm=lockdown,capability,yama nokaslr nowatchdog quiet
    initrd /boot/initrd.img-$kernel
}
EOF

# -- a small initramfs: the disk, the management NIC, and KVM ------------------------
#    KVM patches the running kernel in hundreds of places, and for each all CPUs have to
#    agree: 1 s now, 15 s while the system starts. And it has to be there before libvirtd
#    probes, or libvirt says that there is none.
printf 'virtio_pci\nvirtio_blk\next4\nvirtio_net\n' > "$tree/etc/initramfs-tools/modules"
mkdir -p "$tree/etc/initramfs-tools/hooks" "$tree/etc/initramfs-tools/scripts/init-premount"
cat > "$tree/etc/initramfs-tools/hooks/kvm" <<'EOF'
#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules kvm_amd kvm_intel
EOF
cat > "$tree/etc/initramfs-tools/scripts/init-premount/kvm" <<'EOF'
#!/bin/sh
[ "$1" = prereqs ] && exit 0
modprobe -q kvm_amd || modprobe -q kvm_intel
exit 0
EOF
chmod 755 "$tree/etc/initramfs-tools/hooks/kvm" "$tree/etc/initramfs-tools/scripts/init-premount/kvm"
# no udev in it: devtmpfs has the disk and blkid finds the file system
mkdir -p "$tree/etc/initramfs-tools/scripts/init-top" "$tree/etc/initramfs-tools/scripts/init-bottom"
for stage in init-top init-bottom; do
    printf '#!/bin/sh\nexit 0\n' > "$tree/etc/initramfs-tools/scripts/$stage/udev"
    chmod 755 "$tree/etc/initramfs-tools/scripts/$stage/udev"
done
cat > "$tree/etc/initramfs-tools/conf.d/lab" <<'EOF'
MODULES=list
COMPRESS=zstd
COMPRESSLEVEL=3
RUNSIZE=10%
FSTYPE=ext4
EOF
chroot "$tree" update-initramfs -u -k all

# -- what an emulated server has no use for ----------------------------------------
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer man-db.timer systemd-tmpfiles-clean.timer \
    systemd-timesyncd.service systemd-random-seed.service systemd-pstore.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service \
    systemd-networkd-wait-online.service grub-common.service apparmor.service \
    getty@tty1.service keyboard-setup.service console-setup.service \
    libvirt-guests.service \
    systemd-rfkill.socket logrotate.timer remote-fs.target machines.target \
    systemd-network-generator.service systemd-sysusers.service \
    dnsmasq.service run-qemu.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    dev-mqueue.mount sys-fs-fuse-connections.mount nvmefc-boot-connections.service \
    systemd-binfmt.service proc-sys-fs-binfmt_misc.automount systemd-journal-flush.service \
    modprobe@drm.service modprobe@fuse.service modprobe@efi_pstore.service \
    modprobe@dm_mod.service modprobe@loop.service; do
    ln -sf /dev/null "$tree/etc/systemd/system/$unit"
done
mkdir -p "$tree/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nAudit=no\n' > "$tree/etc/systemd/journald.conf.d/lab.conf"
chroot "$tree" systemctl enable systemd-networkd.service ssh.service libvirtd.service >/dev/null 2>&1
rm -f "$tree/etc/libvirt/qemu/networks/autostart/default.xml"

# -- what only served the building ---------------------------------------------------
rm -f "$tree/etc/apt/apt.conf.d/99mmdebstrap"
