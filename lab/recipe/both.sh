#!/bin/sh
# What the server and its guests have in common; goes before server.sh and guest.sh, which call it.
# Each function works on the tree that is built, $tree.
set -eu
tree=$1

# boot_loader SECONDS TERMINAL ARGUMENTS: GRUB for a BIOS, with a first configuration that the
# system's own update-grub replaces.
boot_loader() {
    mkdir -p "$tree/etc/default/grub.d" "$tree/boot/grub/i386-pc"
    cat > "$tree/etc/default/grub" <<END
GRUB_DEFAULT=0
GRUB_TIMEOUT=$1
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_CMDLINE_LINUX="$3"
GRUB_TERMINAL="$2"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
GRUB_DISABLE_OS_PROBER=true
GRUB_DISABLE_RECOVERY=true
END
    cp "$tree"/usr/lib/grub/i386-pc/*.mod "$tree"/usr/lib/grub/i386-pc/*.lst "$tree/boot/grub/i386-pc/"
    chroot "$tree" grub-mkimage -O i386-pc -o /boot/grub/i386-pc/core.img \
        -p '(hd0,msdos1)/boot/grub' biosdisk part_msdos ext2 normal
    cp "$tree/usr/lib/grub/i386-pc/boot.img" "$tree/boot/grub/i386-pc/boot.img"
    kernel=$(basename "$(ls "$tree"/boot/vmlinuz-* | sort -V | tail -1)" | sed s/vmlinuz-//)
    cat > "$tree/boot/grub/grub.cfg" <<END
# The first one, written by the lab.
set timeout=0
serial --unit=0 --speed=115200
terminal_output $2
menuentry Debian {
    linux /boot/vmlinuz-$kernel root=UUID=@ROOT_UUID@ ro $3 quiet
    initrd /boot/initrd.img-$kernel
}
END
}

# small_initramfs MODULE...: the named modules and no udev: devtmpfs has the disk, and blkid finds the
# file system. Hooks of the caller's own have to be there before.
small_initramfs() {
    printf '%s\n' "$@" > "$tree/etc/initramfs-tools/modules"
    mkdir -p "$tree/etc/initramfs-tools/scripts/init-top" "$tree/etc/initramfs-tools/scripts/init-bottom"
    for stage in init-top init-bottom; do
        printf '#!/bin/sh\nexit 0\n' > "$tree/etc/initramfs-tools/scripts/$stage/udev"
        chmod 755 "$tree/etc/initramfs-tools/scripts/$stage/udev"
    done
    printf 'MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=3\nRUNSIZE=10%%\nFSTYPE=ext4\n' \
        > "$tree/etc/initramfs-tools/conf.d/lab"
    chroot "$tree" update-initramfs -u -k all
}

# few_events: an emulated CPU pays dearly for each event of udev, and CPUs, consoles and memory blocks
# would each ask for modules that are not there. Only devices that somebody waits for are triggered.
few_events() {
    unit="$tree/etc/systemd/system/systemd-udev-trigger.service.d"
    mkdir -p "$unit" "$tree/etc/udev"
    cat > "$unit/lab.conf" <<'END'
[Service]
ExecStart=
ExecStart=-udevadm trigger --type=subsystems --action=add
ExecStart=-udevadm trigger --type=devices --action=add --prioritized-subsystem=module,block,net --subsystem-nomatch=cpu --subsystem-nomatch=memory --subsystem-nomatch=node --subsystem-nomatch=acpi --subsystem-nomatch=tty --subsystem-nomatch=vc --subsystem-nomatch=machinecheck --subsystem-nomatch=workqueue --subsystem-nomatch=event_source --subsystem-nomatch=clockevents --subsystem-nomatch=serio --subsystem-nomatch=pnp --subsystem-nomatch=wakeup --subsystem-nomatch=bdi
ExecStart=-udevadm trigger --action=add /sys/class/tty/ttyS0
END
}

# no_modules MODULE...: not loaded by any alias.
no_modules() {
    printf 'blacklist %s\n' "$@" > "$tree/etc/modprobe.d/lab.conf"
}

# no_units UNIT...: masked, beside those that neither has a use for.
no_units() {
    for unit in "$@" apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
        e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer systemd-timesyncd.service \
        systemd-random-seed.service systemd-pstore.service systemd-update-utmp.service \
        systemd-update-utmp-runlevel.service systemd-networkd-wait-online.service \
        systemd-network-generator.service systemd-sysusers.service systemd-journal-flush.service \
        systemd-binfmt.service proc-sys-fs-binfmt_misc.automount grub-common.service apparmor.service \
        getty@tty1.service keyboard-setup.service console-setup.service sys-kernel-debug.mount \
        sys-kernel-tracing.mount dev-mqueue.mount sys-fs-fuse-connections.mount modprobe@drm.service \
        modprobe@fuse.service modprobe@efi_pstore.service modprobe@dm_mod.service \
        modprobe@loop.service; do
        ln -sf /dev/null "$tree/etc/systemd/system/$unit"
    done
    mkdir -p "$tree/etc/systemd/journald.conf.d"
    printf '[Journal]\nStorage=volatile\nAudit=no\n' > "$tree/etc/systemd/journald.conf.d/lab.conf"
}

# no_identity: nothing that would be the same on two labs.
no_identity() {
    : > "$tree/etc/machine-id"
    rm -f "$tree"/etc/ssh/ssh_host_* "$tree/var/lib/dbus/machine-id"
    echo 'UUID=@ROOT_UUID@ / ext4 errors=remount-ro,noatime,noinit_itable 0 0' > "$tree/etc/fstab"
    chroot "$tree" passwd -l root >/dev/null
}
