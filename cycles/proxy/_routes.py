"""Which providers the proxy has a route to, and which hosts belong to providers: the tables, as data.

A route is the first segment of a path behind the secret: ``http://127.0.0.1:PORT/SECRET/ROUTE``. Its variables point
the SDKs to it. A host of a provider that has no route is in `OTHER_HOSTS`: a call to it would not be charged.
`docs/run-under-a-budget.md` prints the variables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Final

from attrs import frozen


@frozen
class Route:
    """One route.

    Attributes:
        name: The first segment of its paths, and what `--upstream` calls it.
        provider: Its wire format. Vertex has two; its paths say which.
        pricing: The provider of the prices, as `genai-prices` names it.
        upstream: The address of the provider; None if there is none that all users share.
        hosts: Patterns of its host names; ``*`` is a part of one label.
        variables: Each variable that an SDK reads, and what its value has behind the route.
        mount: The part of a path that base URLs of this provider contain.
        optional: The variables are set only if they were set before, or if `--upstream` names the route.
        replaces: A variable that is set already is replaced, also if it is optional.
        is_vertex: Its paths name the region, and the publisher of the model.
        reports_usage: Its streams report their usage always, and the option that requests it is rejected.
        old_limit: Whether ``max_tokens`` is the output limit of chat completions: newer names may be unknown there.
    """

    name: str
    provider: str
    pricing: str
    upstream: str | None
    hosts: tuple[str, ...]
    variables: Mapping[str, str]
    mount: str = ""
    optional: bool = False
    replaces: bool = False
    is_vertex: bool = False
    reports_usage: bool = False
    old_limit: bool = True


_AZURE_HOSTS: Final = (
    "*.openai.azure.com",
    "*.openai.azure.us",
    "*.services.ai.azure.com",
    "*.cognitiveservices.azure.com",
)
_VERTEX_AREAS: Final = {
    "africa-south": (1,),
    "asia-east": (1, 2),
    "asia-northeast": (1, 2, 3),
    "asia-south": (1, 2),
    "asia-southeast": (1, 2, 3),
    "australia-southeast": (1, 2),
    "europe-central": (2,),
    "europe-north": (1, 2),
    "europe-southwest": (1,),
    "europe-west": (1, 2, 3, 4, 6, 8, 9, 10, 12),
    "me-central": (1, 2),
    "me-west": (1,),
    "northamerica-northeast": (1, 2),
    "northamerica-south": (1,),
    "southamerica-east": (1,),
    "southamerica-west": (1,),
    "us-central": (1,),
    "us-east": (1, 4, 5),
    "us-south": (1,),
    "us-west": (1, 2, 3, 4),
}
_VERTEX_REGIONS: Final = [f"{area}{number}" for area, numbers in _VERTEX_AREAS.items() for number in numbers]
"""Regions whose hosts a certificate can name: a constraint has no wildcard inside a label."""
_VERTEX_HOSTS: Final = (
    "aiplatform.googleapis.com",
    "*-aiplatform.googleapis.com",
    "aiplatform.*.rep.googleapis.com",
)

_ROUTES: Final = (
    Route(
        "openai",
        "openai",
        "openai",
        "https://api.openai.com/v1",
        ("api.openai.com", "*.api.openai.com"),
        {"OPENAI_BASE_URL": "/v1", "OPENAI_API_BASE": "/v1", "OPENAI_HOST": ""},
        mount="/v1",
        old_limit=False,
    ),
    Route(
        "anthropic",
        "anthropic",
        "anthropic",
        "https://api.anthropic.com",
        ("api.anthropic.com",),
        {"ANTHROPIC_BASE_URL": "", "ANTHROPIC_API_BASE": "", "ANTHROPIC_API_URL": ""},
    ),
    Route(
        "gemini",
        "google",
        "google",
        "https://generativelanguage.googleapis.com",
        ("generativelanguage.googleapis.com",),
        {"GOOGLE_GEMINI_BASE_URL": "", "GEMINI_API_BASE": ""},
    ),
    Route(
        "vertex",
        "google",
        "google",
        None,  # the region of the path decides
        _VERTEX_HOSTS,
        {"GOOGLE_VERTEX_BASE_URL": "", "ANTHROPIC_VERTEX_BASE_URL": "/v1"},
        is_vertex=True,
    ),
    Route(
        "azure",
        "openai",
        "azure",
        None,
        _AZURE_HOSTS,
        {"AZURE_OPENAI_ENDPOINT": "", "AZURE_API_BASE": ""},
        optional=True,
        replaces=True,
        old_limit=False,
    ),
    Route(
        "groq",
        "groq",
        "groq",
        "https://api.groq.com",
        ("api.groq.com",),
        {"GROQ_BASE_URL": "", "GROQ_API_BASE": "/openai/v1"},
    ),
    Route(
        "mistral",
        "openai",
        "mistral",
        "https://api.mistral.ai/v1",
        ("api.mistral.ai", "codestral.mistral.ai"),
        {"MISTRAL_BASE_URL": "/v1", "MISTRAL_API_BASE": "/v1"},
        mount="/v1",
        reports_usage=True,
    ),
    Route("xai", "openai", "x-ai", "https://api.x.ai/v1", ("api.x.ai", "*.api.x.ai"), {"XAI_API_BASE": "/v1"}, "/v1"),
    Route(
        "openrouter",
        "openai",
        "openrouter",
        "https://openrouter.ai/api/v1",
        ("openrouter.ai", "api.openrouter.ai"),
        {"OPENROUTER_API_BASE": "/api/v1"},
        mount="/api/v1",
    ),
    Route(
        "deepseek",
        "openai",
        "deepseek",
        "https://api.deepseek.com",
        ("api.deepseek.com",),
        {"DEEPSEEK_API_BASE": ""},
    ),
    Route("ollama", "openai", "ollama", None, (), {"OLLAMA_HOST": "", "OLLAMA_API_BASE": ""}, optional=True),
)
ROUTES: Final[Mapping[str, Route]] = {route.name: route for route in _ROUTES}

UNROUTED: Final = ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "ANTHROPIC_BEDROCK_BASE_URL", "CO_API_URL")
"""Variables with the address of a provider that has no route."""
OTHER_HOSTS: Final = (
    "ai-gateway.vercel.sh",
    "api-inference.huggingface.co",
    "api.ai21.com",
    "api.arcee.ai",
    "api.avian.io",
    "api.cerebras.ai",
    "api.cloudflare.com",
    "api.cohere.ai",
    "api.cohere.com",
    "api.cursor.com",
    "api.deepinfra.com",
    "api.doubleword.ai",
    "api.elevenlabs.io",
    "api.*.elevenlabs.io",
    "api.*.residency.elevenlabs.io",
    "api.fireworks.ai",
    "api.hyperbolic.xyz",
    "api.inference.net",
    "api.meta.ai",
    "api.minimax.chat",
    "api.minimax.com",
    "api.minimax.io",
    "api.minimaxi.com",
    "api.minimaxi.io",
    "api.moonshot.ai",
    "api.moonshot.cn",
    "api.novita.ai",
    "api.perplexity.ai",
    "api.quicksilverpro.io",
    "api.replicate.com",
    "api.sambanova.ai",
    "api.siliconflow.cn",
    "api.siliconflow.com",
    "api.stability.ai",
    "api.studio.nebius.com",
    "api.tokenfactory.nebius.com",
    "api.together.ai",
    "api.together.xyz",
    "api.typesafe.ai",
    "api.voyageai.com",
    "api.z.ai",
    "bedrock-mantle.*.amazonaws.com",
    "bedrock-mantle.*.api.aws",
    "bedrock-runtime-fips.*.amazonaws.com",
    "bedrock-runtime.*.amazonaws.com",
    "bedrock-runtime.*.amazonaws.com.cn",
    "bedrock-runtime.*.api.aws",
    "*.bedrock-runtime.*.vpce.amazonaws.com",
    "chatgpt.com",
    "cloudcode-pa.googleapis.com",
    "dashscope*.aliyuncs.com",
    "*.cloud.databricks.com",
    "*.gcp.databricks.com",
    "*.azuredatabricks.net",
    "gateway.ai.cloudflare.com",
    "inference.baseten.co",
    "integrate.api.nvidia.com",
    "*.modal.direct",
    "*.modal.run",
    "models.github.ai",
    "models.inference.ai.azure.com",
    "oai.endpoints.kepler.ai.cloud.ovh.net",
    "ollama.com",
    "open.bigmodel.cn",
    "opencode.ai",
    "router.huggingface.co",
    "*.githubcopilot.com",
)
"""Host names of providers without a route."""


def _labels(name: str) -> list[str]:
    return name.split(".")[::-1]


def _matches(host: str, pattern: str) -> bool:
    found, wanted = _labels(host), _labels(pattern)
    return len(found) == len(wanted) and all(map(fnmatchcase, found, wanted))


_EXACT: Final = {host: route for route in _ROUTES for host in route.hosts if "*" not in host}
_WILD: Final = [(host, route) for route in _ROUTES for host in route.hosts if "*" in host]


def route_of_host(host: str) -> Route | None:
    """Return the route of a host name in lower case; None if it has none."""
    exact = _EXACT.get(host)
    return exact or next((route for pattern, route in _WILD if _matches(host, pattern)), None)


def is_provider(host: str) -> bool:
    """Return whether a call to this host would not be charged: it has a route, or is in `OTHER_HOSTS`."""
    return route_of_host(host) is not None or any(_matches(host, pattern) for pattern in OTHER_HOSTS)


def hosts_of_routes() -> list[str]:
    """Return the names to which a certificate authority for the routes is limited. A name contains those below it."""
    found = dict.fromkeys(host.removeprefix("*.") for host in [*_EXACT, *(pattern for pattern, _ in _WILD)])
    regions = [f"{region}-aiplatform.googleapis.com" for region in _VERTEX_REGIONS]
    multi = [f"aiplatform.{region}.rep.googleapis.com" for region in ("us", "eu", *_VERTEX_REGIONS)]
    return [*(host for host in found if "*" not in host), *regions, *multi]


def covers_provider(entry: str) -> bool:
    """Return whether an entry of `NO_PROXY` covers a host of a provider."""
    name = entry.strip().lower().rstrip(".")
    name = name.rpartition(":")[0] or name if name.count(":") == 1 else name
    if name == "*":
        return True
    name = name.removeprefix("*").removeprefix(".")
    if not name or name.replace(".", "").isdigit() or ":" in name or "/" in name:
        return False  # an address
    patterns = [*_EXACT, *(pattern for pattern, _ in _WILD), *OTHER_HOSTS]
    return any(_covers(name, pattern) for pattern in patterns)


def _covers(name: str, pattern: str) -> bool:
    """Return whether a host of the pattern ends with the name. Some programs compare characters and not labels."""
    if "*" not in pattern:
        return pattern.endswith(name)
    found, wanted = _labels(name), _labels(pattern)
    return len(found) <= len(wanted) and all(map(fnmatchcase, found, wanted))


def base_urls(prefix: str, present: Collection[str], routes: Collection[str]) -> dict[str, str]:
    """Return the variables of the SDKs and their values.

    Args:
        prefix: The address of the proxy, with the secret.
        present: The variables that are set already.
        routes: The routes that `--upstream` names.
    """
    return {
        variable: f"{prefix}/{route.name}{suffix}"
        for route in _ROUTES
        for variable, suffix in route.variables.items()
        if not route.optional or route.name in routes or (route.replaces and variable in present)
    }


def vertex_upstream(region: str) -> str:
    """Return the address of Vertex AI for a region of its paths."""
    if region == "global":
        return "https://aiplatform.googleapis.com"
    if region in ("us", "eu"):
        return f"https://aiplatform.{region}.rep.googleapis.com"
    return f"https://{region}-aiplatform.googleapis.com"
