"""Run one call of each SDK of the page under `cycles run`, before the witness: ``python -m tests.agents.sdks PYTHON``.

PYTHON has the SDKs. Each call is charged exactly, or rejected and named; no connection may reach the witness. It prints
one JSON document; what is not installed is in its member `missing`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from cycles.testing import FakeProvider
from tests.agents.witness import enter

LONGEST_S: Final = 120.0
USED: Final = {"tokens_input": 1000, "tokens_output": 100}
_CHAT: Final = "messages=[{'role': 'user', 'content': 'hi'}], max_tokens=100"
_GPT: Final = f"model='gpt-4o', {_CHAT}"
_CLAUDE: Final = f"model='claude-sonnet-4-5', {_CHAT}"
_BARE_KEYS: Final = ["OPENAI", "ANTHROPIC", "GROQ", "MISTRAL", "XAI", "OPENROUTER", "DEEPSEEK", "GEMINI", "CO", "AZURE"]
ROUTES: Final = {
    "openai": "/v1",
    "anthropic": "",
    "gemini": "",
    "vertex": "",
    "azure": "",
    "groq": "",
    "mistral": "/v1",
    "xai": "/v1",
    "openrouter": "/api/v1",
    "deepseek": "",
}


LITELLM: Final = {
    "openai/gpt-4o": 350_000,
    "anthropic/claude-sonnet-4-5": 450_000,
    "gemini/gemini-2.5-flash": 55_000,
    "groq/llama-3.3-70b-versatile": 66_900,
    "xai/grok-3": 450_000,
    "openrouter/openai/gpt-4o": 350_000,
    "deepseek/deepseek-chat": 38_000,
}
"""Models of LiteLLM, with the price of `USED` in microcents; one process calls all, because its import takes long."""
SUMS: Final = {
    "openai": 350_000,
    "openai azure": 350_000,
    "anthropic": 450_000,
    "anthropic vertex": 450_000,
    "google-genai": 55_000,
    "google-genai vertex": 55_000,
    "groq": 66_900,
    "litellm": sum(LITELLM.values()),
}
"""What each case of `CHARGED` costs, in microcents, by the price lists of the providers."""
DISCOUNTS: Final = {"litellm": 19_000}
"""What a case may cost less: DeepSeek's price is half from 16:30 to 0:30 UTC."""
CHARGED: Final = {
    "openai": f"import openai; openai.OpenAI().chat.completions.create({_GPT})",
    "openai azure": (
        f"import openai; openai.AzureOpenAI(api_key='k', api_version='2024-10-21').chat.completions.create({_GPT})"
    ),
    "anthropic": f"import anthropic; anthropic.Anthropic().messages.create({_CLAUDE})",
    "anthropic vertex": (
        "import anthropic; anthropic.AnthropicVertex(project_id='p', region='us-east5', access_token='t')"
        f".messages.create({_CLAUDE})"
    ),
    "google-genai": (
        "from google import genai; llm = genai.Client(api_key='k'); "
        "llm.models.generate_content(model='gemini-2.5-flash', contents='hi')"
    ),
    "google-genai vertex": (
        "from google import genai; from google.oauth2.credentials import Credentials; "
        "llm = genai.Client(vertexai=True, project='p', location='us-east5', credentials=Credentials('t')); "
        "llm.models.generate_content(model='gemini-2.5-flash', contents='hi')"
    ),
    "groq": f"import groq; groq.Groq().chat.completions.create(model='llama-3.3-70b-versatile', {_CHAT})",
    "litellm": (
        "import litellm\n"
        f"for name in {list(LITELLM)}:\n"
        f"    try: litellm.completion(model=name, {_CHAT}, num_retries=0)\n"
        "    except Exception as error: print(name, repr(error)[:400], file=__import__('sys').stderr)"
    ),
}
REJECTED: Final = {
    "openai, address in the code": (
        "api.openai.com",
        "import openai; openai.OpenAI(base_url='https://api.openai.com/v1', max_retries=0)"
        f".chat.completions.create({_GPT})",
    ),
    "mistralai": (
        "api.mistral.ai",
        "from mistralai.client import Mistral; Mistral(api_key='k')"
        f".chat.complete(model='mistral-large-latest', {_CHAT})",
    ),
    "litellm mistral": (  # its chat reads MISTRAL_AZURE_API_BASE only
        "api.mistral.ai",
        f"import litellm; litellm.completion(model='mistral/mistral-large-latest', {_CHAT}, num_retries=0)",
    ),
    "cohere": (
        "api.cohere.com",
        "import cohere; cohere.ClientV2('k').chat(model='command-r', messages=[{'role': 'user', 'content': 'hi'}])",
    ),
    "anthropic bedrock": (
        "bedrock-runtime.us-east-1.amazonaws.com",
        "import anthropic; anthropic.AnthropicBedrock(aws_region='us-east-1', aws_access_key='a', aws_secret_key='b', "
        f"max_retries=0).messages.create({_CLAUDE})",
    ),
    "boto3": (
        "bedrock-runtime.us-east-1.amazonaws.com",
        "import boto3; boto3.client('bedrock-runtime', region_name='us-east-1', aws_access_key_id='a', "
        "aws_secret_access_key='b').converse(modelId='m', messages=[{'role': 'user', 'content': [{'text': 'hi'}]}])",
    ),
    "xai-sdk": (  # gRPC
        "api.x.ai",
        "from xai_sdk import Client; from xai_sdk.chat import user; "
        "chat = Client(api_key='k', timeout=20).chat.create(model='grok-3'); chat.append(user('hi')); chat.sample()",
    ),
    "requests": ("api.openai.com", "import requests; requests.post('https://api.openai.com/v1/chat/completions')"),
    "urllib": ("api.openai.com", "import urllib.request; urllib.request.urlopen('https://api.openai.com/v1/models')"),
}
SEALED: Final = {
    "aiohttp": (
        "import aiohttp, asyncio\n"
        "async def run():\n"
        "    async with aiohttp.ClientSession() as session: await session.post('https://api.openai.com/v1/responses')\n"
        "asyncio.run(run())"
    ),
    "socket": "import socket; socket.create_connection(('api.openai.com', 443), 10)",
}


