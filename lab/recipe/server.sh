# Runs as the last step of building the emulated server's tree; $1 is the tree.
# Everything here serves one of three ends: the server boots by its own GRUB,
# it boots fast under emulation, and it carries nothing that is the same on two labs.

# -- identity -----------------------------------------------------------------
echo bmserver > "$tree/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 bmserver\n::1 localhost\n' > "$tree/etc/hosts"
no_identity
echo 'nameserver 10.0.2.3' > "$tree/etc/resolv.conf"

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

# -- devices and modules ---------------------------------------------------------
few_events
echo 'children_max=4' >> "$tree/etc/udev/udev.conf"
no_modules ahci iTCO_wdt lpc_ich i2c_i801 pcspkr psmouse serio_raw vga16fb ccp cfg80211 \
    aesni_intel ghash_clmulni_intel sha1_ssse3 sha256_ssse3 sha512_ssse3
# a vCPU that waits would spin for a while in the hope of work, on CPUs that are emulated
echo 'options kvm halt_poll_ns=0' >> "$tree/etc/modprobe.d/lab.conf"

# -- boot loader; on the kernel's command line:
#    tsc=reliable   an emulated AMD CPU claims no constant TSC, and without the TSC every look
#                   at the clock is an exit to the emulator under one lock
#    lpj=           saves each CPU its delay calibration: the emulated TSC's 1 GHz at 250 Hz; a
#                   larger one makes each wait, a panic's 30 seconds too, as much longer
#    nokaslr        a kernel at a random place takes one of the few whole 1 GiB pages
#    nowatchdog     a slow host is not a soft lockup
boot_loader 1 'console serial' 'console=tty0 console=ttyS0,115200 tsc=reliable lpj=4000000 mitigations=off audit=0 lsm=lockdown,capability,yama nokaslr nowatchdog'

# -- where systemd-boot starts it instead (`start --loader systemd-boot`), its partition is mounted; by
#    no line of fstab, which would wait for that disk on a server without it
mkdir -p "$tree/boot/efi" "$tree/etc/kernel"
echo bmserver > "$tree/etc/kernel/entry-token"
cat > "$tree/etc/systemd/system/lab-esp.service" <<'EOF'
[Unit]
Description=The EFI system partition
DefaultDependencies=no
ConditionPathIsDirectory=/sys/firmware/efi
After=systemd-remount-fs.service
Before=local-fs.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=mount -t vfat -o umask=0077 /dev/vdb1 /boot/efi

[Install]
WantedBy=local-fs.target
EOF

# -- a small initramfs: the disk, the management NIC, and KVM ------------------------
#    KVM patches the running kernel in hundreds of places, and for each all CPUs have to
#    agree: 1 s now, 15 s while the system starts. And it has to be there before libvirtd
#    probes, or libvirt says that there is none.
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
small_initramfs virtio_pci virtio_blk ext4 virtio_net

# -- what an emulated server has no use for ----------------------------------------
no_units man-db.timer libvirt-guests.service systemd-rfkill.socket logrotate.timer remote-fs.target \
    machines.target dnsmasq.service run-qemu.mount nvmefc-boot-connections.service
chroot "$tree" systemctl enable systemd-networkd.service ssh.service libvirtd.service lab-esp.service >/dev/null 2>&1
# not masked: a chapter of the story starts it
chroot "$tree" systemctl disable irqbalance.service >/dev/null 2>&1
rm -f "$tree/etc/libvirt/qemu/networks/autostart/default.xml"

# -- the password of the guests' user, `bmslice`, as a file that a spec names ------------------
( umask 077; perl -e 'print crypt("bmslice", q($6$bmslice-lab$)), "\n"' > "$tree/root/ops.hash" )

# -- what only served the building ---------------------------------------------------
rm -f "$tree/etc/apt/apt.conf.d/99mmdebstrap"
