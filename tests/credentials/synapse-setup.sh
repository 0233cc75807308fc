#!/bin/sh
# Makes the Python environment with Synapse that a test in tests/credentials uses, in target/test-venv-synapse: 250 MB, which tests/run does
# not download by itself. Then: cargo test --test credentials --features dtls synapse
set -eu

synapse=1.163.2

cd "$(dirname "$0")/../.."
venv=${CARGO_TARGET_DIR:-target}/test-venv-synapse
python3 -m venv --clear "$venv.new"
"$venv.new/bin/pip" install --quiet --disable-pip-version-check "matrix-synapse==$synapse"
rm -rf "$venv"
mv "$venv.new" "$venv"