def _run(python: str, code: str, *options: str) -> tuple[dict[str, Any], int, str]:
    """Run code under `cycles run`; return its summary, how many requests reached the provider, and what it printed."""
    with FakeProvider() as provider:
        provider.reply(usage=USED, text="hello", times=len(LITELLM))
        upstreams = [f"--upstream={name}={provider.url}{mount}" for name, mount in ROUTES.items()]
        keys = {f"{name}_API_KEY": "k" for name in _BARE_KEYS}
        # Set by hand, because it is replaced only if it was set.
        keys |= {"AZURE_OPENAI_ENDPOINT": "https://my.openai.azure.com", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        command = [sys.executable, "-m", "cycles", "run", "--budget", "5USD", "--json", *upstreams, *options]
        try:
            ran = subprocess.run(
                [*command, "--", python, "-c", code],
                env={**os.environ, **keys},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LONGEST_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            return {}, len(provider.requests), f"no end after {LONGEST_S} s: {error.stderr!r:.1500}"
        lines = [line for line in ran.stderr.splitlines() if line.startswith('{"calls"')]
        return json.loads(lines[-1]) if lines else {}, len(provider.requests), ran.stderr


def _module(code: str) -> str:
    """Return the package that code imports first."""
    return code.replace("from ", "import ").split("import ")[1].split(";")[0].split(",")[0].split()[0].strip()


def _missing(python: str, codes: Mapping[str, str]) -> list[str]:
    """Return the cases whose packages are not installed; nothing is imported for that, because it takes seconds."""
    code = (
        "import importlib.util, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(int(importlib.util.find_spec(name) is None))\n"
        "    except ModuleNotFoundError: print(1)"
    )
    modules = [_module(code) for code in codes.values()]
    ran = subprocess.run([python, "-c", code, *modules], capture_output=True, text=True, check=True)
    return [name for name, missing in zip(codes, ran.stdout.split(), strict=True) if missing == "1"]


def _problem(python: str, name: str) -> str | None:
    """Run one case, and return what is wrong."""
    if name in CHARGED:
        summary, requests, printed = _run(python, CHARGED[name])
        wanted = len(LITELLM) if name == "litellm" else 1
        charged = summary.get("calls") == wanted == requests
        sums = (SUMS[name], SUMS[name] - DISCOUNTS.get(name, 0))
        if charged and not summary["estimated"] and summary["spent"]["amount"] in sums:
            return None
    elif name in REJECTED:
        host, code = REJECTED[name]
        summary, requests, printed = _run(python, code)
        if host in summary.get("rejected_hosts", {}) and summary["calls"] == 0 == requests:
            return None
    else:
        summary, requests, printed = _run(python, SEALED[name], "--sealed")
        if summary.get("sealed") is not None and summary["exit"] != 0 and requests == 0:
            return None
    return f"{summary} {requests} {printed[-1500:]}"


def main(python: str, only: list[str]) -> int:
    """Run all cases, or those that are named, and print what they did."""
    witness = enter()
    codes = {**CHARGED, **{name: code for name, (_, code) in REJECTED.items()}, **SEALED}
    names = [name for name in codes if not only or name in only]
    missing = _missing(python, {name: codes[name] for name in names})
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda name: None if name in missing else _problem(python, name), names))
    failures = {name: problem for name, problem in zip(names, found, strict=True) if problem is not None}
    passed = [name for name in names if name not in missing and name not in failures]
    print(json.dumps({"passed": passed, "failures": failures, "missing": missing, "witness": dict(witness.seen)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
