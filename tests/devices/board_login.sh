#!/bin/sh
# The ForceCommand of a board's sshd: runs the command in the board's namespaces.
#   board_login.sh FOLDER [ROOT]
# Faults are files in FOLDER/faults:
#   noise           the login shell prints a line of its own
#   nologin         there is no shell for this user
#   hang TEXT       a command that holds TEXT never starts nor ends
#   unplug-push N   the connection is lost after N bytes of a pushed file
#   unplug-run TEXT it is lost when a command prints TEXT
#   corrupt         zeros of a pushed file become ones
#   garble          a runner's answers lose a bit on their way
#   killed-shell TEXT   the shell of a command that holds TEXT is killed
board=$1 root=${2:-} sshd=$PPID command=$SSH_ORIGINAL_COMMAND
fault() { [ -e "$board/faults/$1" ]; }
content() { cat "$board/faults/$1"; }
holds() { case $command in *"$1"*) ;; *) false ;; esac; }
inside() {
  pid=$(cat "$board/pid")
  if [ -n "$root" ]; then
    nsenter -t "$pid" -U -m -p --preserve-credentials chroot "$root" /usr/bin/busybox \
      env -i PATH=/usr/bin QEMU_CPU=cortex-a76 sh -c "$command"
  else
    nsenter -t "$pid" -m -p env -i PATH="$board/bin:/usr/bin:/bin" PHONE="$board" \
      sh -c "$command"
  fi
}
fault noise && echo 'Welcome to the board'
fault nologin && { echo 'This account is currently not available.'; exit 1; }
fault hang && holds "$(content hang)" && exec sleep 30
fault killed-shell && holds "$(content killed-shell)" && exit 137
if holds ,part && fault unplug-push; then
  head -c "$(content unplug-push)" | { inside; }
  exec kill -9 "$sshd"
elif holds ,part && fault corrupt; then
  tr '\000' '\001' | inside
elif fault garble; then
  inside | sed -u 's/"crc32":[0-9]*/"crc32":1/'
elif fault unplug-run; then
  text=$(content unplug-run)
  { inside; } 2> "$board/errors" | while IFS= read -r line; do
    printf '%s\n' "$line"
    case $line in *"$text"*) kill -9 "$sshd" ;; esac
  done
  cat "$board/errors" >&2
else
  inside
fi
