"""Subclasses of the classes of SDKs, and the error for a client whose SDK has other hooks."""

from __future__ import annotations

import sys
from typing import Any

from cycles._errors import ConfigurationError
from cycles._version import install_extra
from cycles.providers._meter import Meter


def subclass(cls: type, **members: Any) -> type[Any]:
    """Return a subclass with the name and the docstring of its base: users see the class that they know."""
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), {**names, **members})


def without_hooks(meter: Meter, package: str, lacks: str) -> ConfigurationError:
    """Return the error for a client that cannot be guarded.

    Args:
        meter: Its settings.
        package: The package of the client, as it is installed.
        lacks: What the client does not have.
    """
    version = getattr(sys.modules.get(package.replace("-", ".")), "__version__", "of an unknown version")
    return ConfigurationError(
        f"{package} {version} cannot be guarded: {lacks}; "
        f"install a version that its extra allows: {install_extra(meter.provider)}"
    )
