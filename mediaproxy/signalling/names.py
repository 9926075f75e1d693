"""Next hops from DNS, looked up before a call needs them and again before they grow old (RFC 3263)."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver

from mediaproxy import log
from mediaproxy.config import PeerConfig, endpoint, is_address, next_hop
from sip.hop import PORTS, Hop
from sip.locate import Srv, in_order, service

SHORTEST, LONGEST = 5.0, 300.0
"""Seconds between two lookups, whatever the records allow."""
PATIENCE = 5.0


class Names:
    """Keeps every peer's next hops fresh. found: told of each peer's hops whenever they have changed."""

    def __init__(
        self, peers: tuple[PeerConfig, ...], servers: tuple[str, ...], found: Callable[[str, list[Hop]], None]
    ):
        self._peers, self._found = peers, found
        self._own_servers = bool(servers)
        self._resolver: dns.asyncresolver.Resolver | None = None
        self._servers = servers

    def start(self) -> list[asyncio.Task[None]]:
        """Give out the addresses that need no lookup, and begin to look up the others."""
        tasks = []
        for peer in (peer for peer in self._peers if not peer.registered):
            places = _places(peer)
            if all(is_address(host) for host, _ in places):
                transport = peer.transport.upper()
                self._found(peer.name, [Hop(host, port or PORTS[transport], transport) for host, port in places])
            else:
                tasks.append(asyncio.get_running_loop().create_task(self._keep(peer)))
        return tasks

    async def _keep(self, peer: PeerConfig) -> None:
        known: list[Hop] = []
        while True:
            hops: list[Hop] = []
            wait = LONGEST
            try:
                for host, port in _places(peer):
                    found, age = await self._hops(host, port, peer.transport.upper())
                    hops += [hop for hop in found if hop not in hops]
                    wait = min(wait, age)
            except dns.exception.DNSException:  # no answer is not the answer that there is no such record
                hops = []
            if not hops:
                log.get().warning("name-not-found", peer=peer.name)
            elif hops != known:
                known = hops
                self._found(peer.name, hops)
            await asyncio.sleep(max(SHORTEST, wait) if hops else SHORTEST)

    async def _hops(self, host: str, port: int, transport: str) -> tuple[list[Hop], float]:
        """Hops for one address or name, and how many seconds they are good for."""
        if is_address(host):
            return [Hop(host, port or PORTS[transport], transport)], LONGEST
        name = host if transport == "TLS" else ""
        records, age = ([], LONGEST) if port else await self._srv(service(transport) + host)
        ordered = in_order(records, secrets.randbelow) or [Srv(0, 0, port or PORTS[transport], host)]
        hops: list[Hop] = []
        for record in ordered:
            addresses, until = await self._addresses(record.target)
            age = min(age, until)
            hops += [Hop(address, record.port, transport, 0, name) for address in addresses]
        return hops, age

    async def _srv(self, name: str) -> tuple[list[Srv], float]:
        try:
            answer = await self._ask(name, "SRV")
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return [], LONGEST
        records = [Srv(r.priority, r.weight, r.port, str(r.target).rstrip(".")) for r in answer]
        return [r for r in records if r.target], float(answer.rrset.ttl if answer.rrset else LONGEST)

    async def _addresses(self, name: str) -> tuple[list[str], float]:
        found: list[str] = []
        age = LONGEST
        for kind in ("A", "AAAA"):
            try:
                answer = await self._ask(name, kind)
            except dns.exception.DNSException:
                continue
            found += [record.address for record in answer]
            age = min(age, float(answer.rrset.ttl if answer.rrset else LONGEST))
        if not found and not self._own_servers:  # what only this machine knows, as in /etc/hosts
            try:
                infos = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_DGRAM)
            except OSError:
                return [], SHORTEST
            found = list(dict.fromkeys(str(info[4][0]) for info in infos))
            age = 60.0
        return found, age

    async def _ask(self, name: str, kind: str) -> dns.resolver.Answer:
        if self._resolver is None:
            self._resolver = dns.asyncresolver.Resolver(configure=not self._own_servers)
            if self._own_servers:
                places = [endpoint(server, "dns.servers") for server in self._servers]
                self._resolver.nameservers = [host for host, _ in places]
                self._resolver.nameserver_ports = dict(places)
            self._resolver.lifetime = PATIENCE
        return await self._resolver.resolve(name, kind)


def _places(peer: PeerConfig) -> list[tuple[str, int]]:
    return [next_hop(text, "peer.address") for text in (peer.address, *peer.backups)]
