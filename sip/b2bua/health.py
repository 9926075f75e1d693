"""Which next hops answer: OPTIONS to each in turn (RFC 3261 section 11), and back to use as soon as one answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Final

from sip.b2bua.core import Core, target_at
from sip.b2bua.peers import Peer
from sip.b2bua.relay import rule
from sip.headers.address import Address
from sip.hop import Hop
from sip.message import Request
from sip.transaction import ClientTransaction, ResponseReceived
from sip.uri import Uri

PATIENCE: Final = 4.0
"""Seconds without an answer after which a hop is taken for down."""
ASK, WAIT = "options", "options-wait"


@dataclass(slots=True)
class Health:
    """asked: OPTIONS on their way, by peer."""

    core: Core
    asked: dict[str, list[ClientTransaction]] = field(default_factory=dict)

    def start(self, now: float) -> None:
        """Begin to ask every peer that is to be asked."""
        for peer in self.core.peers:
            if peer.options_seconds:
                self.core.alarms.set((peer.name, ASK), now)

    def ask(self, name: str, now: float) -> None:
        """Ask all hops of a peer."""
        peer = self.core.peer(name)
        if peer is None:
            return
        self.asked[name] = [self._send(peer, hop, now) for hop in peer.hops]
        self.core.alarms.set((name, WAIT), now + min(PATIENCE, peer.options_seconds))
        self.core.alarms.set((name, ASK), now + peer.options_seconds)

    def _send(self, peer: Peer, hop: Hop, now: float) -> ClientTransaction:
        core = self.core
        own, port = core.site.at(peer.side, hop.transport)
        local = Address(str(Uri("sip", "", f"[{own}]" if ":" in own else own, port))).tagged(core.ids())
        target = str(target_at(Uri("sip", "", hop.host, None), hop))
        request = Request(method="OPTIONS", uri=target)
        request.headers = [
            ("Max-Forwards", "70"), ("From", str(local)), ("To", f"<{target}>"), ("Call-ID", core.ids()),
            ("CSeq", "1 OPTIONS"), ("Accept", "application/sdp"),
        ]  # fmt: skip
        rule(request, peer)
        return core.layer.send(request, peer.side, hop, now, partial(self._answered, peer, hop))

    def _answered(self, peer: Peer, hop: Hop, event: ResponseReceived, now: float) -> None:
        if event.local or event.response.status == 503:
            self.core.down.add(hop)
        elif event.response.status >= 200:
            self.core.down.discard(hop)
        self.asked[peer.name] = [t for t in self.asked.get(peer.name, []) if t is not event.transaction]

    def waited(self, name: str) -> None:
        """Whoever has not answered is down."""
        for transaction in self.asked.pop(name, []):
            self.core.layer.give_up(transaction)
            self.core.down.add(transaction.to)
