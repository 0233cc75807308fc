#!/bin/sh
# Makes the Python environment with the package of Twilio that tests/credentials uses, in target/test-venv-twilio. Does nothing when it is
# there already.
set -eu

twilio=9.13.0

cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
venv=$target/test-venv-twilio
mkdir -p "$target"

# Tests of several processes may come here at the same time.
exec 9>"$target/test-venv-twilio.lock"
flock 9
if [ "$(cat "$venv/ready" 2>/dev/null)" = "$twilio" ]; then
    exit 0
fi
python3 -m venv --clear "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check "twilio==$twilio"
echo "$twilio" >"$venv/ready"
