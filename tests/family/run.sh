#!/usr/bin/env sh
# The examples of the other clients for this protocol, unchanged, against `cycles dev --fake`. `make test-family` calls
# it. The clients and their sources come from the package registries by name. The client for TypeScript is one npm
# package, runcycles; where npm has no such package, this says so and skips it. With the argument `install` it only
# installs, and fails if a Python package cannot be had.
set -u
CLIENTS="runcycles==0.5.3 langchain-runcycles==0.4.0 runcycles-openai-agents==0.3.0"
MODELS="openai anthropic langchain langchain-openai langchain-anthropic fastapi uvicorn"
home=$VENV/family
python=$home/bin/python
if [ ! -e "$home/.installed" ] || [ pyproject.toml -nt "$home/.installed" ] || [ "$0" -nt "$home/.installed" ]; then
  echo "setting up $home"
  "${PYTHON:-python3}" -m venv "$home" || exit 1
  # shellcheck disable=SC2086 # one word per package
  "$python" -m pip install --quiet --disable-pip-version-check -e '.[run]' "pytest>=8.3" "pytest-timeout>=2.3" \
    "hypothesis>=6.100" $CLIENTS $MODELS \
    && "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
      --dest "$home/sources" $CLIENTS \
    || { echo "test-family: the clients cannot be installed in $home"; exit 1; }
  for source in "$home"/sources/*.tar.gz; do tar -xzf "$source" -C "$home/sources" || exit 1; done
  touch "$home/.installed"
fi
[ "${1:-test}" = install ] && exit 0
npm view runcycles version >"$home/npm.log" 2>&1 \
  || echo "test-family: npm has no package runcycles, so the examples for TypeScript are skipped"
FAMILY_SOURCES=$home/sources "$python" -m pytest tests/family
