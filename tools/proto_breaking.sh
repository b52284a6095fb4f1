#!/bin/sh
# Checks that proto/ still understands the messages of an earlier commit: proto_breaking.sh BUF REF
set -eu

buf=$1
ref=$2

if ! git rev-parse --quiet --verify "$ref:proto" >/dev/null 2>&1; then
	echo "buf breaking: skipped, this checkout has no proto/ at $ref to compare with"
	exit 0
fi

earlier=build/proto-earlier
rm -rf "$earlier"
mkdir -p "$earlier"
git archive "$ref" proto | tar -x -C "$earlier"
"$buf" breaking proto --against "$earlier/proto"
