#!/bin/sh
# Makes the Python environment with aiortc that tests/interop and tests/netns use, in target/test-venv. Does nothing when it
# is there already.
set -eu

aiortc=1.16.0

cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
venv=$target/test-venv
mkdir -p "$target"

# Tests of several processes may come here at the same time.
exec 9>"$target/test-venv.lock"
flock 9
if [ "$(cat "$venv/ready" 2>/dev/null)" = "$aiortc" ]; then
    exit 0
fi
python3 -m venv --clear "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check "aiortc==$aiortc"
echo "$aiortc" >"$venv/ready"
