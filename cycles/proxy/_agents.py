"""What two coding agents need beside variables: Codex reads none, and gemini-cli takes ours for another login."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Final

import platformdirs

from cycles._version import install_extra

CODEX_HOST: Final = "api.openai.com"
_GEMINI_DEFAULTS: Final = "GEMINI_CLI_SYSTEM_DEFAULTS_PATH"
_GEMINI_KEY_LOGIN: Final = {"security": {"auth": {"selectedType": "gemini-api-key"}}}
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def is_codex(command: Sequence[str]) -> bool:
    """Return whether a command is Codex."""
    return bool(command) and PurePath(command[0]).name == "codex"


def can_capture() -> bool:
    """Return whether the package that captures needs is installed."""
    try:
        import cryptography.x509  # noqa: F401
    except ImportError:
        return False
    return True


def codex_command(command: Sequence[str], base_url: str) -> list[str]:
    """Return the command with its base URL as its first option: Codex reads no variable for it."""
    return [command[0], "-c", f'openai_base_url="{base_url}"', *command[1:]]


def gemini_environment(
    command: Sequence[str], environ: Mapping[str, str], directory: Path, say: Callable[[str], None]
) -> dict[str, str]:
    """Return the variable with which gemini-cli keeps its login by key; a base URL alone selects another one.

    Args:
        command: The command of the run.
        environ: Its variables.
        directory: Where the file is made; gemini-cli ignores it if others may write to it or to a parent.
        say: Prints a line.
    """
    if not environ.get("GEMINI_API_KEY") or environ.get(_GEMINI_DEFAULTS):
        return {}
    file = directory / "gemini-cli.json"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(json.dumps(_GEMINI_KEY_LOGIN), "utf-8")
        open_to_others = [folder for folder in file.parents if folder.stat().st_mode & _OTHERS_WRITE]
    except OSError as error:
        say(f"the defaults of gemini-cli cannot be written to {file}: {error.strerror}")
        return {}
    if open_to_others and PurePath(command[0]).name == "gemini":
        say(f"gemini-cli ignores {file}, because others may write to {open_to_others[0]}")
    return {_GEMINI_DEFAULTS: str(file)}


def for_agents(
    command: Sequence[str], environment: Mapping[str, str], url: str, *, captured: bool, say: Callable[[str], None]
) -> tuple[list[str], dict[str, str]]:
    """Return a command and its variables with what coding agents need.

    Args:
        command: The program and its arguments.
        environment: Its variables.
        url: The address of the proxy with the secret.
        captured: Whether connections of Codex are captured.
        say: Prints a line.
    """
    changed = list(command)
    if is_codex(command) and not captured:
        say(
            "codex gets its base URL as an option, which shows the secret of this run in the process list: "
            f"{install_extra('capture')} avoids that"
        )
        changed = codex_command(command, f"{url}/openai/v1")
    directory = platformdirs.user_state_path("cycles-sdk", appauthor=False) / "agents"
    return changed, {**environment, **gemini_environment(command, environment, directory, say)}
