#!/bin/busybox sh
# What udhcpc calls with the address it was given.
case "$1" in
bound | renew)
    ifconfig "$interface" "$ip" netmask "${subnet:-255.255.255.0}"
    for gateway in $router; do
        route add default gw "$gateway" dev "$interface"
        break
    done
    for server in $dns; do
        echo "nameserver $server"
    done > /etc/resolv.conf
    ;;
esac
