"""Which leg is in which mode for which capture: the thread between vault, media workers, agent process and SIP.

A leg is armed before a capture counts keys, and goes back to guarded only once its capture has ended. Where one of the
three has lost what it knew the leg is sealed, or its capture ends; none of them can unmask a leg that another one still
captures on. What becomes of a leg's mode is the media worker's table (`media.modes`), and its word is taken for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from mediaproxy import log
from mediaproxy.config import RouteConfig
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.channel import Channel
from mediaproxy.signalling.records import Story


@dataclass(slots=True)
class Record:
    """What the host knows of a call beyond SIP. `opened` and `agreed` rebuild its media after a worker's restart."""

    call: str
    worker: Channel
    opened: m.OpenCall
    route: RouteConfig
    story: Story
    untried: list[Channel] = field(default_factory=list)
    """Workers that have not yet refused the call."""
    ports: tuple[int, int] | None = None
    agreed: m.UpdateCall | None = None
    mode: str = "guarded"
    capture: int = 0
    passed: int = 0
    """Keys that went on in signalling while the call was in passthrough."""
    last: m.CallState | None = None


class SipCall(Protocol):
    """What SIP has to know of it: while keys are captured little passes to the agent, and a hold is answered here."""

    mode: str
    capturing: bool


class Arming:
    """order: sends to a worker what must not be lost; tell: shows a call's state to the agent process."""

    def __init__(
        self,
        records: Mapping[str, Record],
        sip_calls: Mapping[str, SipCall],
        vault: Channel,
        agent: Channel,
        order: Callable[[Channel, m.Message], None],
        tell: Callable[[Record], None],
    ) -> None:
        self._records, self._sip_calls = records, sip_calls
        self._vault, self._agent = vault, agent
        self._order, self._tell = order, tell

    def mode_set(self, message: m.ModeSet) -> None:
        """A worker says what mode a leg is in."""
        record = self._records.get(message.call)
        if record is None:
            return
        armed = message.mode == "armed"
        asked = bool(message.capture) and message.capture == record.capture
        answered = asked and record.mode != "armed"
        if asked and armed:
            self._vault.send(m.Act(record.capture, "armed"))
        if record.mode == "passthrough" != message.mode:
            self._passthrough_ended(record, message.reason or message.mode)
        if message.mode == "sealed" != record.mode and message.reason:
            self._sealed(record, message.reason)
        record.mode = message.mode
        if record.story.modes[-1] != message.mode:
            record.story.modes.append(message.mode)
        if message.mode == "sealed" and record.capture:
            self._vault.send(m.Act(record.capture, "sealed"))
            record.capture = 0
        elif message.mode == "guarded" and message.capture == record.capture:
            record.capture = 0
        if message.mode == "armed" and not record.capture:  # for a capture that is over by now
            self._order(record.worker, m.SetMode(record.call, "guarded", message.capture))
        self._tell_sip(record)
        self._tell(record)
        if answered:  # after the call's state, so that who hears of it finds the call armed
            self._agent.send(m.Armed(message.call, message.capture, armed))

    def _tell_sip(self, record: Record) -> None:
        call = self._sip_calls.get(record.call)
        if call is not None:
            call.mode, call.capturing = record.mode, bool(record.capture)

    def arm(self, message: m.Arm) -> None:
        """The agent process wants a capture's leg armed."""
        record = self._records.get(message.call)
        if record is None or record.mode == "sealed" or record.capture:
            self._agent.send(m.Armed(message.call, message.capture, False))
            return
        record.capture = message.capture
        record.story.captures += 1
        call = self._sip_calls.get(message.call)
        if call is not None:
            call.capturing = True
        self._arm(record)

    def _arm(self, record: Record) -> None:
        self._order(record.worker, m.SetMode(record.call, "armed", record.capture, record.route.name))

    def disarm(self, capture: int) -> None:
        """A capture has ended."""
        record = self._of(capture)
        if record is not None:
            record.capture = 0
            self._order(record.worker, m.SetMode(record.call, "guarded", capture))

    def _of(self, capture: int) -> Record | None:
        return next((record for record in self._records.values() if capture and record.capture == capture), None)

    def cue(self, message: m.Cue) -> None:
        """The vault says what the caller is to hear, and whether the caller may be heard."""
        record = self._of(message.capture)
        if record is not None:
            cue = m.Cue(message.capture, message.play, message.muted, record.call, record.route.name)
            self._order(record.worker, cue)

    def guard(self, message: m.Guard) -> None:
        """A supervisor's order: end passthrough, or a seal."""
        record = self._records.get(message.call)
        if record is None or (record.capture and not message.release):  # what is being armed is in passthrough no more
            return
        if record.mode == ("sealed" if message.release else "passthrough"):
            self._order(record.worker, m.SetMode(message.call, "released" if message.release else "guarded"))
            if message.release and record.capture:  # it was interrupted, and goes on
                self._arm(record)

    def end_passthrough(self, call: str, reason: str) -> None:
        """The way back is barred: what comes next is masked."""
        record = self._records.get(call)
        if record is not None and record.mode == "passthrough":
            record.mode = "guarded"
            known = self._sip_calls.get(call)
            if known is not None and known.mode == "passthrough":
                known.mode = "guarded"
            if not record.capture:  # what is being armed is in passthrough no more
                self._order(record.worker, m.SetMode(call, "guarded"))
            self._passthrough_ended(record, reason)

    def _passthrough_ended(self, record: Record, reason: str) -> None:
        log.get().info("passthrough-ended", call=record.call, reason=reason)
        self._order(self._agent, m.Happened("passthrough-ended", record.call, record.route.name, reason=reason))

    def interrupted(self, message: m.Interrupted) -> None:
        """A worker has lost some of what was keyed."""
        self._vault.send(m.Act(message.capture, "interrupted"))
        log.get().warning("interrupted", call=message.call, reason=message.reason)

    def ended(self, record: Record) -> None:
        """The call is over."""
        if record.capture:
            self._vault.send(m.Act(record.capture, "call-ended"))

    def seal(self, record: Record, reason: str) -> None:
        """Nothing of the caller is heard until somebody has looked."""
        self._order(record.worker, m.SetMode(record.call, "sealed", record.capture))
        log.get().error("leg-sealed", call=record.call, reason=reason)
        self._sealed(record, reason)

    def _sealed(self, record: Record, reason: str) -> None:
        self._order(self._agent, m.Happened("sealed", record.call, record.route.name, reason=reason))

    def vault_restarted(self) -> None:
        """It has forgotten its captures."""
        for record in self._records.values():
            if record.mode == "armed" or record.capture:
                self.seal(record, "vault-restarted")

    def worker_restarted(self, records: Iterable[Record]) -> None:
        """The same ports in the new worker; what was armed is sealed, and goes on with its capture when released: the
        field that was being keyed is to be keyed again."""
        for record in records:
            assert record.ports is not None
            secret = record.mode in ("armed", "sealed")
            if secret and record.mode != "sealed":
                self._sealed(record, "media-restarted")
            record.mode = "sealed" if secret else "guarded"
            if record.capture:
                self._vault.send(m.Act(record.capture, "interrupted"))
                if not secret:  # not yet armed: nothing was keyed
                    self._agent.send(m.Armed(record.call, record.capture, False))
                    record.capture = 0
            self._tell_sip(record)
            setups = [
                m.LegSetup(leg.side, leg.bind, leg.peer_rule, leg.peer_network, port, leg.ice)
                for leg, port in zip(record.opened.legs, record.ports, strict=True)
            ]
            again = m.OpenCall(
                record.call, (setups[0], setups[1]), record.mode, record.opened.record, route=record.route.name
            )
            self._order(record.worker, again)
            self._tell(record)
            log.get().warning("media-reopened", call=record.call, mode=record.mode)
