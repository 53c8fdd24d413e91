#!/bin/busybox sh
# The VM's first process: puts the host's file system in place, runs /job/command in it, and says how that ended.
# /job/settings says what is where; a failure here ends the machine, and its console has the reason.
set -eu
/bin/busybox --install -s /bin
export PATH=/bin
. /job/settings

mkdir -p /proc /sys /dev /host /scratch /new
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do insmod "$module"; done

# All of the host's files; what is written goes to memory, and is gone with the machine.
share='trans=virtio,version=9p2000.L,msize=512000,cache=loose'
mount -t 9p -o "ro,$share" root /host
mount -t tmpfs -o mode=755 scratch /scratch
mkdir /scratch/upper /scratch/work
mount -t overlay -o lowerdir=/host,upperdir=/scratch/upper,workdir=/scratch/work overlay /new
# The host's processes keep their state and their sockets here; the machine has its own.
mount -t tmpfs -o mode=755 run /new/run
mount -t tmpfs -o mode=1777 tmp /new/tmp
mount -t tmpfs -o mode=1777 tmp /new/var/tmp
# Only here, writes go to the host.
mkdir -p "/new$project"
mount -t 9p -o "rw,$share" project "/new$project"
# A build directory elsewhere may lie under what is covered.
if [ ! -d "/new$target" ]; then
    mkdir -p "/new$target"
    mount -o bind "/host$target" "/new$target"
fi
modules=/new/lib/modules/$(uname -r)
mkdir -p "$modules"
mount -o bind "/host$kernel_modules" "$modules"

mount -t proc proc /new/proc
mount -t sysfs sysfs /new/sys
mount -t bpf bpf /new/sys/fs/bpf
mount -t debugfs debugfs /new/sys/kernel/debug
mount -t tracefs tracefs /new/sys/kernel/tracing
mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
mount -t devtmpfs devtmpfs /new/dev
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /new/dev/pts
mount -t tmpfs -o mode=1777 shm /new/dev/shm
ln -sf /proc/self/fd /new/dev/fd
ln -sf /proc/self/fd/0 /new/dev/stdin
ln -sf /proc/self/fd/1 /new/dev/stdout
ln -sf /proc/self/fd/2 /new/dev/stderr
hostname "$name"
ip link set lo up

mkdir /new/run/vm
cp /bin/busybox /job/command /job/last /new/run/vm/
umount /proc /sys /dev
exec switch_root /new /run/vm/busybox sh /run/vm/last
