"""Test your own agents without keys: a fake OpenAI, Anthropic, Gemini and Bedrock server on loopback.

`FakeProvider` returns bodies and stream events in the providers' shapes. It needs the standard library only.
"""

from cycles.testing._reply import Received, Reply, ToolCall
from cycles.testing._server import FakeProvider

__all__ = ["FakeProvider", "Received", "Reply", "ToolCall"]
