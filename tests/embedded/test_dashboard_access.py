"""Whom the dashboard rejects, where it is served, and that its page needs nothing from another origin."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

import cycles
from cycles.embedded.dashboard.app import DashboardApp
from cycles.embedded.dashboard.static_files import static_files
from cycles.embedded.http import Request, Response


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({"tenant:acme": cycles.usd(10)}) as server:
        yield server


@pytest.fixture
def http(server: cycles.EmbeddedServer) -> Iterator[httpx.Client]:
    with server.listen() as url, httpx.Client(base_url=url) as http:
        yield http


def token_of(server: cycles.EmbeddedServer) -> str:
    assert server.dashboard_url is not None
    return server.dashboard_url.partition("#")[2]


@pytest.mark.parametrize("given", [None, "Bearer", "Bearer wrong", "Basic {token}", "Bearer {token}x"])
def test_controls_need_the_token(http: httpx.Client, server: cycles.EmbeddedServer, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given.format(token=token_of(server))}
    response = http.post("/dashboard/control", json={"do": "clear_faults"}, headers=headers)
    assert response.status_code == 401
    assert "token" in response.json()["message"]
    assert response.headers["WWW-Authenticate"] == "Bearer"


# --- who is rejected --------------------------------------------------------------------------------------------------

PATHS = ("/dashboard", "/dashboard/main.js", "/dashboard/state", "/dashboard/events", "/dashboard/nonsense")
FOREIGN = (
    {"Host": "evil.example"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "localhost:1@evil.example"},
    {"Host": "evil.example/localhost"},
    {"Host": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Sec-Fetch-Site": "cross-site"},
)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_other_sites_are_rejected_on_every_path(
    http: httpx.Client, server: cycles.EmbeddedServer, headers: dict[str, str]
) -> None:
    token = {"Authorization": f"Bearer {token_of(server)}"}
    for path in PATHS:
        assert http.get(path, headers=headers).status_code == 403, path
    response = http.post("/dashboard/control", json={"do": "clear_faults"}, headers=headers | token)
    assert response.status_code == 403
    assert "message" in response.json()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]:80", "LOCALHOST:1", "127.9.9.9"])
def test_loopback_and_the_page_itself_are_allowed(http: httpx.Client, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert http.get("/dashboard/state", headers=headers).status_code == 200


def test_another_host_has_the_dashboard_only_on_request_and_reading_needs_the_token(
    server: cycles.EmbeddedServer,
) -> None:
    assert server.listen("0.0.0.0")._dashboard is None  # it listens only once it is entered
    app = server.listen("0.0.0.0", dashboard=True)._dashboard
    assert isinstance(app, DashboardApp)
    assert server._dashboard is not None
    token = {"authorization": f"Bearer {server._dashboard.token}"}

    def status(path: str, headers: dict[str, str], address: str = "10.0.0.5") -> int:
        response = app.handle(Request(method="GET", target=path, headers=headers), address)
        assert isinstance(response, Response)
        return response.status

    assert status("/dashboard", {"host": "10.0.0.5:7878"}) == 200  # the page has no data
    assert status("/dashboard/state", {"host": "10.0.0.5:7878"}) == 401
    assert status("/dashboard/state", {"host": "10.0.0.5:7878"} | token) == 200
    assert status("/dashboard/events", {"host": "10.0.0.5:7878"}) == 401
    assert status("/dashboard/requests/1", {"host": "localhost"}) == 401
    assert status("/dashboard/state", {"host": "10.0.0.6"} | token) == 403


def test_without_the_dashboard_its_paths_are_like_any_unknown_one(server: cycles.EmbeddedServer) -> None:
    with server.listen(dashboard=False) as url, httpx.Client(base_url=url) as http:
        assert server.dashboard_url is None
        for path in PATHS:
            assert http.get(path).status_code == http.get("/nonsense").status_code == 401
        key = {"X-Cycles-API-Key": server.api_key}
        assert http.get("/dashboard", headers=key).json()["error"] == "NOT_FOUND"


def test_the_url_has_the_token_in_its_fragment_while_the_server_listens(server: cycles.EmbeddedServer) -> None:
    assert server.dashboard_url is None
    with server.listen() as url:
        assert re.fullmatch(re.escape(url) + r"/dashboard#[\w-]{32}", server.dashboard_url or "")
    assert server.dashboard_url is None


def test_requests_of_the_dashboard_are_no_requests_of_the_server(
    http: httpx.Client, server: cycles.EmbeddedServer
) -> None:
    for path in PATHS[:3]:
        http.get(path)
    assert list(server.requests) == []
    assert http.get("/dashboard/state").json()["requests"] == []


def test_a_closed_server_has_no_dashboard(http: httpx.Client, server: cycles.EmbeddedServer) -> None:
    server.close()
    with pytest.raises(httpx.RemoteProtocolError):
        http.get("/dashboard/state")


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_and_its_files_have_a_strict_policy(http: httpx.Client) -> None:
    files = static_files()
    assert {"", "/", "/main.js", "/dashboard.css", "/icon.svg", "/vendor/uPlot.iife.min.js"} <= set(files)
    for path, file in files.items():
        response = http.get(f"/dashboard{path}")
        assert (response.status_code, response.content) == (200, file.content)
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
        assert "unsafe" not in policy
        assert response.headers["Cache-Control"] == "no-store"
        assert http.head(f"/dashboard{path}").content == b""
    assert http.get("/dashboard/main.js").headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert http.get("/dashboard/nonsense").status_code == 404
    assert http.get("/dashboard/../dashboard/%2e%2e/server.py").status_code == 404
    assert http.post("/dashboard").status_code == 405
    assert http.get("/dashboard/control").headers["Allow"] == "POST"


def test_the_files_name_no_other_origin_and_have_no_inline_code() -> None:
    for path, file in static_files().items():
        text = file.content.decode()
        if path.startswith("/vendor/"):
            text = text.replace("https://github.com/leeoniya/uPlot", "")  # in a comment
        addresses = set(re.findall(r"\w+://[\w.]+", text)) - {"http://www.w3.org"}
        assert addresses == set(), path
    page = static_files()[""].content.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)


def test_every_part_of_the_page_can_be_found_by_its_test_id() -> None:
    files = b"".join(file.content for file in static_files().values()).decode()
    known = {"connection", "budget", "budget-count", "spend", "reservation", "decision", "request", "controls"}
    for name in (*known, "control-result"):
        assert f'"{name}"' in files, name
