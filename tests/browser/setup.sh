#!/bin/sh
# Installs playwright-core, which drives Debian's Chromium, into target/test-browser. Does nothing when it is there already.
set -eu

cd "$(dirname "$0")"
here=$PWD
cd ../..
target=${CARGO_TARGET_DIR:-target}
modules=$target/test-browser
mkdir -p "$modules"

# Tests of several processes may come here at the same time.
exec 9>"$target/test-browser.lock"
flock 9
if cmp -s "$here/package.json" "$modules/ready"; then
    exit 0
fi
cp "$here/package.json" "$modules/package.json"
cd "$modules"
npm install --no-package-lock --ignore-scripts --no-audit --no-fund --silent
cp "$here/package.json" ready
