"""The checks of `cycles doctor` on this machine, and what a check is. Nothing here writes a file."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import stat
import urllib.request
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from attrs import fields_dict, frozen

import cycles
from cycles._config import without_password
from cycles._version import PROTOCOL_VERSION
from cycles.cli._frame import NO_RESPONSE, REJECTED, UNSETTLED, USAGE
from cycles.journal import _places, _settings

_OF_THE_CONTAINER: Final = ("overlay", "tmpfs", "ramfs", "aufs")  # file systems that end with it
Status: TypeAlias = Literal["ok", "warn", "fail", "skip"]
ORDER: Final = (USAGE, NO_RESPONSE, REJECTED, UNSETTLED)
"""The exit status is that of the first kind of failed check in this order."""

_LEAST_FREE_BYTES: Final = 10 * 1024 * 1024
_ALWAYS_SHOWN: Final = ("base_url", "api_key", "tenant")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@frozen
class Check:
    """The result of one check.

    Attributes:
        name: Its name.
        status: ``ok``, ``fail`` or ``skip``.
        detail: What was found.
        remedy: What to do if it failed, or about its warning.
        code: The exit status if it failed.
    """

    name: str
    status: Status
    detail: str
    remedy: str | None = None
    code: int = REJECTED

    def to_dict(self) -> dict[str, Any]:
        """Return the member of the JSON document."""
        return {"name": self.name, "status": self.status, "detail": self.detail, "remedy": self.remedy}


def failed(name: str, error: Exception, remedy: str, code: int = REJECTED) -> Check:
    """Return the check that an error failed. The advice in its message comes before `remedy`."""
    what, _, advice = str(error).partition("; ")
    return Check(name, "fail", what, advice or remedy, code)


def is_loopback(host: str | None) -> bool:
    """Return whether a host name is this machine."""
    return host in _LOOPBACK


def masked(key: str) -> str:
    """Return an API key as it may be shown: its prefix up to the second underscore."""
    parts = key.split("_")
    return f"{parts[0]}_{parts[1]}_..." if len(parts) > 2 else "..."


def configuration(
    flags: dict[str, Any], profile: str | None, config: cycles.Config | None, wrong: cycles.ConfigurationError | None
) -> Check:
    """Check the settings, and list those that are set with their sources. `wrong` says what is wrong with them."""
    name = "configuration"
    if wrong is not None or config is None:
        return failed(name, wrong or ValueError("no settings"), "correct the setting", USAGE)
    settings = _settings.profile(profile) if profile is not None else {}
    path = _settings.profile_file()
    if (
        {"api_key", "admin_api_key"} & settings.keys()
        and os.name == "posix"
        and stat.S_IMODE(path.stat().st_mode) & 0o077
    ):
        return Check(name, "fail", f"other users can read the API key in {path}", f"chmod 600 {path}", USAGE)
    shown = []
    for setting in fields_dict(cycles.Config):
        source = _settings.source(setting, flags, settings)
        if source != "default" or setting in _ALWAYS_SHOWN:
            value = getattr(config, setting)
            value = masked(value) if setting == "api_key" else value
            value = without_password(value) if setting == "journal_store" else value
            shown.append(f"{setting}={value} ({source})")
    return Check(name, "ok", ", ".join(shown))


def journal(config: cycles.Config) -> Check:
    """Check that the journal exists or can be made, is private and writable, has space, and that its store responds."""
    name, also = "journal", ""
    if not config.journal:
        return Check(name, "skip", "the journal is off")
    try:
        root = _places.root_of(config)
        view = _places.store_of(config)
        if view is not None:
            with contextlib.closing(view):
                view.store.list("", 1)
            also = f", {view.name} responds"
    except (cycles.StoreError, cycles.ConfigurationError) as error:
        return failed(name, error, "check journal_store (CYCLES_JOURNAL_URL)")
    existing = next(path for path in (root, *root.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Check(name, "fail", f"{existing} is not writable", "make it writable, or set CYCLES_JOURNAL_DIR")
    mode = stat.S_IMODE(root.stat().st_mode) if existing == root else 0o700
    if os.name == "posix" and mode & 0o077:
        return Check(name, "fail", f"{root} has the mode {mode:04o}: other users can use it", f"chmod 700 {root}")
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < _LEAST_FREE_BYTES:
        return Check(name, "fail", f"{root}: only {free_bytes // 1024} KiB free", "free some space there")
    state = "exists" if existing == root else "can be made"
    detail = f"{root} {state}, {free_bytes // 2**20:,} MiB free"
    if also and config.journal_outage == "disk" and not _is_mounted(existing):
        outage = "while the store does not respond, amounts are only there, and are lost with the disk of this worker"
        remedy = "mount a lasting volume there, or set CYCLES_JOURNAL_OUTAGE=refuse; see docs/fleets.md#which-store"
        return Check(name, "warn", f"{detail}; {outage}{also}", remedy)
    return Check(name, "ok", f"{detail}{also}")


def _is_mounted(path: Path) -> bool:
    """Return whether a directory is on a separate volume, which outlives a container; False if that is unknown."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text("utf-8").splitlines()]
    except OSError:
        return False
    inside = [(place, kind) for _, place, kind, *_ in mounts if path.resolve().is_relative_to(place)]
    place, kind = max(inside, key=lambda mount: len(mount[0]), default=("/", ""))
    return place != "/" and kind not in _OF_THE_CONTAINER


def pending(config: cycles.Config) -> Check:
    """Check that no record is unsettled."""
    name = "pending"
    try:
        records = _places.records_of(config)
    except cycles.StoreError:
        return Check(name, "skip", "the journal's store does not respond")
    except cycles.ConfigurationError as error:
        return failed(name, error, "make the directory readable", UNSETTLED)
    unsettled = [record for record in records if record.state != "rejected"]
    quarantined = sum(record.state == "quarantined" for record in unsettled)
    if unsettled:
        detail = f"{len(unsettled) - quarantined} pending, {quarantined} quarantined"
        return Check(name, "fail", detail, "cycles flush settles them, cycles journal list shows them", UNSETTLED)
    return Check(name, "ok", "nothing is pending")


def proxies(config: cycles.Config) -> Check:
    """Check which proxy requests to the server go through."""
    name = "proxies"
    found = urllib.request.getproxies()
    if not found:
        return Check(name, "ok", "no proxy is configured")
    parts = urlsplit(config.base_url or "")
    proxy = found.get(parts.scheme) or found.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.netloc):
        return Check(name, "ok", f"proxies are configured, but not for {parts.hostname}")
    address = urlsplit(proxy)
    shown = f"{address.scheme}://{address.hostname}:{address.port}" if address.hostname else "a proxy"
    if is_loopback(parts.hostname):
        remedy = f"add {parts.hostname} to NO_PROXY"
        return Check(name, "fail", f"requests to this machine go through {shown}", remedy)
    return Check(name, "ok", f"requests to {parts.hostname} go through {shown}")


def versions() -> Check:
    """Return the versions."""
    found = [f"{name} {known}" for name in ("httpx", "click", "rich", "uvicorn") if (known := _version(name))]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return Check(
        "versions", "ok", f"cycles {cycles.__version__}, protocol {PROTOCOL_VERSION}, {python}, " + ", ".join(found)
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
