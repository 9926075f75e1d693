"""Whose RTP is believed: one rule a leg, by its peer's policy, told anew by every SDP."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

Address = tuple[str, int]


class SourceRule:
    """strict: the address and port of the SDP. address: its host, any port. network: any address within.
    learn: the first that comes after each SDP, and then only that one."""

    def __init__(self, rule: str, network: str = "") -> None:
        self._rule = rule
        self._network = ip_network(network) if network else None
        self._signalled: Address | None = None
        self._learned: Address | None = None
        self._former: Address | None = None
        """Who was believed until the last SDP."""
        self._known: Address | None = None
        """The last address accepted, so that the common case is one comparison."""

    def signalled(self, remote: Address) -> None:
        """SDP says where the peer is."""
        remote = (_plain(remote[0]), remote[1])
        if remote != self._signalled:
            self._former = self._learned
            self._signalled, self._learned, self._known = remote, None, None

    def accepts(self, source: Address) -> bool:
        """Whether a packet from `source` is the peer's."""
        if source == self._known:
            return True
        if self._signalled is None:
            return False
        if self._rule == "strict":
            good = source == self._signalled
        elif self._rule == "address":
            good = source[0] == self._signalled[0]
        elif self._rule == "network":
            good = self._network is not None and ip_address(source[0]) in self._network
        else:
            # What the address of before still sends is not what this SDP announced.
            new = self._learned is None and (source == self._signalled or source != self._former)
            good = new or source == self._learned
            self._learned = source if good else self._learned
        if good:
            self._known = source
        return good

    def forget(self) -> bool:
        """Forget who was learned; returns whether there was anyone."""
        if self._learned is None:
            return False
        self._learned = self._known = None
        return True

    def settled(self, source: Address) -> tuple[str, int | None] | None:
        """Once `source` is believed: who alone will be (the port None: any), None where that is not one host."""
        if self._rule == "network":
            return None
        return source if self._rule in ("strict", "learn") else (source[0], None)

    def is_host(self, host: str) -> bool:
        """Whether `host` is the peer's, whatever the port: for RTCP."""
        if self._rule == "network":
            return self._network is not None and ip_address(host) in self._network
        at = self.destination()
        return at is not None and host == at[0]

    def destination(self) -> Address | None:
        """Where to send: to the learned address if that is the rule, else as signalled."""
        return self._learned or self._signalled


def _plain(host: str) -> str:
    """An address as the system writes it, so that two ways of writing one are the same."""
    try:
        return str(ip_address(host))
    except ValueError:
        return host
