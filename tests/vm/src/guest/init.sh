#!/bin/busybox sh
# The guest's first program: puts the machine's files, with a layer in memory above, in the place of this initramfs, and
# starts the agent there. Where a step fails this ends, and with it the guest.
set -e
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
    insmod "/modules/$module"
done </modules/order

mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=524288 machine /machine
mount -t tmpfs -o mode=0755 tmpfs /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/machine,upperdir=/memory/upper,workdir=/memory/work overlay /root

modules="$(cat /modules/folder)"
release="/root/lib/modules/$(uname -r)"
mkdir -p "$release" /root/proc /root/sys /root/dev /root/run
mount --bind "/machine$modules" "$release"
for folder in proc sys dev; do
    mount --move "/$folder" "/root/$folder"
done
mount -t tmpfs -o mode=0755 tmpfs /root/run
cp /agent /root/run/agent
exec switch_root /root /run/agent
