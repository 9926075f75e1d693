"""One file a kind of gateway."""

from typing import Final

from mediaproxy.config import Config
from mediaproxy.vault.adapters.basis_theory import BasisTheory
from mediaproxy.vault.adapters.rest import Rest
from mediaproxy.vault.adapters.stripe import Stripe
from mediaproxy.vault.adapters.vgs import Vgs
from mediaproxy.vault.gateway import Adapter, Gateway

KINDS: Final[dict[str, type[Adapter]]] = {
    "rest": Rest,
    "stripe": Stripe,
    "vgs": Vgs,
    "basis-theory": BasisTheory,
}


def gateways(config: Config) -> dict[str, Gateway]:
    """Every configured gateway by name."""
    return {g.name: Gateway(g, KINDS[g.kind](g), config.capture.expiry) for g in config.gateways}
