#!/bin/busybox sh
# The first program: mounts what a shell needs, loads drivers for the devices there are, and gives
# a shell on the console. When the shell ends, the machine is switched off.
export PATH=/sbin:/bin:/usr/sbin:/usr/bin HOME=/root TERM="${TERM:-linux}"
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
hostname metaphrase
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

ifconfig lo up
for device in /sys/class/net/e*; do
    [ -e "$device" ] || continue
    modprobe -q af_packet 2> /dev/null
    name="${device##*/}"
    ifconfig "$name" up
    udhcpc -i "$name" -s /etc/dhcp.sh -n -q -t 3 -T 1 > /dev/null 2>&1
done

cd /root
echo
echo "Linux $(uname -r) ($(uname -m)), run by metaphrase. exit switches the machine off."
setsid cttyhack sh -l

sync
umount -a -r 2> /dev/null
poweroff -f
