#!/bin/sh
# Install what `make test-operators` needs beside the packages of development: a browser with its driver (Debian), the
# Python package that drives it, the SDKs that the proxy guards, and packages from npm. Each download is tried three times.
set -eu
cd "$(dirname "$0")/../.."
VENV=${VENV:-.venv}

tried() {
  for try in 1 2 3; do
    "$@" && return
    echo "test-operators: $* failed, try $try of 3" >&2
    sleep 5
  done
  return 1
}

if ! { command -v chromium && command -v chromedriver; } > /dev/null; then
  tried apt-get update -q || true
  tried apt-get install -y -q chromium chromium-driver || {
    echo "test-operators: chromium or chromium-driver is missing; install both packages of Debian" >&2
    exit 1
  }
fi
tried "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r tests/operators/requirements.txt
# shellcheck disable=SC2046 # one package in each line
tried npm install --prefix "$VENV/npm" --no-audit --no-fund --silent $(cat tests/operators/npm.txt)
touch "$VENV/.operators"
