#!/bin/sh
# Inside an image's build: installs the libraries of some extras into /opt/simile: install.sh EXTRA...
set -eu

for extra in "$@"; do
	set -- "$@" -r "/requirements/$extra.txt"
	shift
done

# Annoy compiles itself for the processor that it is built on, which another one may not understand.
if [ "$(uname -m)" = x86_64 ]; then
	ANNOY_COMPILER_ARGS="-fpermissive,-march=${X86_64_LEVEL:-x86-64-v3},-O3,-ffast-math,\
-fno-associative-math,-DANNOYLIB_MULTITHREADED_BUILD,-std=c++14"
	export ANNOY_COMPILER_ARGS
fi
/opt/pip/bin/pip --python /opt/simile/bin/python install "$@"
