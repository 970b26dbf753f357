#!/bin/sh
# debian.sh IMAGE: makes a disk with the base system of the Debian release that this system's apt
# uses, to log in as root without a password. The disk is one ext4 file system, in a file that takes
# no room where nothing is. Runs as root, for packages have scripts that run in the new system.
set -eu
export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C.UTF-8
image=$1

format='$(CODENAME) $(REPO_URI) $(COMPONENT)'
source=$(apt-get indextargets --format "$format" 'Created-By: Packages' |
    awk '$1 !~ /-/ && $3 == "main" { print $1, $2; exit }')
if [ -z "$source" ]; then
    echo "apt has no sources of a release" >&2
    exit 1
fi

tree=$(mktemp -d)
trap 'rm -rf "$tree" "$tree.log"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$tree"
# shellcheck disable=SC2086 # the release and the mirror
set -- $source
if ! debootstrap --variant=minbase --include=systemd-sysv,udev,dbus,kmod "$1" "$tree" "$2" \
    >"$tree.log" 2>&1; then
    tail -n 1 "$tree.log" >&2
    exit 1
fi

# What only serves to install more, or to be read.
rm -rf "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/* "$tree"/var/log/*.log \
    "$tree"/usr/share/doc/* "$tree"/usr/share/man/* "$tree"/usr/share/locale/* \
    "$tree"/usr/share/info/*
# No name servers of this machine's, and no work by the calendar where nobody stays for long.
: >"$tree/etc/resolv.conf"
rm -f "$tree"/etc/systemd/system/timers.target.wants/*
echo metaphrase >"$tree/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 metaphrase\n' >"$tree/etc/hosts"
echo LANG=C.UTF-8 >"$tree/etc/default/locale"
sed -i 's/^root:[^:]*:/root::/' "$tree/etc/shadow"

rm -f "$image"
mke2fs -q -t ext4 -L debian -d "$tree" "$image" 384M
