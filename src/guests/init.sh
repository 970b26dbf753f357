#!/bin/busybox sh
# The first program: loads drivers for the devices there are. If the kernel's command line names a
# disk with `root=`, that system is started. Otherwise there is a shell on the console, and when it
# ends, the machine is switched off.
export PATH=/sbin:/bin:/usr/sbin:/usr/bin HOME=/root TERM="${TERM:-linux}"
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo 3 > /proc/sys/kernel/printk

drivers() {
    find /sys/devices -name modalias -exec cat {} + | sort -u | xargs modprobe -abq 2> /dev/null
}
drivers
# What was found has devices of its own: those on virtio, and those on IDE once they are scanned.
drivers
if [ -e /sys/class/scsi_host/host0 ]; then
    modprobe -abq sd_mod sr_mod 2> /dev/null
fi

# What stands after `root=`, and whether the word `ro` is there.
root= access=rw
for word in $(cat /proc/cmdline); do
    case "$word" in
        root=*) root="${word#root=}" ;;
        ro) access=ro ;;
    esac
done
if [ -n "$root" ]; then
    tries=50
    until [ -b "$root" ] || [ "$tries" = 0 ]; do
        sleep 0.2
        tries=$((tries - 1))
    done
    if mount -t ext4 -o "$access" "$root" /mnt; then
        for directory in dev sys proc; do
            mount --move "/$directory" "/mnt/$directory"
        done
        exec switch_root /mnt /sbin/init
    fi
    echo "There is no system to start on $root."
fi

mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
hostname metaphrase
ifconfig lo up
for device in /sys/class/net/e*; do
    [ -e "$device" ] || continue
    modprobe -q af_packet 2> /dev/null
    name="${device##*/}"
    ifconfig "$name" up
    udhcpc -i "$name" -s /etc/dhcp.sh -n -q -t 3 -T 1 > /dev/null 2>&1
done

# How large the terminal is, from the kernel's command line.
if [ -n "$COLUMNS" ] && [ -n "$LINES" ]; then
    stty rows "$LINES" cols "$COLUMNS"
    unset LINES COLUMNS
fi

cd /root
echo
echo "Linux $(uname -r) ($(uname -m)), run by metaphrase. exit switches the machine off."
setsid cttyhack sh -l

sync
umount -a -r 2> /dev/null
poweroff -f
