// Twelve sub-agents share the budget of this run; each may spend at most 1 USD of it.
import { spawn } from "node:child_process";
import { once } from "node:events";

const [command, ...args] = process.argv.slice(2); // the worker

async function work(number) {
  const response = await fetch(`${process.env.CYCLES_PROXY_URL}/shares`, {
    method: "POST",
    body: JSON.stringify({ name: `researcher-${number}`, limit: "1USD" }),
  });
  const { environment } = await response.json();
  const worker = spawn(command, args, { env: { ...process.env, ...environment }, stdio: "ignore" });
  await once(worker, "exit");
}

await Promise.all(Array.from({ length: 12 }, (_, index) => work(index + 1)));
