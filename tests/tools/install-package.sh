#!/bin/sh
# Installs a package into a copy-on-write layer over this system, checks the result, and removes it.
# Runs as root in separate mount and process namespaces: the system is not changed.
#
# usage: unshare --mount --pid --fork install-package.sh PACKAGE
set -eu
package=$1
layer=$(mktemp -d)
trap 'umount -l "$layer"; rmdir "$layer"' EXIT
mount -t tmpfs -o mode=755 layer "$layer"
mkdir "$layer/upper" "$layer/work" "$layer/root"
mount -t overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" overlay "$layer/root"
mount -t proc proc "$layer/root/proc"
mount --rbind /dev "$layer/root/dev"
mount -t tmpfs tmpfs "$layer/root/tmp"
cp "$package" "$layer/root/tmp/keyhole.deb"
cat >"$layer/root/tmp/inside" <<'INSIDE'
set -eux
# Fails if a command succeeds: set -e ignores negated commands.
fails() {
  if "$@"; then exit 1; fi
}
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 SYSTEMD_OFFLINE=1
dpkg --install /tmp/keyhole.deb
test "$(dpkg-query -W -f '${Status}' keyhole)" = 'install ok installed'
dpkg --verify keyhole
keyhole --version
keyhole bench --help >/dev/null
systemctl --root=/ is-enabled keyhole.service
fails systemctl --root=/ is-enabled keyhole-http.socket
fails systemctl --root=/ is-enabled keyhole-https.socket
for unit in keyhole.service keyhole-http.socket keyhole-https.socket; do
  systemd-analyze verify --man=yes "$unit" >/tmp/said 2>&1
  # Ignore messages about other units.
  fails grep -F "$unit" /tmp/said
done
# A threshold of 2.0, in tenths.
systemd-analyze security --offline=yes --threshold=20 --no-pager keyhole.service >/tmp/said
tail -1 /tmp/said
man --where keyhole-serve keyhole
# An edited configuration survives a reinstallation, and a purge removes it.
echo '# edited' >>/etc/keyhole/keyhole.toml
dpkg --install --force-confold /tmp/keyhole.deb
grep -q '^# edited$' /etc/keyhole/keyhole.toml
mkdir -p /var/lib/private/keyhole
touch /var/lib/private/keyhole/objects.keyhole
dpkg --remove keyhole
fails test -e /usr/bin/keyhole
test -e /etc/keyhole/keyhole.toml
dpkg --purge keyhole
fails test -e /etc/keyhole/keyhole.toml
fails test -e /etc/systemd/system/multi-user.target.wants/keyhole.service
# A purge must keep the objects.
test -e /var/lib/private/keyhole/objects.keyhole
echo 'installed, checked, purged'
INSIDE
chroot "$layer/root" /bin/sh /tmp/inside
