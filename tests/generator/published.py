"""The published document, which is read once for all tests of this folder: reading it takes half a second."""

from __future__ import annotations

from generator.diff.__main__ import tables
from generator.document import read
from generator.packages import ROOT

PUBLISHED = read(ROOT / "openapi.yaml")
TABLES = tables(PUBLISHED)
