#!/bin/sh
# Installs what pip can't: `build` (to compile Annoy), `test` (RabbitMQ, Chromium, Prometheus, zsh, Node),
# `bench`, or `images` (podman and what makes its base). On Debian and Ubuntu by apt; elsewhere it says
# what is missing.
set -eu

missing=

need() { # need PACKAGE COMMAND...: the command shows whether the package is there
	package=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $package"
}

case "${1:-}" in
build)
	python=${PYTHON:-python3}
	need g++ c++ --version
	need python3-venv "$python" -c 'import ensurepip'
	need python3-dev "$python" -c '
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
	;;
test)
	need rabbitmq-server test -e /usr/lib/rabbitmq/bin/rabbitmq-server
	need chromium test -e /usr/bin/chromium
	need prometheus test -e /usr/bin/prometheus
	need curl curl --version
	need zsh zsh --version
	need nodejs node --version
	need npm npm --version
	;;
bench)
	need rabbitmq-server test -e /usr/lib/rabbitmq/bin/rabbitmq-server
	need redis-server redis-server --version
	;;
images)
	need podman podman --version
	need buildah buildah --version
	need runc runc --version
	need netavark test -e /usr/lib/podman/netavark
	need aardvark-dns test -e /usr/lib/podman/aardvark-dns
	need iptables iptables --version
	need mmdebstrap mmdebstrap --version
	;;
*)
	echo "usage: $0 build|test|bench|images" >&2
	exit 64
	;;
esac

[ -n "$missing" ] || exit 0

# Names of the build packages elsewhere. `$missing` holds those of Debian.
elsewhere() {
	if command -v dnf >/dev/null; then
		echo "sudo dnf install gcc-c++ python3-devel"
	elif command -v zypper >/dev/null; then
		echo "sudo zypper install gcc-c++ python3-devel"
	elif command -v pacman >/dev/null; then
		echo "sudo pacman -S --needed gcc python"
	elif command -v apk >/dev/null; then
		echo "sudo apk add g++ python3-dev linux-headers"
	elif command -v brew >/dev/null || [ "$(uname)" = Darwin ]; then
		echo "xcode-select --install && brew install python"
	else
		echo "install a C++ compiler, and Python's headers and venv module, with your package manager"
	fi
}

if ! command -v apt-get >/dev/null; then
	if [ "$1" = build ]; then
		echo "Annoy, a library of Simile, is compiled on your machine, which lacks:$missing" >&2
		echo "Run this command, then the same command again:" >&2
		echo "  $(elsewhere)" >&2
	else
		echo "Install these with your package manager, by their names there:$missing" >&2
	fi
	exit 1
fi

if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
	echo "As root, run this command, then the same command again:" >&2
	echo "  apt-get update && apt-get install$missing" >&2
	exit 1
fi

as_root=
if [ "$(id -u)" -ne 0 ]; then
	as_root=sudo
fi

# A fresh machine updates itself for minutes, and whoever runs apt meanwhile finds its locks taken. The
# option waits for those of dpkg; for that of the lists apt has none, so it is asked again.
apt() {
	tries=60
	until said=$($as_root env LC_ALL=C DEBIAN_FRONTEND=noninteractive \
		apt-get -o DPkg::Lock::Timeout=600 "$@" 2>&1 >&3); do
		tries=$((tries - 1))
		case "$said" in
		*"Could not get lock"* | *"Unable to lock"*) ;;
		*) tries=0 ;;
		esac
		if [ "$tries" -le 0 ]; then
			echo "$said" >&2
			exit 1
		fi
		echo "apt is in use by another program; trying again in 10 seconds" >&2
		sleep 10
	done
	[ -z "$said" ] || echo "$said" >&2
}

exec 3>&1 # what apt prints is seen while it works, and its complaints are read here

apt update
# shellcheck disable=SC2086 # a list of packages
apt install --yes $missing

# Debian starts these as services; the tests start a Prometheus of their own.
case "$missing" in
*prometheus*)
	if [ -d /run/systemd/system ]; then
		$as_root systemctl disable --now prometheus prometheus-node-exporter || true
	fi
	;;
esac
