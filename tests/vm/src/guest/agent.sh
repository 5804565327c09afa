#!/bin/sh
# Runs jobs, each a line of shell that comes through the port, and sends back what they write. A line that begins with
# the character 036 is the agent's own: `ready`, and after each job `ended` with its status.
set -e
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/run/tmp
mkdir -p /dev/pts /dev/shm "$TMPDIR"
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
# The layer above the machine's files cannot do all that a file system can.
mount -t tmpfs -o mode=1777 tmpfs "$TMPDIR"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# The files of devices whose modules are loaded when they are opened: loop, device mapper, FUSE.
sed -n 's/^[^#]* \([^ ]*\) \([bc]\)\([0-9]*\):\([0-9]*\)$/\1 \2 \3 \4/p' "/lib/modules/$(uname -r)/modules.devname" |
    while read -r name type major minor; do
        mkdir -p "/dev/$(dirname "$name")"
        [ -e "/dev/$name" ] || mknod -m 600 "/dev/$name" "$type" "$major" "$minor"
    done
busybox ip link set lo up
hostname guest
for word in $(cat /proc/cmdline); do
    case "$word" in
    dunnage.address=*)
        hostname "guest-${word##*.}"
        busybox ip addr add "${word#*=}/24" dev eth0
        busybox ip link set eth0 up
        ;;
    esac
done

# The only port there is; the number of its device depends on what other devices the guest has.
port() {
    set -- /dev/vport*p1
    [ -c "$1" ] && echo "$1"
}
until port >/dev/null; do
    sleep 0.1
done
exec 3<>"$(port)"
set +e
printf '\036ready\n' >&3
while :; do
    # The port reads as ended until QEMU has told that somebody is there.
    if ! read -r job <&3; then
        sleep 0.1
        continue
    fi
    sh -c "$job" </dev/null >&3 2>&1 3>&-
    printf '\036ended %s\n' "$?" >&3
done
