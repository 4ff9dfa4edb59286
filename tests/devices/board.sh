#!/bin/sh
# What a board's sshd lets its users into: namespaces of their own (tests/devices/board.py).
#   unshare -mpf --kill-child board.sh FOLDER             this machine, with folders of the board's
#   unshare -Urmpf --kill-child board.sh FOLDER ROOT QEMU   AArch64; ROOT is of arm_phone_root.sh
set -e
board=$1 root=${2:-} qemu=${3:-}
if [ -z "$root" ]; then
  mount -t proc proc /proc
  mount --bind "$board/var/tmp" /var/tmp
  mount --bind "$board/sys/firmware" /sys/firmware
  mount --bind "$board/sys/devices/system/cpu" /sys/devices/system/cpu
  mount --bind "$board/sys/class/thermal" /sys/class/thermal
else
  # Programs of AArch64 run by qemu in this namespace only (Linux 6.7 and later).
  mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
  magic='\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
  mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
  printf '%s' ":arm_board:M::$magic:$mask:$qemu:PF" > /proc/sys/fs/binfmt_misc/register
  mkdir -p "$root/tmp"
  mount --bind "$root" "$root"
  mount --bind "$board/var/tmp" "$root/tmp"
  mount -t proc proc "$root/proc"
  mount --bind "$root/cpuinfo" "$root/proc/cpuinfo"
  mount --rbind /dev "$root/dev"
fi
echo ready
exec sleep 100000
