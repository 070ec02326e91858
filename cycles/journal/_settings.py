"""Where the settings of a command come from: options, then a profile, then the environment."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import cycles
from cycles._config import REMOVED, VARIABLES

ADMIN_SETTINGS: Final = ("admin_base_url", "admin_api_key")
"""Members of a profile that only the commands over `cycles.Admin` read."""


def profile_file() -> Path:
    """Return the file that has the profiles, one table each."""
    import platformdirs

    return Path(platformdirs.user_config_dir("cycles-sdk", appauthor=False)) / "config.toml"


def profile(name: str) -> dict[str, Any]:
    """Return the settings of a profile.

    Raises:
        ConfigurationError: there is no such profile, or its file cannot be read.
    """
    path = profile_file()
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise cycles.ConfigurationError(
            f"there is no profile {name!r:.80}: {path} does not exist; make it with a table [{name:.80}]"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not TOML: {error}"
        raise cycles.ConfigurationError(f"the profiles cannot be read: {path} ({reason}); correct the file") from None
    table = tables.get(name)
    if not isinstance(table, dict):
        known = ", ".join(sorted(key for key, value in tables.items() if isinstance(value, dict))) or "none"
        raise cycles.ConfigurationError(
            f"there is no profile {name!r:.80} in {path} (it has: {known}); pass one of them, or add [{name:.80}]"
        )
    return {setting: value for setting, value in table.items() if setting not in REMOVED}


def configuration(flags: Mapping[str, Any], profile_name: str | None) -> cycles.Config:
    """Return the configuration of a command, whose members may be missing.

    Raises:
        ConfigurationError: a setting is wrong. The message names it.
    """
    settings = {} if profile_name is None else profile(profile_name)
    own = {name: value for name, value in settings.items() if name not in ADMIN_SETTINGS}
    return cycles.Config.from_env(**{**own, **flags})


def source(name: str, flags: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return where the value of a setting comes from: `option`, `profile`, the variable, or `default`."""
    if flags.get(name) is not None:
        return "option"
    if settings.get(name) is not None:
        return "profile"
    variable = f"CYCLES_{VARIABLES.get(name, name.upper())}"
    return variable if os.environ.get(variable, "").strip() else "default"
