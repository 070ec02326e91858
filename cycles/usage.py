"""Usage readers: token counts from the responses and stream chunks of model SDKs, by their shape.

Pass one to ``guard.wrap(stream, usage=cycles.usage.openai)``, or call it with a response. No SDK is imported.
"""

from cycles._core.values.usage import ResponseUsage, Usage
from cycles._usage.readers import anthropic, google, openai
from cycles._usage.tokens import token_bound

__all__ = ["ResponseUsage", "Usage", "anthropic", "google", "openai", "token_bound"]
