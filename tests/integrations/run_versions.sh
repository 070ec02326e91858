#!/usr/bin/env sh
# The integration tests with the lowest and the newest version of each framework, each set in its own environment below
# $VENV. `make test-integrations` calls it; it names what it cannot install and skips that. With the argument `install`
# it only installs, and fails if a package cannot be installed. The newest set also checks the types.
set -u
# The SDKs inside the models, with the newest packages of LangChain that contain them.
MODELS="openai anthropic google-genai genai-prices langchain-openai langchain-anthropic langchain-google-genai langchain-aws
  langchain-groq"
LOWEST="langchain==1.0.0 fastapi==0.121.0 fastmcp==3.0.0 pydantic-ai-slim==2.64.0 openai-agents==0.22.0 celery==5.3.6
  rq==2.6.0 dramatiq==1.17.0 opentelemetry-api==1.28.0 opentelemetry-sdk==1.28.0 flask==3.0.0 django==4.2 $MODELS"
NEWEST="langchain>=1,<2 fastapi>=0.121,<1 fastmcp>=3,<5 pydantic-ai-slim>=2.64,<3 openai-agents>=0.22,<0.25
  celery>=5.3.6,<6 rq>=2.6,<4 dramatiq>=1.17,<3 opentelemetry-api>=1.28,<2 opentelemetry-sdk>=1.28,<2
  flask>=3,<4 django>=4.2,<7 mcp>=2,<3 litellm>=1.105,<2 dspy>=3.4,<4 google-adk>=2,<3
  agent-framework-core>=1.21,<2 $MODELS"
# fastmcp 3.0 needs mcp 1, so the lowest mcp has an environment of its own.
LOWEST_MCP="mcp==2.0.0"
# They need newer versions of fastapi and starlette than the lowest ones.
LOWEST_AGENTS="litellm==1.105.0 google-adk==2.0.0 agent-framework-core==1.21.0 openai anthropic google-genai genai-prices"
# Clients of Agent Framework, which declare narrower ranges of the SDKs than they work with; two have only pre-releases.
CLIENTS="agent-framework-openai agent-framework-anthropic agent-framework-gemini"
# kombu 5.7 needs redis and packaging for its Redis transport and does not declare them.
TOOLS="pytest>=8.3 pytest-timeout>=2.3 pytest-xdist>=3.6 anyio>=4.4 sybil>=8.0 ruamel.yaml>=0.18 mypy>=1.13 redis>=6.1
  packaging types-python-dateutil jsonschema"
export LITELLM_LOCAL_MODEL_COST_MAP=True  # LiteLLM downloads a list of models when it is imported
mode=${1:-test}
failed=0
for set in lowest lowest-mcp lowest-agents newest; do
  tests=tests/integrations
  case $set in
    lowest) packages=$LOWEST ;;
    lowest-mcp) packages=$LOWEST_MCP tests=tests/integrations/test_mcp.py ;;
    lowest-agents) packages=$LOWEST_AGENTS
      tests="tests/integrations/test_litellm.py tests/integrations/test_adk.py tests/integrations/test_agent_framework.py
        tests/integrations/test_charges.py tests/integrations/test_examples.py" ;;
    newest) packages=$NEWEST ;;
  esac
  home=$VENV/integrations-$set
  python=$home/bin/python
  if [ ! -e "$home/.installed" ] || [ pyproject.toml -nt "$home/.installed" ]; then
    echo "setting up $home"
    [ -x "$python" ] || "${PYTHON:-python3}" -m venv "$home" || exit 1
    # uv resolves a set in seconds, pip in minutes
    # shellcheck disable=SC2086 # one word per package
    if ! { "$python" -m pip install --quiet --disable-pip-version-check 'uv>=0.9' \
      && "$python" -m uv pip install --quiet --python "$python" -e '.[cli,embedded]' $TOOLS; }; then
      echo "test-integrations: the package cannot be installed in $home"; exit 1
    fi
    # shellcheck disable=SC2086 # one resolution for all, so that none replaces what another needs
    if "$python" -m uv pip install --quiet --python "$python" $packages \
      && { [ "$set" != newest ] \
        || "$python" -m uv pip install --quiet --python "$python" --prerelease allow --no-deps $CLIENTS; }; then
      touch "$home/.installed"
    else
      echo "test-integrations: the $set versions cannot be installed together; their tests are skipped"
      failed=1
      continue
    fi
  fi
  [ "$mode" = install ] && continue
  echo "test-integrations: the $set versions:" $("$python" -m pip list --format=freeze 2>/dev/null \
    | grep -E '^(langchain|fastapi|starlette|fastmcp|pydantic-ai-slim|openai-agents|celery|rq|dramatiq|opentelemetry-api|flask|django|mcp|litellm|dspy|google-adk|agent-framework-core)=')
  command -v redis-server >/dev/null \
    || echo "test-integrations: redis-server is not installed, the tests of queues on a real server are skipped"
  # shellcheck disable=SC2086 # one word per file
  "$python" -m pytest -n "${WORKERS:-auto}" --maxprocesses 4 $tests \
    || failed=1
  if [ "$set" = newest ]; then  # pages show what the newest versions have, such as ModelRetryMiddleware
    # pydantic warns of a type of LiteLLM
    "$python" -m pytest -q -p no:xdist -W 'ignore:Item:UserWarning' tests/test_docs.py -k docs/integrations || failed=1
    "$python" -m mypy cycles/integrations || failed=1
  fi
done
exit $failed
