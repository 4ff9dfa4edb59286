#!/bin/sh
# What arm_phone.sh starts: Debian's adbd, busybox and their libraries for arm64, and a static qemu
# for this machine, unpacked below DIR. apt's configuration is of its own; nothing is installed.
#   arm_phone_root.sh DIR
set -e
dir=$1
[ ! -e "$dir/done" ] || exit 0
rm -rf "$dir" && mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial" "$dir/root"
dir=$(cd "$dir" && pwd) && touch "$dir/apt/status"
# adbd is in Debian from 13 on; the mirror is the one that this system uses.
mirror=$(apt-get indextargets --format '$(REPO_URI)' "Origin: Debian" | grep -v security | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" \
  > "$dir/apt/sources.list"
cat > "$dir/apt/conf" <<A
Dir::Etc::sourcelist "$dir/apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State "$dir/apt";
Dir::State::status "$dir/apt/status";
Dir::Cache "$dir/apt/cache";
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "root";
A
cd "$dir/apt/cache/archives"
APT_CONFIG="$dir/apt/conf" apt-get -q update > /dev/null
APT_CONFIG="$dir/apt/conf" apt-get -q download adbd android-libbase android-libboringssl android-libcutils android-liblog busybox-static \
  libbrotli1 libbsd0 libc6 libcap2 libgcc-s1 liblz4-1 libmd0 libprotobuf32t64 libstdc++6 \
  libsystemd0 libxxhash0 libzstd1 zlib1g > /dev/null
for package in *_arm64.deb; do dpkg-deb -x "$package" "$dir/root"; done
fetch="apt-get -q -o APT::Sandbox::User=root download qemu-user-static"
$fetch > /dev/null 2>&1 || { apt-get -q update > /dev/null; $fetch > /dev/null; }
dpkg-deb --fsys-tarfile qemu-user-static_*.deb | tar -x -C "$dir" --strip-components 3 \
  ./usr/bin/qemu-aarch64-static
cd "$dir" && rm -rf apt root/usr/share root/etc root/usr/lib/aarch64-linux-gnu/gconv
ln -s usr/lib root/lib && ln -s usr/bin root/bin
for tool in cat chmod cp cut date df echo env grep head kill ls mkdir mv printf readlink rm sed sh \
  sha256sum sleep taskset touch uname; do
  ln -sf busybox "root/usr/bin/$tool"
done
mkdir -p root/system/bin root/data root/proc root/dev root/sys
cat > root/system/bin/getprop <<'G'
#!/bin/sh
echo "[ro.product.model]: [ARM phone]"
echo "[ro.product.cpu.abilist]: [arm64-v8a]"
G
chmod 755 root/system/bin/getprop
cat > root/cpuinfo <<'C'
processor	: 0
BogoMIPS	: 38.40
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd0b
CPU revision	: 0

C
cpu=root/sys/devices/system/cpu
mkdir -p $cpu/cpu0/cpufreq
echo 0 | tee $cpu/possible > $cpu/present
echo 2400000 | tee $cpu/cpu0/cpufreq/cpuinfo_max_freq > $cpu/cpu0/cpufreq/scaling_max_freq
touch done
