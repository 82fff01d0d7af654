#!/bin/sh
# Installs the packages as a user would, on a bare Debian: no compiler, no cargo, no cmake. Root runs it, for chroot; what is
# tried is done by a user.
#
#   packaging/test.sh [PACKAGES [ROOT]]
#
# PACKAGES is the folder that packaging/build.sh filled, else target/package. ROOT is where a Debian is, or is put by
# debootstrap, else target/packaging/debian. SUITE is its release, bookworm if unset.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$(dirname "$here")/target}
packages=$(cd "${1:-$target/package}" && pwd)
root=${2:-$target/packaging/debian}
user=somebody

if [ "${IN_NAMESPACE:-}" != 1 ]; then
    # What is mounted below goes with this process.
    IN_NAMESPACE=1 exec unshare --mount "$0" "$packages" "$root"
fi
if [ ! -d "$root/usr/lib/python3" ]; then
    debootstrap --variant=minbase --include=python3,python3-venv "${SUITE:-bookworm}" "$root" >/dev/null
fi
root=$(cd "$root" && pwd)
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev/shm" 2>/dev/null || true

inside() { chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin "$@"; }

id=$(inside id -u "$user" 2>/dev/null) || { inside /usr/sbin/useradd -m "$user" && id=$(inside id -u "$user"); }
rm -rf "${root:?}/home/$user"
mkdir -p "$root/home/$user/packages"
cp "$packages"/*.tar.gz "$packages"/*.whl "$packages"/*.sha256 "$here/../install.sh" "$here/../models/polyglot-moe.gguf" \
    "$here/bare.sh" "$here/ask.py" "$root/home/$user/packages/"
chown -R "$id:$id" "$root/home/$user"
chroot --userspec="$id:$id" "$root" /usr/bin/env -i HOME="/home/$user" USER="$user" PATH=/usr/bin:/bin LANG=C.UTF-8 \
    sh "/home/$user/packages/bare.sh"
