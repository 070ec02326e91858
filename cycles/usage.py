"""Usage readers: token counts out of the answers and stream chunks of model SDKs, by their shape.

Pass one to ``guard.wrap(stream, usage=cycles.usage.openai)``, or call it with an answer. No SDK is imported.
"""

from cycles._core.readers import anthropic, openai
from cycles._core.usage import Usage

__all__ = ["Usage", "anthropic", "openai"]
