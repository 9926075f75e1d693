"""The agent's side in numbers: how soon a key is a dot on the page, how many listeners a core serves, what is loaded.

The page is in a real browser beside a real call whose caller keys in-band. Listeners are plain sockets on one core, the
agent process is on the other; captures change once a second each, told as the vault tells them.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.table import Row, arguments, finish
from dsp import g711, keypad, synth
from mediaproxy.agent import pages
from mediaproxy.demo.phone import Phone
from tests.fixtures import browser, live
from tests.fixtures.agentside import TOKEN, AgentProcess

SERVER_CORE, CLIENT_CORE = 1, 0
FIELD = '[[field]]\nname = "reference"\nleast = 30\nmost = 30\n'
WATCH = """() => {
  const root = document.querySelector("flattone-payment").shadowRoot;
  window.seen = [];
  new MutationObserver(() => {
    const count = root.querySelector(".dots")?.textContent.replaceAll(" ", "").length || 0;
    requestAnimationFrame(() => window.seen.push([count, Date.now()]));
  }).observe(root, { subtree: true, childList: true, characterData: true });
}"""


async def key_to_dot(keys: int) -> list[float]:
    """Seconds from the end of each key's tone to its dot, painted."""
    rng = np.random.default_rng(3)
    waits: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        settings = {"inbound": 'fields = ["reference"]', "more": FIELD + "[capture]\npause_seconds = 60"}
        async with live.call(Path(scratch), settings=settings) as up, browser.opened() as window:
            await window.page.goto(f"http://127.0.0.1:{up.site.api}/agent")
            await window.page.get_by_label("Access token").fill(up.site.agent_token)
            await window.page.get_by_role("button", name="Sign in").click()
            await window.press("I understand")
            while len(waits) < keys:
                await window.until("['ready', 'cancelled', 'token', 'failed'].includes(bar.state)")
                await window.press("Take payment" if not waits else "New payment")
                await window.until("bar.state === 'keying'")
                await window.page.evaluate(WATCH)
                ends = await _key(up.caller, rng, min(29, keys - len(waits)))
                await asyncio.sleep(0.8)
                seen = await window.page.evaluate("window.seen")
                for count, end in enumerate(ends, 1):
                    at = next((t / 1000 for n, t in seen if n >= count), None)
                    waits.append(at - end if at is not None else float("inf"))
                await window.press("Cancel")
                await window.until("bar.state === 'cancelled'")
                await up.modes("guarded")
    return waits


async def _key(phone: Phone, rng: np.random.Generator, keys: int) -> list[float]:
    """Key at irregular times; when each tone ended, in seconds since 1970."""
    presses = [synth.Press(keypad.KEYS.index(str(d)), 80, -9, -2) for d in rng.integers(0, 10, keys)]
    audio, marks = synth.keying(presses, rng, (250, 750), 60, -60)
    before = len(phone.media.sent)
    octets = g711.encode(audio, g711.PCMU)
    phone.say(octets)
    while not phone.media.idle:
        await asyncio.sleep(0.02)
    offset = time.time() - time.perf_counter()
    packets = phone.media.sent[before:]
    first = next(i for i, packet in enumerate(packets) if packet.octets == octets[:160].tobytes())
    return [packets[first + (int(end) - 1) // 160].at + offset for _, end in marks]


async def listeners(number: int, seconds: int) -> tuple[int, int, list[float], float]:
    """(events sent, events that came, how late each was, share of a core the server used)."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    with AgentProcess(SERVER_CORE) as agent:
        sent: dict[tuple[int, int], float] = {}
        late: list[float] = []

        async def listen(capture: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
            head = (
                f"GET /v1/captures/{capture:016x}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
            )
            writer.write(head.encode())
            while line := await reader.readline():
                if line.startswith(b"data: ") and b'"filling"' in line:
                    count = int(line.rpartition(b'"digits_received":')[2].partition(b"}")[0])
                    late.append(time.monotonic() - sent[capture, count])

        for capture in range(1, number + 1):
            agent.state(capture, 0)
        tasks = []
        for capture in range(1, number + 1):
            tasks.append(asyncio.create_task(listen(capture)))
            if capture % 50 == 0:
                await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        began, used = time.monotonic(), cpu_seconds(agent.pid)
        while len(sent) < number * seconds:
            due = min(int((time.monotonic() - began) * number), number * seconds)
            for turn in range(len(sent), due):
                capture, count = turn % number + 1, turn // number + 1
                sent[capture, count] = time.monotonic()
                agent.state(capture, count)
            await asyncio.sleep(0.001)
        share = (cpu_seconds(agent.pid) - used) / (time.monotonic() - began)
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return len(sent), len(late), late, share


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    args = arguments(__doc__)
    waits = asyncio.run(key_to_dot(29 if args.quick else 145))
    number, seconds = (2000, 5) if args.quick else (2000, 30)
    sent, came, late, share = asyncio.run(listeners(number, seconds))
    size = len(gzip.compress(pages.component(), 9))
    rows = [
        Row(f"tone's end to dot on the page, p95 of {len(waits)}", 400, p95(waits), "ms", "lower"),
        Row("  median", 0, 1000 * float(np.median(waits)), "ms", "lower", published=True),
        Row(f"event streams on one core, one event a second each: lost of {sent}", 0, sent - came, "events", "lower"),
        Row("  of them within 400 ms", 1, float(np.mean(np.array(late) <= 0.4)), "", "higher"),
        Row("  streams that a core would serve at this cost", 2000, number / share, "", "higher"),
        Row("  p95 of how late", 0, p95(late), "ms", "lower", published=True),
        Row("the payment bar, all languages, gzipped", 12_000, size, "bytes", "lower"),
    ]
    return finish(rows, args.json)


def p95(values: list[float]) -> float:
    """In milliseconds."""
    return 1000 * float(np.percentile(values, 95)) if values else float("inf")


if __name__ == "__main__":
    sys.exit(main())
