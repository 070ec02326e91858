"""Drive headless Chromium: open the dashboard, find its parts, and wait until they show something."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import cycles

AXE: Final = Path(sys.prefix) / "npm/node_modules/axe-core/axe.min.js"
# A name that the browser resolves to this machine, as after DNS rebinding.
REBOUND: Final = "rebound.example"
_PATIENCE_S: Final = 120
_ARGUMENTS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1",
)


class Browser:
    """A browser with one tab."""

    def __init__(self) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
        assert chromium, "chromium is missing: run make install-operators"
        assert driver, "chromedriver is missing: run make install-operators"
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for argument in _ARGUMENTS:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver: Any = webdriver.Chrome(options=options, service=Service(driver))

    def open(self, url: str, *, width: int = 1280, dark: bool = False) -> None:
        """Open an address in an empty tab: no token of an earlier page is left."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.switch_to.new_window("tab")
        opened = self.driver.current_window_handle
        for other in self.driver.window_handles:
            if other != opened:
                self.driver.switch_to.window(other)
                self.driver.close()
        self.driver.switch_to.window(opened)
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.logs()
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript and return its value."""
        return self.driver.execute_script(script, *arguments)

    def wait_for(self, script: str, *arguments: Any) -> Any:
        """Return the value of JavaScript once it is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        what = f"stays false: {script} with {arguments}"
        return WebDriverWait(self.driver, _PATIENCE_S, 0.05).until(lambda _: self.run(script, *arguments), what)

    def part(self, testid: str, **data: str) -> Any:
        """Return the element of a part of the page once it is there."""
        selector = f"[data-testid={testid}]" + "".join(f'[data-{name}="{value}"]' for name, value in data.items())
        return self.wait_for("return document.querySelector(arguments[0])", selector)

    def wait_for_text(self, text: str, testid: str, **data: str) -> None:
        """Return once a part of the page contains a text."""
        selector = f"[data-testid={testid}]" + "".join(f'[data-{name}="{value}"]' for name, value in data.items())
        self.wait_for(
            "return [...document.querySelectorAll(arguments[0])].some((part) => part.innerText.includes(arguments[1]))",
            selector,
            text,
        )

    def press(self, *keys: str) -> None:
        """Press keys in the focused element."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def logs(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the messages of the console, and the addresses of all requests, since the last call."""
        console = self.driver.get_log("browser")
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        requests = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        return console, requests

    def axe(self) -> list[str]:
        """Return the violations that axe-core finds."""
        self.run(AXE.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script("axe.run(document).then(arguments[0])")
        return [
            f"{violation['id']}: {node['html'][:200]}: {node['failureSummary']}"
            for violation in found["violations"]
            for node in violation["nodes"]
        ]


@contextmanager
def browser() -> Iterator[Browser]:
    """Yield a browser, and end it."""
    started = Browser()
    try:
        yield started
    finally:
        started.driver.quit()


def address(server: cycles.EmbeddedServer) -> str:
    """Return the address of the dashboard with its token."""
    assert server.dashboard_url is not None
    return server.dashboard_url
