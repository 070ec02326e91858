#!/usr/bin/env sh
# The provider clients that test-operators runs behind the proxy: those of test-providers, and openai for Node from npm.
# It says what it cannot install; the tests of that client are skipped and name this script.
set -u
PYTHON=${PYTHON:-python3} VENV=${VENV:-.venv} sh tests/providers/run_versions.sh install \
  || echo "test-operators: not all provider SDKs can be installed; the tests of the others are skipped"
if ! command -v npm >/dev/null; then
  echo "test-operators: npm is not installed; the test of the Node client is skipped"
elif [ ! -d "$VENV/node/node_modules/openai" ]; then
  echo "setting up $VENV/node"
  mkdir -p "$VENV/node"
  npm install --silent --no-fund --no-audit --prefix "$VENV/node" openai@7 \
    || echo "test-operators: openai cannot be installed from npm; the test of the Node client is skipped"
fi
