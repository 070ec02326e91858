"""An agent that knows nothing of budgets: it asks a model until it has what it wants, or until a call fails.

It needs only the standard library. `OPENAI_BASE_URL` is the variable that the SDKs of OpenAI read too.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request

QUESTIONS = ("Plan a trip to Rome", "Find a hotel", "Find a flight", "Compare prices", "Write the invitation", "Book")


def ask(question: str) -> str:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": question}], "max_tokens": 1_000}
    request = urllib.request.Request(
        f"{os.environ['OPENAI_BASE_URL']}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"},
    )
    with urllib.request.urlopen(request) as response:
        reply = json.load(response)
    return str(reply["choices"][0]["message"]["content"])


def main() -> int:
    for question in QUESTIONS:
        try:
            print(f"agent: {question}? {ask(question)}", flush=True)
        except urllib.error.HTTPError as error:
            reason = json.load(error)["error"]
            print(f"agent: {question}? The call failed: {error.code} {reason['code'] or reason['message']}", flush=True)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
