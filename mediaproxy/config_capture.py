"""The part of a configuration's check that is about payments: fields, templates, gateways, prompts, webhooks."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mediaproxy import wav
from mediaproxy.config import CARD_FIELDS, EXPIRY_PARTS, PLACE, Config, GatewayConfig, RouteConfig
from mediaproxy.config_tls import authority
from mediaproxy.errors import ConfigError

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_LONGEST_FIELD = 30
_PROMPTS = ("invalid", "muted", "done", "failed")
_TOKEN = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+")
_RATE = 8000
_LONGEST_PROMPT = 60
"""Seconds."""
_SHAPE = ("encoding", "headers", "body", "token", "error", "errors")
"""What only kind = "rest" has a choice of."""
_FRAMING = frozenset({"host", "content-length", "transfer-encoding", "connection", "content-type", "authorization"})


def check(config: Config) -> None:
    """Raises ConfigError that names the key and what is allowed."""
    _fields(config)
    gateways = {gateway.name: gateway for gateway in config.gateways}
    for gateway in config.gateways:
        try:
            _gateway(gateway, config, gateways)
        except ConfigError as error:
            raise ConfigError(f"{error} (gateway {gateway.name})") from None
    for template in config.templates:
        _known(template.fields, config, "template.fields")
        if template.gateway and template.gateway not in gateways:
            raise ConfigError(f"template.gateway: names no gateway; known: {', '.join(gateways) or 'none'}")
    _prompts(config)
    for webhook in config.webhooks:
        if not is_https(webhook.url):
            raise ConfigError("webhook.url: needs https://host/path, with a port if not 443")
        _files(webhook, ("secret_file", "ca_file"), "webhook")
        if webhook.ca_file:
            authority(webhook.ca_file, "webhook.ca_file")
        if Path(webhook.secret_file).stat().st_size < 16:
            raise ConfigError("webhook.secret_file: needs at least 16 characters")
    for route in config.routes:
        _route(route, config, gateways)


def _fields(config: Config) -> None:
    for field in config.fields:
        if not _NAME.fullmatch(field.name) or field.name in (*CARD_FIELDS, *_PROMPTS):
            raise ConfigError(
                f"field.name: lower-case letters, digits and -, none of {', '.join((*CARD_FIELDS, *_PROMPTS))}"
            )
        if not 1 <= field.least <= field.most <= _LONGEST_FIELD:
            raise ConfigError(f"field.least, field.most: 1 to {_LONGEST_FIELD} digits, least not above most")
    if not 1 <= config.capture.tries <= 100:
        raise ConfigError("capture.tries: 1 to 100")


def _known(names: tuple[str, ...], config: Config, where: str) -> None:
    known = (*CARD_FIELDS, *(field.name for field in config.fields))
    if not names or len(set(names)) != len(names) or not set(names) <= set(known):
        raise ConfigError(f"{where}: each of {', '.join(known)} at most once, and one at least")


def _route(route: RouteConfig, config: Config, gateways: dict[str, GatewayConfig]) -> None:
    _known(route.fields, config, "route.fields")
    if route.gateway and route.gateway not in gateways:
        raise ConfigError(f"route.gateway: names no gateway; known: {', '.join(gateways) or 'none'}")
    templates = {template.name: template for template in config.templates}
    for name in route.templates:
        if name not in templates:
            raise ConfigError(f"route.templates: names no template; known: {', '.join(templates) or 'none'}")
    _fit(route.gateway, route.fields, "route.fields", gateways)
    for name in route.templates:
        gateway = templates[name].gateway or route.gateway
        if not gateway:
            raise ConfigError("template.gateway: or route.gateway: a template needs one")
        _fit(gateway, templates[name].fields, "template.fields", gateways)
    if route.start == "answer" and not route.gateway:
        raise ConfigError("route.start: needs route.gateway")
    if route.prompts and route.prompts not in config.prompts:
        raise ConfigError(f"route.prompts: names no set; known: {', '.join(config.prompts) or 'none'}")
    if route.prompts_to_agent and not route.prompts:
        raise ConfigError("route.prompts_to_agent: needs route.prompts")
    if route.speech == "announced" and "muted" not in config.prompts.get(route.prompts, {}):
        raise ConfigError("route.speech: announced needs route.prompts with a prompt `muted`")
    for key in ("mute_recording", "pause_recording"):
        if getattr(route, key) and not route.record:
            raise ConfigError(f"route.{key}: needs route.record")
    webhooks = [webhook.name for webhook in config.webhooks]
    if route.webhook and route.webhook not in webhooks:
        raise ConfigError(f"route.webhook: names no webhook; known: {', '.join(webhooks) or 'none'}")


def _fit(name: str, fields: tuple[str, ...], where: str, gateways: dict[str, GatewayConfig]) -> None:
    """Whether what is keyed is what a gateway, and its standby, takes: nothing is asked of a caller and thrown away."""
    if not name:
        return
    gateway = gateways[name]
    _fit(gateway.standby, fields, where, gateways)
    takes = {
        "stripe": {"pan", "expiry", "cvv"}, "basis-theory": {"pan", "expiry", "cvv"}, "vgs": {"pan"},
        "rest": {name.partition(".")[0] for name in places(gateway.body)} or set(fields),
    }[gateway.kind]  # fmt: skip
    for name in fields:
        if name not in takes:
            why = ": a security code must not be stored" if (gateway.kind, name) == ("vgs", "cvv") else ""
            raise ConfigError(f"{where}: gateway {gateway.name} ({gateway.kind}) takes no {name}{why}")
    if gateway.kind != "rest" and "pan" not in fields:
        raise ConfigError(f"{where}: gateway {gateway.name} ({gateway.kind}) needs pan")


def places(template: Any) -> Iterator[str]:
    """The names in `{...}` of a body."""
    for text in _texts(template):
        yield from (place[1] for place in PLACE.finditer(text))


def _texts(template: Any) -> Iterator[str]:
    if isinstance(template, str):
        yield template
    for value in template.values() if isinstance(template, dict) else template if isinstance(template, list) else ():
        yield from _texts(value)


def _gateway(gateway: GatewayConfig, config: Config, gateways: dict[str, GatewayConfig]) -> None:
    if not is_https(gateway.url):
        raise ConfigError("gateway.url: needs https://host/path, with a port if not 443")
    if bool(gateway.client_certificate) != bool(gateway.client_key):
        raise ConfigError("gateway.client_certificate: goes with gateway.client_key, both or neither")
    if not (gateway.bearer_file or gateway.basic_file or gateway.header_files or gateway.client_certificate):
        raise ConfigError(
            "gateway.bearer_file: or basic_file, header_files, client_certificate; the gateway must know who asks"
        )
    if gateway.bearer_file and gateway.basic_file:
        raise ConfigError("gateway.basic_file: or gateway.bearer_file, not both")
    _files(gateway, ("ca_file", "bearer_file", "basic_file", "client_certificate", "client_key"), "gateway")
    if gateway.ca_file:
        authority(gateway.ca_file, "gateway.ca_file")
    for name, file in gateway.header_files.items():
        if not Path(file).is_file():
            raise ConfigError("gateway.header_files: is not a file")
        if name.lower() != "authorization" or gateway.bearer_file or gateway.basic_file:
            _header(name, "", "gateway.header_files")
    for name, value in gateway.headers.items():
        _header(name, value, "gateway.headers")
    if gateway.idempotency_header:
        _header(gateway.idempotency_header, "", "gateway.idempotency_header")
    if not 0 <= gateway.retries <= 10:
        raise ConfigError("gateway.retries: 0 to 10")
    if gateway.standby and (gateway.standby not in gateways or gateway.standby == gateway.name):
        raise ConfigError("gateway.standby: needs the name of another gateway")
    if gateway.standby and gateways[gateway.standby].standby:
        raise ConfigError("gateway.standby: a standby has none of its own")
    if gateway.kind != "rest":
        fresh = GatewayConfig(name="", url="")
        for key in _SHAPE:
            if getattr(gateway, key) != getattr(fresh, key) and not (key == "headers" and gateway.kind == "stripe"):
                raise ConfigError(f'gateway.{key}: goes with kind = "rest"')
    if not gateway.token:
        raise ConfigError("gateway.token: where the answer has it, like data.0.id")
    if gateway.idempotency_header.lower() in {name.lower() for name in gateway.headers} - {""}:
        raise ConfigError("gateway.idempotency_header: is set by gateway.headers to one value for all")
    known = {*CARD_FIELDS, *(field.name for field in config.fields), *(f"expiry.{part}" for part in EXPIRY_PARTS)}
    for name in places(gateway.body):
        if name not in known:
            raise ConfigError(f"gateway.body: a place names no field; known: {', '.join(sorted(known))}")
    for text in _texts(gateway.body):
        inner = text.removeprefix("int:")
        if inner != text and not re.fullmatch(r"\{expiry\.(month|m|year|yy)\}", inner):
            raise ConfigError("gateway.body: int: goes with one part of the expiry date: others may begin with 0")
    if any(brace in PLACE.sub("", text) for text in _texts(gateway.body) for brace in "{}"):
        raise ConfigError("gateway.body: a brace that is no place for a field: {pan}, {expiry.month} ...")
    if gateway.body and not list(places(gateway.body)):
        raise ConfigError("gateway.body: has no place for a field, like {pan}")


def check_secrets(config: Config) -> None:
    """Whether every credential can be used, where this user may read it: otherwise the first caller's card would tell.
    For `check-config`; while serving nobody but the vault opens them. Raises ConfigError."""
    for gateway in config.gateways:
        secrets = [("bearer_file", gateway.bearer_file), ("basic_file", gateway.basic_file)]
        for key, file in [*secrets, *(("header_files", file) for file in gateway.header_files.values())]:
            if file:
                _secret(file, f"gateway.{key}", gateway.name)
    for webhook in config.webhooks:
        if os.access(webhook.secret_file, os.R_OK) and len(Path(webhook.secret_file).read_bytes().strip()) < 16:
            raise ConfigError(f"webhook.secret_file: its file needs at least 16 characters (webhook {webhook.name})")
    for gateway in config.gateways:
        if gateway.client_certificate and os.access(gateway.client_key, os.R_OK):
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(gateway.client_certificate, gateway.client_key)
            except (OSError, ssl.SSLError):
                why = "does not belong to its certificate, or one of them is not in PEM"
                raise ConfigError(f"gateway.client_key: {why} (gateway {gateway.name})") from None


def _secret(file: str, where: str, gateway: str) -> None:
    try:
        text = Path(file).read_text("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    except OSError:
        return
    if not text or not text.isprintable() or (" " in text and where == "gateway.bearer_file"):
        raise ConfigError(f"{where}: its file needs one line of ASCII characters (gateway {gateway})")
    if where == "gateway.basic_file" and ":" not in text:
        raise ConfigError(f"{where}: its file needs user:password (gateway {gateway})")


def _header(name: str, value: str, where: str) -> None:
    if not _TOKEN.fullmatch(name) or not value.isprintable() or not value.isascii():
        raise ConfigError(f"{where}: needs a header's name, and a value of one line")
    if name.lower() in _FRAMING:
        raise ConfigError(f"{where}: {name} is set otherwise")


def _prompts(config: Config) -> None:
    known = (*CARD_FIELDS, *(field.name for field in config.fields), *_PROMPTS)
    for prompts in config.prompts.values():
        for name, file in prompts.items():
            if name not in known:
                raise ConfigError(f"prompts: each is one of {', '.join(known)}")
            try:
                audio, rate = wav.read(file)
            except wav.WavError as error:
                raise ConfigError(f"prompts.{name}: {error}") from None
            if rate != _RATE or audio.shape[0] != 1 or not 0 < audio.shape[1] <= _LONGEST_PROMPT * _RATE:
                raise ConfigError(f"prompts.{name}: mono, 8000 Hz, up to {_LONGEST_PROMPT} s (sox IN -r 8000 -c 1 OUT)")


def _files(what: Any, keys: tuple[str, ...], table: str) -> None:
    for key in keys:
        path = getattr(what, key)
        if path and not Path(path).is_file():
            raise ConfigError(f"{table}.{key}: is not a file")


def is_https(url: str) -> bool:
    """Whether `url` is one that can be posted to."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = url.isprintable() and url.isascii() and " " not in url and "@" not in parts.netloc
    return plain and parts.scheme == "https" and bool(parts.hostname) and port != 0
