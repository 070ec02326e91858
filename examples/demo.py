"""Show what a budget does to agents. `make demo` runs this file.

The first part runs a program under `cycles run`. The second part has five agents in one program. They share a budget of
20 cents on a Cycles server in a separate process, and call a fake model, so that nothing is paid. One agent crashes,
one waits for a response that takes longer than its lease, and one asks in a loop until its own budget denies a call.
At the end, the sums of the agents must equal the sums of the server.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import run_demo

import cycles
from cycles import Amount, AsyncGuard, Cycles, Guard

BUDGET = cycles.usd("0.20")
LOOP_BUDGET = cycles.usd("0.05")
MODEL = ("llm.completion", "gpt-4o")
MOST = cycles.usd("0.015")  # what a call costs if its response is as long as it may be
SLOW_TTL_MS = 5_000  # so short that the lease must be extended; the default is a minute
SLOW_S = 7

started = time.monotonic()


def say(who: str, what: str) -> None:
    # The line end is part of the string: `print` would write it separately, and lines of two threads would mix.
    print(f"{time.monotonic() - started:5.1f} s  {who:<10} {what}\n", end="", flush=True)


class CrashError(Exception):
    """Raised by the agent that crashes."""


def answered(question: str) -> Amount:
    """Return the price of a response of the fake model: the longer the question, the longer the response."""
    return cycles.usd_microcents(600_000 + 10_000 * len(question))


@dataclass
class Agent:
    """One row of the table: an agent, its calls, and how it ended."""

    name: str
    guards: list[Guard | AsyncGuard] = field(default_factory=list)
    ended: str = "finished"

    @contextmanager
    def shift(self) -> Iterator[None]:
        """Run the work of this agent, and note how it ended."""
        try:
            yield
        except cycles.BudgetExceededError:
            self.ended = "denied by its budget"
            say(self.name, f"denied: less than {MOST} is left, so the call is not sent")
        except CrashError:
            self.ended = "crashed"
            say(self.name, f"crashed: its {MOST} is released, others can use it")

    def estimated(self) -> Amount:
        return sum((guard.estimate for guard in self.guards), cycles.usd(0))

    def charged(self) -> Amount:
        charges = [guard.settlement.charged for guard in self.guards if guard.settlement]
        return sum((charge for charge in charges if charge), cycles.usd(0))


# --- the agents -----------------------------------------------------------------------------------------------------


def ask(client: Cycles, agent: Agent, question: str) -> None:
    """Ask the model in a thread: `with` reserves the highest price, `commit` charges what the response cost."""
    with client.reserve(MOST, action=MODEL, subject={"agent": agent.name}) as guard:
        agent.guards.append(guard)
        time.sleep(0.3)  # in a real agent, the request to the model is here
        cost = answered(question)
        guard.commit(cost)
    say(agent.name, f"{question}: reserved {MOST}, cost {cost}")


def plan(client: Cycles, agent: Agent) -> None:
    for question in ("Plan a trip to Rome", "Find a hotel near the station", "Compare prices"):
        ask(client, agent, question)


def write(client: Cycles, agent: Agent) -> None:
    for question in ("Write the invitation", "Translate it to Italian"):
        ask(client, agent, question)


def crash(client: Cycles, agent: Agent) -> None:
    """Raise in a block before its commit: the whole reservation is released."""
    with agent.shift(), client.reserve(MOST, action=MODEL, subject={"agent": agent.name}) as guard:
        agent.guards.append(guard)
        say(agent.name, f"reserved {MOST} for a call, and is about to crash")
        raise CrashError


def loop(client: Cycles, agent: Agent) -> None:
    """Ask the same question until a call is denied, like an agent that is stuck."""
    with agent.shift():
        while True:
            ask(client, agent, "Are we there yet?")


async def research(client: Cycles, agent: Agent) -> None:
    """Wait in a task for longer than the lease: the client extends the lease while it waits."""
    question = "Read 200 reviews of 12 hotels"
    say(agent.name, f"{question}: the response takes {SLOW_S} s")
    async with client.reserve(MOST, action=MODEL, subject={"agent": agent.name}, ttl_ms=SLOW_TTL_MS) as guard:
        agent.guards.append(guard)
        await asyncio.sleep(SLOW_S)
        await guard.commit(answered(question))
    say(agent.name, f"{question}: cost {answered(question)}")


def work(client: Cycles) -> list[Agent]:
    """Run all agents at the same time on one client."""
    planner, writer, crasher, looper, researcher = (
        Agent(name) for name in ("planner", "writer", "crasher", "looper", "researcher")
    )
    with ThreadPoolExecutor(max_workers=4) as threads:
        futures = [
            threads.submit(agent_work, client, agent)
            for agent_work, agent in ((plan, planner), (write, writer), (crash, crasher), (loop, looper))
        ]
        asyncio.run(research(client, researcher))
        for future in futures:
            future.result()  # raises the exception of the thread, if there was one
    return [planner, writer, crasher, looper, researcher]


# --- the report -----------------------------------------------------------------------------------------------------


def row(name: str, calls: object, amounts: Iterable[Amount | str], how: str) -> str:
    columns = [amount if isinstance(amount, str) else f"${cycles.to_usd(amount):.4f}" for amount in amounts]
    return f"{name:<10} {calls:>5}  {'  '.join(f'{column:>10}' for column in columns)}  {how}".rstrip()


def report(agents: list[Agent], balance: cycles.Balance) -> bool:
    """Print the table and the balance of the server. Return whether they agree."""
    rule = "-" * 72
    print(f"\n{row('agent', 'calls', ['reserved', 'charged', 'released'], 'how it ended')}\n{rule}")
    for agent in agents:
        amounts = [agent.estimated(), agent.charged(), agent.estimated() - agent.charged()]
        print(row(agent.name, len(agent.guards), amounts, agent.ended))
    reserved = sum((agent.estimated() for agent in agents), cycles.usd(0))
    charged = sum((agent.charged() for agent in agents), cycles.usd(0))
    calls = sum(len(agent.guards) for agent in agents)
    print(f"{rule}\n{row('all', calls, [reserved, charged, reserved - charged], '')}\n")

    agree = (balance.spent, balance.reserved, balance.remaining) == (charged, cycles.usd(0), BUDGET - charged)
    print(f"The server: {balance.spent} spent, {balance.reserved} reserved, {balance.remaining} left of {BUDGET}.")
    print("It agrees with the table." if agree else "IT DOES NOT AGREE with the table.")
    return agree


@contextmanager
def server_process() -> Iterator[None]:
    """Run `python -m cycles.embedded` as a process, and set the environment variables that it prints."""
    budgets = {"tenant:demo": BUDGET, "tenant:demo/agent:looper": LOOP_BUDGET}
    given = [f"--budget={scope}={cycles.to_usd(amount)}USD" for scope, amount in budgets.items()]
    command = [sys.executable, "-m", "cycles.embedded", "--port", "0", *given]
    # In its own session, so that Ctrl-C reaches only the client, which can then still release its reservations.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        exports = next((printed for printed in process.stdout if printed.startswith("export ")), None)
        if exports is None:
            sys.exit("the embedded server did not start; its messages are above")
        for assignment in shlex.split(exports)[1:]:
            name, _, value = assignment.partition("=")
            os.environ[name] = value
        yield
    finally:
        process.terminate()
        process.communicate()


def team() -> bool:
    """Run the second part. Return whether the sums of agents and server agree."""
    with server_process(), Cycles(journal=False) as client:  # no journal: the demo leaves no files behind

        def watch(event: cycles.events.Event) -> None:
            if isinstance(event, cycles.events.LeaseExtended):
                say("researcher", "still waits: the lease is extended, its money stays reserved")

        client.on_event(watch)
        agents = work(client)
        [balance] = [each for each in client.balances() if each.scope_path == "tenant:demo"]
        return report(agents, balance)


FIRST = """\
1. A program that knows nothing of budgets

agent.py asks a model six questions. `cycles run` gives it five cents. A fake
model responds, so nothing is paid.
"""
SECOND = f"""
The fifth call could have exceeded the five cents, so it was not sent.

2. Five agents in one program share a budget

Each call reserves its highest price, and is charged what it cost. All agents
together may spend {BUDGET}. The agent `looper` may spend {LOOP_BUDGET} of it.
"""
LAST = """
The loop stopped at its own budget, and the other agents could go on. The crash
cost nothing.

Now your own program: put its command in place of python my_agent.py.

    {command} run --budget 1USD -- python my_agent.py
"""


def main() -> int:
    """Run the demo. Return exit status 0 only if each part ended as it should."""
    print(FIRST, flush=True)
    if run_demo.main():
        return 1
    print(SECOND, flush=True)
    if not team():
        return 1
    installed = Path(sys.executable).with_name("cycles")
    print(LAST.format(command=os.path.relpath(installed) if installed.exists() else "python -m cycles"), end="")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted: the reservations are released")
