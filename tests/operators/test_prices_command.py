"""`cycles prices`: show, update and check, without a network."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles.cli import _newer_prices
from tests.operators.conftest import Cycles
from tests.support.stub import Stub, ok

pytest.importorskip("genai_prices")
KEYS = [key for of in _newer_prices.LISTS.values() for key in of.keys]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KEYS, "CYCLES_PRICES_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_show_prints_rates_and_rules(run_here: Cycles) -> None:
    found = run_here("prices", "show", "gpt-5")
    assert found.status == 0
    assert "gpt-5: prices of openai" in found.out
    row = next(line.split() for line in found.out.splitlines() if line.startswith("code_sessions"))
    assert (row[1], row[-1]) == ("0.03", "table")
    on_vertex = run_here("prices", "show", "claude-sonnet-4-5", "--url", "https://x.googleapis.com", "--json")
    document = json.loads(on_vertex.out)
    assert (document["provider"], document["rules"]["web_searches"]) == ("google", "maker")
    assert document["price"]["per_call"]["web_searches"] == "0.01"


def test_show_of_an_unknown_model_names_the_remedies(run_here: Cycles) -> None:
    found = run_here("prices", "show", "gpt-5-minix")
    assert found.status == 2
    assert found.err == (
        "error: no price is known for the model 'gpt-5-minix'; did you mean gpt-5-mini?: cycles prices update FILE "
        "downloads newer prices; add your own to the file, and name it in CYCLES_PRICES_FILE\n"
    )


class _Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"data": [{"id": "gpt-5"}, {"id": "sora-9"}]}).encode()
        assert self.headers["authorization"] == "Bearer k"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def listing() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def test_check_lists_models_without_a_price(run_here: Cycles, listing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", listing)
    found = run_here("prices", "check", "--provider", "openai", "--json")
    assert found.status == 1
    assert json.loads(found.out) == {"checked": 2, "missing": [{"provider": "openai", "model": "sora-9"}]}
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1")
    found = run_here("prices", "check", "--provider", "openai")
    assert found.status == 2
    assert "cannot be listed" in found.err


@pytest.mark.parametrize(
    ("provider", "base", "key", "listed", "target", "header"),
    [
        (
            "anthropic",
            "ANTHROPIC_BASE_URL",
            "ANTHROPIC_API_KEY",
            {"data": [{"id": "claude-sonnet-4-5"}, {"id": "claude-nobody"}]},
            "/v1/models?limit=1000",
            "x-api-key",
        ),
        (
            "google",
            "GOOGLE_GEMINI_BASE_URL",
            "GEMINI_API_KEY",
            {"models": [{"name": "models/gemini-2.5-pro"}, {"name": "models/gemini-nobody"}]},
            "/v1beta/models?pageSize=1000",
            "x-goog-api-key",
        ),
    ],
)
def test_check_lists_the_models_of_each_provider_with_its_key(
    run_here: Cycles, monkeypatch: pytest.MonkeyPatch, provider: str, base: str, key: str, listed: Any, target: str,
    header: str,
) -> None:  # fmt: skip
    with Stub(ok(listed)) as stub:
        monkeypatch.setenv(base, f"{stub.url}/")
        monkeypatch.setenv("GOOGLE_API_KEY", "another")
        monkeypatch.setenv(key, "k")
        found = run_here("prices", "check", "--provider", provider, "--json")
    [missing] = found.document["missing"]
    assert missing["model"].endswith("-nobody")
    assert found.document["checked"] == 2
    [request] = stub.requests
    assert (request.target, request.headers[header]) == (target, "k")


def test_check_reads_a_file(run_here: Cycles, tmp_path: Path) -> None:
    file = tmp_path / "models"
    file.write_text("# ours\ngpt-5\n\n  claude-sonnet-4-5  \n")
    found = run_here("prices", "check", "--models", str(file))
    assert (found.status, found.out) == (0, "checked 2 models, 0 without a price\n")
    file.write_text("gpt-5\nours#1\n")
    found = run_here("prices", "check", "--models", str(file), "--json")
    assert (found.status, found.document) == (1, {"checked": 2, "missing": [{"provider": None, "model": "ours#1"}]})
    file.write_text("nope\n")
    assert run_here("prices", "check", "--models", str(file)).status == 1
    for arguments, said in ((["--models", str(tmp_path / "absent")], "absent"), ([], "OPENAI_API_KEY")):
        found = run_here("prices", "check", *arguments)
        assert found.status == 2
        assert said in found.err


def test_update_writes_models_that_differ(run_here: Cycles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import copy

    import genai_prices
    from genai_prices.data_snapshot import get_snapshot

    newer = copy.deepcopy(get_snapshot())
    model = newer.find_provider_model("gpt-5", None, "openai", None)[1]
    prices: Any = model.prices[-1].prices if isinstance(model.prices, list) else model.prices
    prices.__dict__["input_mtok"] = prices.input_mtok * 2
    monkeypatch.setattr(genai_prices.UpdatePrices, "fetch", lambda self: newer)
    file = tmp_path / "prices.json"
    found = run_here("prices", "update", str(file))
    assert (found.status, found.out.splitlines()[0]) == (
        0,
        "gpt-5: input 2.50, output 10 USD per million tokens",
    )
    book = cycles.PriceBook.genai(file=file)
    assert book.cost("gpt-5", tokens_input=1_000_000) == cycles.usd("2.50")
    assert book.cost("gpt-5", tokens_output=1_000_000, context={"service_tier": "flex"}) == cycles.usd(5)


def test_update_writes_new_models_too(run_here: Cycles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import copy

    import genai_prices
    from genai_prices.data_snapshot import get_snapshot

    newer = copy.deepcopy(get_snapshot())
    provider, model = newer.find_provider_model("gpt-5", None, "openai", None)
    new = copy.deepcopy(model)
    new.id = "gpt-new"
    provider.models.append(new)
    monkeypatch.setattr(genai_prices.UpdatePrices, "fetch", lambda self: newer)
    found = run_here("prices", "update", str(tmp_path / "prices.json"), "--json")
    assert list(found.document["models"]) == ["gpt-new"]


def test_update_writes_the_prices_of_each_maker_as_it_sells_its_models(
    run_here: Cycles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import copy

    import genai_prices
    from genai_prices.data_snapshot import get_snapshot

    newer = copy.deepcopy(get_snapshot())
    sold = {"openai": "gpt-5", "anthropic": "claude-sonnet-4-5", "google": "gemini-2.5-pro"}
    models = [newer.find_provider_model(model, None, provider, None) for provider, model in sold.items()]
    gateway = next(each for each in newer.providers if each.id not in sold and each.models)
    models.append((gateway, gateway.models[0]))
    for number, (provider, model) in enumerate(models):
        new = copy.deepcopy(model)
        new.id = f"{model.id}-next{number}"
        provider.models.append(new)
    at_google = copy.deepcopy(models[1][1])
    at_google.id = "claude-at-google"
    models[2][0].models.append(at_google)
    monkeypatch.setattr(genai_prices.UpdatePrices, "fetch", lambda self: newer)
    found = run_here("prices", "update", str(tmp_path / "prices.json"), "--json")
    names = [f"{model.id}-next{number}" for number, (_, model) in enumerate(models[:3])]
    assert sorted(found.document["models"]) == sorted(names)


def test_update_that_finds_nothing_newer_writes_no_model(
    run_here: Cycles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import genai_prices

    monkeypatch.setattr(genai_prices.UpdatePrices, "fetch", lambda self: None)
    file = tmp_path / "prices.json"
    found = run_here("prices", "update", str(file))
    assert (found.status, found.out) == (0, f"wrote 0 models to {file}\n")
    assert json.loads(file.read_text()) == {"models": {}}


def test_update_that_cannot_download_says_so(run_here: Cycles, tmp_path: Path) -> None:
    found = run_here("prices", "update", str(tmp_path / "f"), "--from", "http://127.0.0.1:1/data.json")
    assert found.status == 2
    assert "cannot be downloaded" in found.err
    assert list(tmp_path.iterdir()) == []
