"""One sub-agent: it asks until its budget or that of the run ends, and prints how far it came."""

import os

import openai

llm = openai.OpenAI(api_key=os.environ.get("OPENAI_API_KEY", "sk-demo"), max_retries=0)
answers = 0
try:
    while True:
        question = [{"role": "user", "content": f"Continue your research, part {answers + 1}."}]
        llm.chat.completions.create(model="gpt-4o", messages=question, max_tokens=10_000)  # type: ignore[arg-type]
        answers += 1
except openai.APIStatusError as error:
    print(f"{answers} answers, then {error.status_code} {error.code}")
