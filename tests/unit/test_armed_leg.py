"""No sequence of keys, orders, holds, transfers, faults and restarts leaves a leg less masked than its state says.

The vault, signalling's arming and the media worker are the real ones, in one process, on real channels; what is on its
way between them is delivered when hypothesis says so. The agent process is played by hypothesis: it says anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from mediaproxy.config import CaptureConfig, Config, GatewayConfig, MediaConfig, PeerConfig, RouteConfig, SideConfig
from mediaproxy.errors import GatewayError
from mediaproxy.ipc import channel as ipc
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.key import INBAND, INFO, Key, KeyReceiver, KeySender
from mediaproxy.ipc.process import Process
from mediaproxy.media import modes
from mediaproxy.media import worker as media_worker
from mediaproxy.media.modes import Mode
from mediaproxy.media.worker import Worker
from mediaproxy.signalling.arming import Arming, Record
from mediaproxy.signalling.records import Story
from mediaproxy.vault.capture import ENDED, Capture
from mediaproxy.vault.service import Vault

SIDE = SideConfig(sip_listen="127.0.0.1:5060", rtp_address="127.0.0.1")
CARD = [int(c) for c in "4111111111111111"]
LINKS = (
    ("agent", "vault"), ("agent", "signalling"), ("signalling", "vault"), ("signalling", "media-0"),
    ("media-0", "vault-keys"), ("signalling", "vault-keys"), ("media-0", "recording"),
    ("vault", "supervisor"), ("media-0", "supervisor"), ("agent", "supervisor"),
)  # fmt: skip


def configuration(auto: bool) -> Config:
    peers = tuple(PeerConfig(name=n, side=s, address="127.0.0.1") for n, s in (("a", "trunk"), ("b", "agent")))
    route = RouteConfig(name="r", origin="a", target="b", gateway="g", speech="muted", fields=("pan", "cvv"))
    gateway = GatewayConfig(name="g", url="https://127.0.0.1:1")
    media = MediaConfig(ports="30000-30127", workers=1, max_calls=8)
    rules = CaptureConfig(auto_submit=auto)
    return Config(trunk=SIDE, agent=SIDE, peers=peers, routes=(route,), gateways=(gateway,), media=media, capture=rules)


class TestedVault(Vault):
    """The gateway answers when the test says so."""

    __test__ = False

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        self.asked: list[asyncio.Future[str]] = []
        self.held: list[Capture] = []

    async def _ask(self, capture: Capture) -> str:
        self.asked.append(asyncio.get_running_loop().create_future())
        self.held.append(capture)
        return await self.asked[-1]


class World(RuleBasedStateMachine):
    """Three processes, two calls, an agent who says anything."""

    @initialize(auto=st.booleans(), passthrough=st.booleans())
    def begin(self, auto: bool, passthrough: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.config = configuration(auto)
        self.ends: dict[str, ipc.Channel] = {}
        for left, right in LINKS:
            a, b = ipc.pair()
            self.ends[f"{left}>{right}"], self.ends[f"{right}>{left}"] = ipc.Channel(right, a), ipc.Channel(left, b)
        self.records: dict[str, Record] = {}
        self.sip: dict[str, Any] = {}
        self.number = 0
        self.left_passthrough: set[str] = set()
        self.sealed: set[str] = set()
        self.released: set[str] = set()
        """Calls for which a release has been ordered since the last one was carried out."""
        self.arming = Arming(
            self.records, self.sip, self.ends["signalling>vault"], self.ends["signalling>agent"],
            lambda worker, message: worker.send(message), lambda record: None,
        )  # fmt: skip
        self.vault = self.a_vault()
        self.worker = self.a_worker()
        self.info = KeySender(self.ends["signalling>vault-keys"])
        for name in ("one", "two"):
            legs = (m.LegSetup("trunk", "127.0.0.1", "strict", ""), m.LegSetup("agent", "127.0.0.1", "strict", ""))
            opened = m.OpenCall(name, legs, "passthrough" if passthrough else "guarded", False)
            worker = self.ends["signalling>media-0"]
            story = Story(0.0, modes=[opened.mode])
            self.records[name] = Record(name, worker, opened, self.config.routes[0], story, mode=opened.mode)
            self.sip[name] = SimpleNamespace(mode=opened.mode, capturing=False)
            worker.send(opened)
        self.settle()

    def a_vault(self) -> TestedVault:
        names = {"agent": "vault>agent", "signalling": "vault>signalling", "supervisor": "supervisor"}
        channels = {n: self.ends.get(e, self.ends["vault>supervisor"]) for n, e in names.items()}
        vault = TestedVault(Process("vault", self.config, channels, {}, {}))
        self.receivers = [KeyReceiver(self.ends[f"vault-keys>{who}"]) for who in ("media-0", "signalling")]
        return vault

    def a_worker(self) -> Worker:
        media_worker.rehearse = lambda peers: None  # a rehearsal of audio, of which there is none here
        names = ("signalling", "vault-keys", "recording", "supervisor")
        channels = {name: self.ends[f"media-0>{name}"] for name in names}
        return Worker(Process("media-0", self.config, channels, {}, {}))

    # Delivery

    @rule()
    def vault_hears(self) -> None:
        async def hear() -> None:
            for receiver in self.receivers:
                self.vault._keys(receiver)
            for name in ("agent", "signalling"):
                self.vault._messages(self.vault._process.channels[name])
            await asyncio.sleep(0)

        self.loop.run_until_complete(hear())

    @rule()
    def vault_looks(self) -> None:
        self.loop.run_until_complete(self.vault._tick())

    @rule()
    def worker_hears(self) -> None:
        self.worker._messages()
        self.worker._send_keys(time.monotonic())

    @rule()
    def signalling_hears(self) -> None:
        for name in ("vault", "agent", "media-0"):
            for message in self.ends[f"signalling>{name}"].receive():
                self.signalling(name, message)

    def signalling(self, name: str, message: m.Any_) -> None:
        if isinstance(message, m.Opened) and message.call in self.records:
            self.records[message.call].ports = message.ports
        elif isinstance(message, m.ModeSet):
            self.arming.mode_set(message)
        elif isinstance(message, m.Interrupted):
            self.arming.interrupted(message)
        elif isinstance(message, m.Arm):
            self.arming.arm(message)
        elif isinstance(message, m.Guard):
            self.arming.guard(message)
        elif isinstance(message, m.Cue):
            self.arming.cue(message)
        elif isinstance(message, m.CaptureEnded):
            self.arming.disarm(message.capture)
        elif isinstance(message, m.Hello) and name == "vault":
            self.arming.vault_restarted()
        elif isinstance(message, m.Hello) and name == "media-0":
            self.arming.worker_restarted([r for r in self.records.values() if r.ports is not None])

    def settle(self) -> None:
        """Everything that is on its way arrives."""
        for _ in range(6):
            self.vault_hears()
            self.vault_looks()
            self.signalling_hears()
            self.worker_hears()
            for name in ("vault", "signalling"):
                list(self.ends[f"agent>{name}"].receive())

    # What happens

    def key(self, call: str, event: int) -> None:
        known = self.worker._calls.get(call)
        if known is not None:
            self.worker._engine._key(known.trunk, event, INBAND, time.monotonic())
            self.worker._send_keys(time.monotonic())

    @rule(call=st.sampled_from(["one", "two"]), event=st.integers(0, 15))
    def presses(self, call: str, event: int) -> None:
        self.key(call, event)

    @rule(call=st.sampled_from(["one", "two"]), cvv=st.booleans())
    def keys_a_card(self, call: str, cvv: bool) -> None:
        for event in [*CARD, *((7, 3, 7) if cvv else ())]:
            self.key(call, event)

    @rule(call=st.sampled_from(["one", "two"]), event=st.integers(0, 11))
    def sends_info(self, call: str, event: int) -> None:
        record = self.records.get(call)
        if record is not None and record.mode == "armed":
            self.info.send(Key(record.capture, int(time.monotonic() * 1000), event, INFO))

    @rule(call=st.sampled_from(["one", "two"]))
    def takes_payment(self, call: str) -> None:
        """As the agent process does it: the vault first, then the leg."""
        self.number += 1
        self.ends["agent>vault"].send(m.BeginCapture(self.number, ("pan", "cvv"), "r"))
        self.vault_hears()
        self.ends["agent>signalling"].send(m.Arm(call, self.number))

    @rule(call=st.sampled_from(["one", "two"]), number=st.sampled_from([1, 2, 99]))
    def arms_anything(self, call: str, number: int) -> None:
        self.ends["agent>signalling"].send(m.Arm(call, number))

    @rule(number=st.integers(1, 4), action=st.sampled_from(["cancel", "reset", "submit", "not-armed"]))
    def orders(self, number: int, action: str) -> None:
        self.ends["agent>vault"].send(m.Act(number, action, "pan"))

    @rule(call=st.sampled_from(["one", "two"]), release=st.booleans())
    def supervisor_orders(self, call: str, release: bool) -> None:
        self.ends["agent>signalling"].send(m.Guard(call, release))
        if release:
            self.released.add(call)

    @rule(call=st.sampled_from(["one", "two"]), reason=st.sampled_from(["transfer", "answer", "keys", "header"]))
    def transfers(self, call: str, reason: str) -> None:
        self.arming.end_passthrough(call, reason)

    @rule(good=st.booleans())
    def gateway_answers(self, good: bool) -> None:
        async def answer() -> None:
            for future in self.vault.asked:
                if not future.done():
                    future.set_result("tok") if good else future.set_exception(GatewayError("declined"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        self.loop.run_until_complete(answer())

    @rule()
    def time_passes(self) -> None:
        for capture in self.vault._captures.values():
            capture.tick(time.monotonic() + 1000)

    # Faults

    @rule(call=st.sampled_from(["one", "two"]), reason=st.sampled_from(["guard", "vault-full"]))
    def leg_fails(self, call: str, reason: str) -> None:
        known = self.worker._calls.get(call)
        if known is not None:
            self.worker._fault(known, reason)

    @rule()
    def worker_stalls(self) -> None:
        self.worker._catch_up(time.monotonic())

    @rule()
    def worker_dies(self) -> None:
        self.kill_worker()
        self.worker = self.a_worker()
        self.ends["media-0>signalling"].send(m.Hello("media-0"))

    def kill_worker(self) -> None:
        for call in self.worker._calls.values():
            for slot in call.slots:
                self.worker._pump.close(slot)
        self.worker._calls.clear()

    @rule()
    def vault_dies(self) -> None:
        for capture in self.vault._captures.values():
            for f in capture.fields:
                f.wipe()  # its memory is gone
        self.end_tasks()
        self.vault = self.a_vault()
        for name in ("agent", "signalling"):
            self.ends[f"vault>{name}"].send(m.Hello("vault"))

    def end_tasks(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))

    @rule(call=st.sampled_from(["one", "two"]))
    def hangs_up(self, call: str) -> None:
        record = self.records.pop(call, None)
        if record is not None:
            record.worker.send(m.CloseCall(call))
            self.arming.ended(record)
            self.sip.pop(call)

    # What must hold

    def modes(self) -> Iterator[tuple[str, Mode]]:
        for name, call in self.worker._calls.items():
            yield name, Mode(int(self.worker._engine.mode[call.trunk]))

    @invariant()
    def nothing_goes_back_to_passthrough(self) -> None:
        if not hasattr(self, "left_passthrough"):
            return
        for name, mode in self.modes():
            if mode != Mode.PASSTHROUGH:
                self.left_passthrough.add(name)
            assert mode != Mode.PASSTHROUGH or name not in self.left_passthrough
            assert mode == Mode.SEALED or name not in self.sealed or name in self.released  # only a person ends a seal
            if mode == Mode.SEALED:
                self.sealed.add(name)
            elif name in self.sealed:
                self.sealed.remove(name)
                self.released.remove(name)
            record = self.records.get(name)
            if mode == Mode.PASSTHROUGH and record is not None:
                held = [c for n, c in self.vault._captures.items() if n == record.capture]
                assert not any(len(f.digits) for capture in held for f in capture.fields)

    @invariant()
    def what_has_ended_is_wiped(self) -> None:
        if hasattr(self, "vault"):
            for capture in [*self.vault._captures.values(), *self.vault.held]:
                assert capture.state not in ENDED or not any(len(f.digits) for f in capture.fields)

    @rule()
    def at_rest_every_part_says_the_same(self) -> None:
        self.settle()
        actual = dict(self.modes())
        for name, record in self.records.items():
            mode = actual[name]
            assert modes.parse(record.mode) == mode, (name, record.mode, mode)
            assert self.sip[name].mode == record.mode
            assert self.sip[name].capturing == bool(record.capture)
            live = self.vault._captures.get(record.capture)
            if live is not None:
                assert mode in (Mode.ARMED, Mode.SEALED)
            if mode == Mode.ARMED:
                assert live is not None
                trunk = self.worker._calls[name].trunk
                muted = live.cue()[1]
                assert bool(self.worker._engine._hushed[trunk]) >= muted
            else:
                assert not self.worker._engine._hushed[self.worker._calls[name].trunk]
        for number, capture in self.vault._captures.items():  # nobody's digits are kept
            if any(len(f.digits) for f in capture.fields) and capture.state in ("keying", "complete"):
                assert number in {record.capture for record in self.records.values()}, capture.state

    def teardown(self) -> None:
        if not hasattr(self, "worker"):
            return
        with contextlib.suppress(AssertionError):
            self.kill_worker()
        self.end_tasks()
        self.loop.close()
        for end in self.ends.values():
            end.socket.close()


@pytest.mark.timeout(300)
def test_no_sequence_ends_with_a_leg_less_masked_than_its_state_says() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        World,
        settings=settings(
            max_examples=400, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
