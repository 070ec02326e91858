"""Usage readers: token counts from the responses and stream chunks of model SDKs, by their shape.

Pass one to ``guard.wrap(stream, usage=cycles.usage.openai)``, or call it with a response. No SDK is imported.
"""

from cycles._core.readers import anthropic, google, openai
from cycles._core.tokens import token_bound
from cycles._core.usage import ResponseUsage, Usage

__all__ = ["ResponseUsage", "Usage", "anthropic", "google", "openai", "token_bound"]
