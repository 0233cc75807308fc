#!/bin/sh
# Installs what makes the .rpm and the bill of materials into target/tools, once.
set -eu
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
for tool in cargo-generate-rpm cargo-cyclonedx; do
    if [ ! -x "$target/tools/bin/$tool" ]; then
        cargo install --quiet --debug --locked --root "$target/tools" --target-dir "$target/tools/build" "$tool"
        rm -rf "$target/tools/build"
    fi
done
