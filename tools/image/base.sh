#!/bin/sh
# Makes a base for images without a registry: Debian with Python, as root: base.sh NAME
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Without what images that call themselves slim leave out as well, and what merged /usr once.
mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,usr-is-merged \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--customize-hook='chroot "$1" apt-get --yes purge usrmerge perl-modules-5.36 libperl5.36' \
	bookworm "$folder/base.tar"
podman import --quiet "$folder/base.tar" "$1"
