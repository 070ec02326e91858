#!/bin/sh
# Install the command line agents of `make test-agents` into a folder of their own: $VENV/agents. NAMES selects some of
# them ("claude codex gemini aider"); the default is all, with the SDKs of `tests/operators/test_witness.py`. Each
# download is tried three times; one that fails ends this.
set -eu
cd "$(dirname "$0")/../.."
VENV=${VENV:-.venv}
PYTHON=${PYTHON:-python3}
NAMES=${NAMES:-claude codex gemini aider opencode qwen pi cline sdks}
folder=$VENV/agents
SDKS="openai anthropic[vertex,bedrock] google-genai groq mistralai cohere boto3 litellm xai-sdk aiohttp requests"

tried() {
  for try in 1 2 3; do
    "$@" && return
    echo "install-agents: $* failed, try $try of 3" >&2
    sleep 5
  done
  return 1
}

package_of() {
  case $1 in
    claude) echo "@anthropic-ai/claude-code@2" ;;
    codex) echo "@openai/codex@0.171" ;;
    gemini) echo "@google/gemini-cli@0.61" ;;
    opencode) echo "opencode-ai@1.18" ;;
    qwen) echo "@qwen-code/qwen-code@0.15" ;;
    pi) echo "@earendil-works/pi-coding-agent@0.74" ;;
    cline) echo "cline@3" ;;
    *)
      echo "install-agents: there is no agent $1; NAMES may have claude codex gemini aider opencode qwen pi cline sdks" >&2
      return 1
      ;;
  esac
}

mkdir -p "$folder"
for name in $NAMES; do
  if [ "$name" = aider ]; then
    [ -x "$folder/aider/bin/aider" ] && continue
    "$PYTHON" -m venv "$folder/aider"
    tried "$folder/aider/bin/python" -m pip install --quiet --disable-pip-version-check 'aider-chat==0.86.*'
  elif [ "$name" = sdks ]; then
    [ -e "$folder/sdks/.installed" ] && continue
    "$PYTHON" -m venv "$folder/sdks"
    # shellcheck disable=SC2086 # one word per package
    tried "$folder/sdks/bin/python" -m pip install --quiet --disable-pip-version-check $SDKS
    touch "$folder/sdks/.installed"
  elif [ ! -e "$folder/node_modules/.bin/$name" ]; then
    package=$(package_of "$name")
    tried npm install --prefix "$folder" --no-audit --no-fund --loglevel=error "$package"
  fi
done
