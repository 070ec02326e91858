// A Node program that knows nothing of Cycles: a call, a stream, and a call that is denied.
const OpenAI = require("openai");

const PROMPT = [{ role: "user", content: "hi" }];

async function main() {
  const llm = new OpenAI({ apiKey: "k", maxRetries: 5 });
  const call = { model: "gpt-4o", messages: PROMPT, max_tokens: 100 };
  const done = await llm.chat.completions.create(call);
  console.log(done.choices[0].message.content);
  let text = "";
  for await (const chunk of await llm.chat.completions.create({ ...call, stream: true })) {
    text += chunk.choices[0].delta.content ?? "";
  }
  console.log(text);
  try {
    await llm.chat.completions.create({ ...call, max_tokens: 1000000 });
  } catch (error) {
    console.log(error.constructor.name, error.status, error.code);
  }
}

main();
