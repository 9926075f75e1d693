"""The part of a configuration's check that is about people: the agent API, who may use it, tenants, the audit log."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from mediaproxy.config import EVERYTHING, Config, RouteConfig, endpoint
from mediaproxy.config_capture import is_https
from mediaproxy.config_tls import authority, fits
from mediaproxy.errors import ConfigError

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_ORIGIN = re.compile(
    r"https://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?|http://(127\.0\.0\.1|localhost)(:[0-9]{1,5})?"
)


def check(config: Config) -> None:
    """Raises ConfigError that names the key and what is allowed."""
    _listener(config)
    tenants = _tenants(config)
    for token in config.api.tokens:
        if not re.fullmatch(r"[0-9a-f]{64}", token.sha256):
            raise ConfigError(
                f"api.tokens.sha256: 64 lower-case hex digits, as sha256sum prints them (token {token.name})"
            )
        if token.sha256 == hashlib.sha256(b"").hexdigest():
            raise ConfigError(f"api.tokens.sha256: is that of an empty token (token {token.name})")
        if token.role == "agent" and not token.numbers:
            raise ConfigError(
                f'api.tokens.numbers: the extensions of agent {token.name}; ["{EVERYTHING}"] for a CRM\'s server'
            )
        _tenant(token.tenant, {*tenants, EVERYTHING}, "api.tokens.tenant")
    _issuers(config, tenants)
    if not (math.isfinite(config.api.requests_a_second) and config.api.requests_a_second >= 1):
        raise ConfigError("api.requests_a_second: at least 1")
    if not 1 <= config.api.streams <= 100_000:
        raise ConfigError("api.streams: 1 to 100000")
    _audit(config)


def _listener(config: Config) -> None:
    api = config.api
    host, _ = endpoint(api.listen, "api.listen")
    if bool(api.certificate) != bool(api.key):
        raise ConfigError("api.certificate: goes with api.key, both or neither")
    if api.certificate:
        fits(api.certificate, api.key, "api.key")
    elif not ip_address(host).is_loopback:
        raise ConfigError("api.listen: without api.certificate only a loopback address, like 127.0.0.1:8080")
    origins(api.origins, "api.origins")


def origins(sites: Iterable[str], where: str) -> None:
    """Whether each is a web site as browsers name it. Raises ConfigError."""
    for origin in sites:
        if not _ORIGIN.fullmatch(origin) or origin.endswith(":443"):  # which browsers leave out
            raise ConfigError(f"{where}: each like https://crm.example.com, without a path; http only for loopback")


def _tenants(config: Config) -> set[str]:
    """Their names. Nothing that holds a credential serves two of them."""
    tenants = {tenant.name for tenant in config.tenants}
    for tenant in config.tenants:
        if not _NAME.fullmatch(tenant.name):
            raise ConfigError("tenant.name: lower-case letters, digits and -")
        origins(tenant.origins, "tenant.origins")
    owners: dict[tuple[str, str], str] = {}
    for route in config.routes:
        _tenant(route.tenant, tenants, "route.tenant")
        for kind, name in _holders(route, config):
            if owners.setdefault((kind, name), route.tenant) != route.tenant:
                raise ConfigError(
                    f"route.{kind}: {name} would serve two tenants; each needs one of its own, with its own credentials"
                )
    return tenants


def _holders(route: RouteConfig, config: Config) -> Iterable[tuple[str, str]]:
    """Every gateway and webhook that a route's captures can come to."""
    templates = {template.name: template for template in config.templates}
    standbys = {gateway.name: gateway.standby for gateway in config.gateways}
    gateways = [route.gateway, *(templates[name].gateway for name in route.templates if name in templates)]
    yield from (("gateway", name) for name in gateways if name)
    yield from (("gateway", standbys[name]) for name in gateways if standbys.get(name))
    if route.webhook:
        yield "webhook", route.webhook


def _tenant(name: str, known: set[str], where: str) -> None:
    if name and name not in known:
        raise ConfigError(f"{where}: names no [[tenant]]; known: {', '.join(sorted(known - {EVERYTHING})) or 'none'}")


def _issuers(config: Config, tenants: set[str]) -> None:
    for issuer in config.api.issuers:
        if not is_https(issuer.issuer) or urlsplit(issuer.issuer).query:
            raise ConfigError("api.issuers.issuer: needs https://host/path, just as the tokens have it")
        if issuer.jwks_url and not is_https(issuer.jwks_url):
            raise ConfigError("api.issuers.jwks_url: needs https://host/path")
        if not issuer.audience:
            raise ConfigError("api.issuers.audience: what the tokens are made for, or any token of the issuer would do")
        if not issuer.algorithms:
            raise ConfigError("api.issuers.algorithms: one at least")
        if issuer.ca_file:
            if not Path(issuer.ca_file).is_file():
                raise ConfigError("api.issuers.ca_file: is not a file")
            authority(issuer.ca_file, "api.issuers.ca_file")
        if issuer.tenant and issuer.tenant_claim:
            raise ConfigError("api.issuers.tenant_claim: or api.issuers.tenant, not both")
        if issuer.tenant_claim and not tenants:
            raise ConfigError("api.issuers.tenant_claim: needs [[tenant]]s that it can name")
        _tenant(issuer.tenant, tenants, "api.issuers.tenant")
        for key, value, most in (("leeway", issuer.leeway_seconds, 300), ("keys", issuer.keys_seconds, 86_400)):
            if not (math.isfinite(value) and 0 <= value <= most):
                raise ConfigError(f"api.issuers.{key}_seconds: 0 to {most}")


def _audit(config: Config) -> None:
    if config.audit.directory and not Path(config.audit.directory).is_dir():
        raise ConfigError("audit.directory: is not a directory")
    if config.audit.syslog and not config.audit.directory:
        raise ConfigError("audit.syslog: goes with audit.directory")
    if config.audit.syslog.startswith("/"):
        if not Path(config.audit.syslog).is_socket():
            raise ConfigError("audit.syslog: is not a socket")
    elif config.audit.syslog:
        endpoint(config.audit.syslog, "audit.syslog")
