#!/bin/sh
# Becomes PID 1 of a machine of its own: systemd. Called in new PID, mount, cgroup, IPC and UTS namespaces:
#
#   machine.sh FOLDER ROOT SETUP FILE...
#
# Its files are those of ROOT with a layer on top, in memory, which has each FILE in /run/source; SETUP is run there before systemd is. Its
# network is that of whoever calls this. It has no units but those that SETUP brings: what a distribution starts at boot would meddle with
# the network, the devices and the disks that are still shared.
set -eu
folder=$1 root=$2 setup=$3
shift 3

mount --make-rprivate /
mount -t tmpfs tmpfs "$folder"
cd "$folder"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=$root,upperdir=$folder/upper,workdir=$folder/work" root
cd root
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/shm dev/pts run/source run/old
mount -t tmpfs tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
for node in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 0666 "dev/${node%:*}" c 1 "${node#*:}"
done
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
for file in "$setup" "$@"; do
    cp -R "$file" run/source/
done
setup=/run/source/${setup##*/}
rm -rf etc/systemd/system/* usr/lib/systemd/system-generators/* usr/lib/systemd/system/*.wants
: >etc/fstab
pivot_root . run/old
umount -l /run/old
mount --make-rshared /
echo "mounted"

sh "$setup"
printf '[Unit]\nDefaultDependencies=no\n' >/etc/systemd/system/idle.target
# There is no journal here.
mkdir -p /etc/systemd/system/turnstone.service.d
printf '[Service]\nStandardOutput=append:/run/log\nStandardError=append:/run/log\n' >/etc/systemd/system/turnstone.service.d/log.conf
echo "set up"
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --log-target=console --log-level=notice --show-status=no --unit=idle.target
