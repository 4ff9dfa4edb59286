#!/bin/sh
# An AArch64 machine with Debian's adbd in namespaces of its own, and an adb server beside it that
# is reached through a socket in the file system: neither opens a port outside.
#   unshare -Urmnpf arm_phone.sh ROOT QEMU SOCKET
# ROOT holds the unpacked arm64 packages.
set -e
root=$1 qemu=$2 socket=$3
ip link set lo up
# Programs of AArch64 run by qemu in this namespace only (Linux 6.7 and later).
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
magic='\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":arm_phone:M::$magic:$mask:$qemu:PF" > /proc/sys/fs/binfmt_misc/register
adb -L "localfilesystem:$socket" server nodaemon >/dev/null 2>&1 &
mount --bind "$root" "$root"
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/data/local/tmp" "$root/system/bin"
mount -t proc proc "$root/proc"
[ -e "$root/cpuinfo" ] && mount --bind "$root/cpuinfo" "$root/proc/cpuinfo"
mount --rbind /dev "$root/dev"
# Debian's adbd listens on this port, and in this network namespace on no other machine's.
exec chroot "$root" /usr/bin/busybox env -i PATH=/system/bin:/usr/bin ADBD_PORT=6555 \
  LD_LIBRARY_PATH=/usr/lib/aarch64-linux-gnu/android QEMU_CPU=cortex-a76 \
  /usr/lib/android-sdk/platform-tools/adbd
