"""How calls end: by a BYE, a CANCEL, or from here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sip.b2bua.call import Call, Exchange
from sip.b2bua.core import Core
from sip.b2bua.relay import carry_body
from sip.message import Message


@dataclass(slots=True)
class Ends:
    """before: what is told first of every call that ends (a transfer under way)."""

    core: Core
    before: list[Callable[[Call, float], None]] = field(default_factory=list)

    def end(
        self, call: Call, reason: str, now: float, spare: int = -1, status: int = 480, cause: Message | None = None
    ) -> None:
        """End both legs but `spare`, which has said goodbye itself: BYE to what is answered, CANCEL or `status` to what
        is not. `cause`: the message whose headers (Reason, User-to-User) go with it."""
        if call.ended:
            return
        ex, answered = call.exchange, call.state == "answered"
        for told in self.before:
            told(call, now)
        if ex is not None and ex.accepted is None:
            ex.waiting.clear()
            self.core.layer.provisional_acknowledged(ex.server)
            self.core.refuse(ex.server, status, now, call.fork.dialogs[ex.source].local.tag)
            for client in ex.clients:
                self.core.layer.cancel(client, now)
        elif ex is not None:
            self.core.layer.acknowledged(ex.server)
            self.acknowledge(ex, b"")
        for index, leg in enumerate(call.legs):
            if answered and index != spare:
                bye = Message()
                if cause is not None:
                    self.core.carry(call, index, cause, bye)
                    if not self.core.withheld(call, 1 - index, cause, "BYE"):
                        carry_body(cause, bye, self.core.passes(call, index))
                self.core.bye(leg, call.fork.dialogs[index], now, bye)
        self.core.close(call, reason, status if not answered else 0)

    def acknowledge(self, ex: Exchange, body: bytes) -> None:
        """Send the ACK of a 2xx on, if it has not been."""
        if ex.here or ex.ack or ex.client is None or ex.accepted is None:
            return
        index = 1 - ex.source
        leg, dialog = ex.call.legs[index], ex.accepted.dialogs[index]
        ex.ack = self.core.send_ack(leg, dialog, ex.client.request, body)
