"""What the events of a capture tell of the rhythm in which it was keyed. The vault is the real one, on a clock of the test's
own; what it says is seen at the moment it says it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mediaproxy.config import Config, FieldConfig, GatewayConfig, RouteConfig, SideConfig
from mediaproxy.ipc import channel as ipc
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.key import EVENT, Key, KeyReceiver, KeySender
from mediaproxy.ipc.process import Process
from mediaproxy.vault import service
from tests.attacker import rhythm

DIGITS = 24
CALLERS = 1600
AT_ONCE = 400
BEGIN = 100.0


def config(bearer: Path) -> Config:
    side = SideConfig(sip_listen="127.0.0.1:5060", rtp_address="127.0.0.1")
    gateway = GatewayConfig(name="g", url="https://127.0.0.1:1/", bearer_file=str(bearer))
    route = RouteConfig(name="in", origin="a", target="b", gateway="g", fields=("reference",))
    field = FieldConfig(name="reference", least=30, most=30)
    return Config(trunk=side, agent=side, peers=(), routes=(route,), gateways=(gateway,), fields=(field,))


def through_the_vault(keyed: Any, times: rhythm.Times, bearer: Path, monkeypatch: pytest.MonkeyPatch) -> rhythm.Times:
    """When the agent side was told of each digit."""
    now = [BEGIN]
    monkeypatch.setattr(service, "time", SimpleNamespace(monotonic=lambda: now[0]))
    pairs = {name: ipc.pair() for name in ("supervisor", "agent", "signalling", "media-0-keys")}
    far = {name: ipc.Channel(name, end) for name, (end, _) in pairs.items()}
    near = {name: ipc.Channel(name, end) for name, (_, end) in pairs.items()}
    vault = service.Vault(Process("vault", config(bearer), near, {}, {}))
    sender, receiver = KeySender(far["media-0-keys"]), KeyReceiver(near["media-0-keys"])
    seen = np.full(times.shape, np.nan)

    def hear() -> None:
        list(far["signalling"].receive())
        for message in far["agent"].receive():
            if isinstance(message, m.CaptureState) and not message.reason:
                row = seen[message.capture - 1]
                row[: message.fields[0].digits_received][np.isnan(row[: message.fields[0].digits_received])] = now[0]

    with asyncio.Runner() as runner:
        for number in range(1, len(times) + 1):
            vault._begin(m.BeginCapture(number, ("reference",), "in"), now[0])
            vault._message(near["signalling"], m.Act(number, "armed"), now[0])
            hear()
        order = sorted((float(times[i, j]) + BEGIN, i, j) for i in range(len(times)) for j in range(times.shape[1]))
        tick = BEGIN + service.GRID - BEGIN % service.GRID
        for at, caller, digit in [*order, (order[-1][0] + 2, -1, -1)]:
            while tick <= at:
                now[0] = tick
                runner.run(vault._tick())
                hear()
                tick += service.GRID
            now[0] = at
            if caller >= 0:
                assert sender.send(Key(caller + 1, int(at * 1000), int(keyed[caller, digit]), EVENT))
                vault._keys(receiver)
                hear()
    for channel in (*far.values(), *near.values()):
        channel.socket.close()
    assert not np.isnan(seen).any()
    return seen - BEGIN


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("callers", "control", "most"),
    [(rhythm.people, 0.13, 0.12), (rhythm.spelled, 0.95, 0.30)],
)
def test_the_rhythm_of_keys_is_not_in_the_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, callers: Any, control: float, most: float
) -> None:
    """By people: an attacker who sees every key as it comes names 14 % of the digits; by the events 11 (chance is 10). Of a
    rhythm made to spell the digits out, which nobody keys, more is left: the grid is no proof against an accomplice."""
    bearer = tmp_path / "bearer"
    bearer.write_text("x")
    keyed, times = callers(CALLERS, DIGITS, np.random.default_rng(8))
    with_every_key = rhythm.named(keyed, times)
    parts = [slice(i, i + AT_ONCE) for i in range(0, CALLERS, AT_ONCE)]
    seen = np.concatenate([through_the_vault(keyed[p], times[p], bearer, monkeypatch) for p in parts])
    by_events = rhythm.named(keyed, seen)
    print(
        f"named from every key {with_every_key:.3f}, from the events {by_events:.3f}; late {np.percentile(seen - times, 95):.3f} s"
    )
    print(
        f"keys pressed twice, told from every key {rhythm.repeats(keyed, times):.2f}, by the events {rhythm.repeats(keyed, seen):.2f}"
    )
    assert with_every_key >= control
    assert by_events <= most
    assert np.all(
        np.abs((seen + BEGIN) / service.GRID - np.round((seen + BEGIN) / service.GRID)) < 1e-6
    )  # never between
    assert np.all(seen >= times)
