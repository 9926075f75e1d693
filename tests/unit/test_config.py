"""The configuration: every mistake is told by file, line, key and what is allowed."""

import re
from pathlib import Path

import numpy as np
import pytest

from mediaproxy import cli, config, config_file, wav
from mediaproxy.demo import certificates
from mediaproxy.errors import ConfigError

ISSUER = '[[api.issuers]]\nname = "i"\nissuer = "{url}"\naudience = "flattone"\n{more}\n[audit]'
EXAMPLE = Path(__file__).parents[2] / "deploy" / "example.toml"


@pytest.fixture
def text(tmp_path: Path) -> str:
    """The example, with the files it names made."""
    made = (
        EXAMPLE.read_text()
        .replace("/etc/flattone/", f"{tmp_path}/")
        .replace("/var/lib/flattone/recordings", str(tmp_path))
        .replace("/run/flattone/", f"{tmp_path}/")
        .replace("/var/log/flattone/", f"{tmp_path}/")
    )
    made = made.replace("put the 64 hex digits of your own token here", "ab" * 32)
    (tmp_path / "gateway.token").write_text("x")
    (tmp_path / "audit").mkdir()
    _, certificate, key = certificates.make(tmp_path)
    certificate.rename(tmp_path / "api.pem")
    key.rename(tmp_path / "api.key")
    return made


def load(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "f.toml"
    path.write_text(text)
    return config_file.load(str(path))


def test_the_example_is_true(tmp_path: Path, text: str) -> None:
    loaded = load(tmp_path, text)
    assert {peer.side for peer in loaded.peers} == {"trunk", "agent"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('side = "trunk"', 'side = "middle"', "side"),
        ('side = "trunk"', 'syde = "trunk"', "syde"),
        ('name = "carrier"', "", "name"),
        ('ports = "20000-23999"', 'ports = "20000"', "media.ports"),
        ('from = "carrier"', 'from = "nobody"', "route.from"),
        ('to = "pbx"', 'to = "carrier"', "other side"),
        ('gateway = "merchant"', 'gateway = "other"', "route.gateway"),
        ('url = "https://', 'url = "http://', "gateway.url"),
        ('bearer_file = "', 'bearer_file = "/nonexistent', "gateway.bearer_file"),
        ("[media]", "[media", "not TOML"),
        ('listen = "127.0.0.1:8443"', 'listen = "nowhere"', "api.listen"),
        ("workers = 0", "workers = -1", "media.workers"),
        ("workers = 0", 'workers = "two"', "workers"),
        ('users = ".*"', 'users = "("', "route.users"),
        ('fields = ["pan", "expiry", "cvv"]', 'fields = ["pan", "pin"]', "fields"),
        ('mode = "guarded"', 'mode = "open"', "mode"),
        ('name = "outbound"', 'name = "inbound"', "route.name"),
        ("field_seconds = 60", "field_seconds = nan", "capture.field_seconds"),
        ("grace_seconds = 30 ", "grace_seconds = -1 ", "stop.grace_seconds"),
        ("timeout_seconds = 10", "timeout_seconds = inf", "gateway.timeout_seconds"),
        ('rtp = "address"', 'rtp = "address"\ntransport = "tls"', "[trunk.tls]"),
        ('rtp = "address"', 'rtp = "address"\ncertificate_names = ["a"]', "peer.certificate_names"),
        ('rtp = "address"', 'rtp = "address"\nusername = "a"', "peer.username"),
        ('rtp = "address"', 'rtp = "address"\nsession_seconds = 30', "peer.session_seconds"),
        ('rtp = "address"', 'rtp = "address"\nbackups = ["not a name"]', "peer.backups"),
        ('rtp = "address"', 'rtp = "address"\nheaders = [{action = "strip", name = "Via"}]', "peer.headers"),
        ('rtp = "address"', 'rtp = "address"\nheaders = [{action = "rewrite", name = "X-A"}]', "matches"),
        ('rtp = "address"', 'rtp = "address"\nrefer = "maybe"', "execute, pass, refuse"),
        ('mode = "guarded"', 'mode = "guarded"\nguard_keys = 4', "passthrough"),
        ('mode = "guarded"', 'mode = "guarded"\nheader_matches = "("', "route.header_matches"),
        ("[trace]\n", "[dns]\nservers = ['x']\n[trace]\n", "dns.servers"),
        ('[cdr]\nfile = "', '[cdr]\nfile = "/nonexistent', "cdr.file"),
        ("[agent] ", "sip_dscp = 64\n[agent] ", "trunk.sip_dscp"),
        ('api.key"', 'gateway.token"', "api.key"),
        ("tokens.example.com/", "tokens.example.com:abc/", "gateway.url"),
        (
            "ab" * 32,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256",
        ),
        ("ab" * 32, "put the 64 hex digits of your own token here", "api.tokens.sha256"),
        ('sip_listen = "192.0.2.10:5060"', 'sip_listen = "0.0.0.0:5060"', "trunk.sip_listen"),
        ('ports = "20000-23999"', 'ports = "5000-5999"', "media.ports"),
        ('side = "agent"', 'side = "agnet"', "trunk, agent"),
        ("[log]", "[users]\nvault = 'nobody-knows'\n[log]", "users"),
        ('numbers = ["204"]', "", "api.tokens.numbers"),
        ('numbers = ["204"]', 'numbers = ["204"]\ntenant = "acme"', "api.tokens.tenant"),
        ('role = "agent"', 'role = "admin"', "agent, supervisor, auditor"),
        ("[[api.tokens]]", 'origins = ["https://crm.example.com/"]\n[[api.tokens]]', "api.origins"),
        ("[[api.tokens]]", 'origins = ["http://crm.example.com"]\n[[api.tokens]]', "api.origins"),
        ("[[api.tokens]]", 'origins = ["*"]\n[[api.tokens]]', "api.origins"),
        ("[[api.tokens]]", "requests_a_second = 0\n[[api.tokens]]", "api.requests_a_second"),
        ("[[api.tokens]]", "streams = 0\n[[api.tokens]]", "api.streams"),
        ("[audit]", ISSUER.format(more="", url="http://id.example.com"), "api.issuers.issuer"),
        ("[audit]", ISSUER.format(more='algorithms = ["HS256"]', url="https://id.example.com"), "RS256"),
        ("[audit]", ISSUER.format(more="algorithms = []", url="https://id.example.com"), "api.issuers.algorithms"),
        ("[audit]", ISSUER.format(more="leeway_seconds = 9000", url="https://id.example.com"), "leeway_seconds"),
        ("[audit]", ISSUER.format(more='tenant = "x"', url="https://id.example.com"), "api.issuers.tenant"),
        ("[audit]", ISSUER.format(more='tenant = "x"\ntenant_claim = "y"', url="https://a.b"), "not both"),
        (
            "[audit]",
            ISSUER.format(more='ca_file = "/nonexistent"', url="https://id.example.com"),
            "api.issuers.ca_file",
        ),
        ("[audit]", ISSUER.replace('"flattone"', '""').format(more="", url="https://a.b"), "api.issuers.audience"),
        ("[audit]", "[[tenant]]\nname = 'A b'\n[audit]", "tenant.name"),
        ("[audit]", "[[tenant]]\nname = 'acme'\norigins = ['crm']\n[audit]", "tenant.origins"),
        ('gateway = "merchant"', 'gateway = "merchant"\ntenant = "acme"', "route.tenant"),
        ("\n[trace]", 'form = "wav"\n[trace]', "recording"),
        ("\n[trace]", 'format = "ogg"\n[trace]', "wav, wav-ulaw, opus, mp3"),
        ("\n[trace]", "kbits = 64\n[trace]", "recording.kbits"),
        ("\n[trace]", 'format = "mp3"\nkbits = 320\n[trace]', "16 to 64"),
        ("\n[trace]", 'name = "{date}"\n[trace]', "recording.name: needs {call}"),
        ("\n[trace]", 'name = "../{call}"\n[trace]', "recording.name"),
        ("\n[trace]", 'name = "{call.__class__}"\n[trace]', "recording.name"),
        ("\n[trace]", 'signing_key = "/nonexistent"\n[trace]', "recording.signing_key"),
        ("\n[trace]", 'signing_key = "/etc/hostname"\n[trace]', "recording.signing_key: is no PEM file"),
        ("\n[trace]", 'syslog = "nowhere"\n[trace]', "recording.syslog"),
        ("\n[trace]", "retention_days = -1\n[trace]", "recording.retention_days"),
        ("record = true", "pause_recording = true", "route.pause_recording"),
        ('/audit"', '/nowhere"', "audit.directory"),
        ('/audit"', '/audit"\nsyslog = "nowhere"', "audit.syslog"),
    ],
)
def test_every_mistake_is_named(tmp_path: Path, text: str, old: str, new: str, says: str) -> None:
    assert old in text
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text.replace(old, new, 1))
    assert "f.toml" in str(caught.value)
    assert says in str(caught.value)


def test_a_line_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"f\.toml:\d+: .*media\.ports"):
        load(tmp_path, text.replace('ports = "20000-23999"', 'ports = "9-8"'))


def test_the_line_is_the_one_meant_or_none(tmp_path: Path, text: str) -> None:
    lines = text.splitlines()
    second = [i for i, line in enumerate(lines, 1) if line.startswith("side = ")][1]
    with pytest.raises(ConfigError, match=rf"f\.toml:{second}: peer\[1\]\.side"):
        load(tmp_path, text.replace('side = "agent"', 'side = "agnet"'))
    with pytest.raises(ConfigError, match=r"f\.toml: route\.from"):
        load(tmp_path, text.replace('from = "pbx"', 'from = "nobody"'))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config_file.load(str(tmp_path / "none.toml"))


def test_no_secret_is_echoed(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text + "\ntoken = 'hunter2\n")
    assert "hunter2" not in str(caught.value)


GATEWAYS = Path(__file__).parents[2] / "docs" / "gateways.md"


def blocks(table: str) -> list[str]:
    """The tables of that name in docs/gateways.md, as they stand there."""
    found, now = [], None
    for line in [*GATEWAYS.read_text().splitlines(), "end"]:
        if line.startswith("    ["):
            if now:
                found.append("\n".join(now))
            now = [line[4:]] if line.strip().startswith(table) else None
        elif now is not None and line.startswith("    "):
            now.append(line[4:])
        elif now is not None and line.strip():
            found.append("\n".join(now))
            now = None
    return found


def files(tmp_path: Path, text: str) -> str:
    """`text` with the files of /etc/flattone that it names made."""
    text = text.replace("/etc/flattone/", f"{tmp_path}/made/")
    for name in re.findall(rf'"({re.escape(str(tmp_path))}/made/[^"]+)"', text):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".wav"):
            wav.write(name, np.zeros(800, np.int16))
        else:
            Path(name).write_text("user:sixteen-characters-or-more")
    return text


def test_every_gateway_of_the_documentation_is_configured_in_ten_lines(tmp_path: Path, text: str) -> None:
    gateways = blocks("[[gateway]]")
    assert len(gateways) == 4
    for block in gateways:
        block = block.replace('"merchant"', '"other"', 1)
        lines = [line for line in block.splitlines() if line.strip()]
        assert len(lines) <= 10, block
        loaded = load(tmp_path, text + "\n" + files(tmp_path, block))
        assert len(loaded.gateways) == 2


def test_fields_templates_prompts_and_receipts_of_the_documentation_hold(tmp_path: Path, text: str) -> None:
    more = blocks("[[field]]") + blocks("[[template]]") + blocks("[prompts.en]") + blocks("[[webhook]]")
    assert len(more) == 4
    bank = '[[field]]\nname = "sort-code"\nleast = 6\nmost = 6\n' + blocks("[[gateway]]")[1].replace(
        "stripe", "bank", 1
    )
    bank = bank.replace('kind = "stripe"', "")
    route = "\n".join(line for line in blocks("[[route]]")[0].splitlines()[1:] if line != "record = true")
    made = text.replace('gateway = "merchant"\nfields', f'gateway = "merchant"\n{route}\nfields', 1)
    loaded = load(tmp_path, files(tmp_path, made + "\n" + bank + "\n" + "\n".join(more)))
    assert loaded.routes[0].speech == "announced"
    assert loaded.templates[0].fields == ("sort-code", "account")


BROWSERS = """
[agent.websocket]
listen = "192.0.2.20:7443"
certificate = "/etc/flattone/api.pem"
key = "/etc/flattone/api.key"
origins = ["https://crm.example.com"]

[[peer]]
name = "browsers"
side = "agent"
registered = true

[[phone]]
number = "204"
password_file = "/etc/flattone/password"
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[agent.websocket]", "[trunk.websocket]", "trunk.websocket"),
        (':7443"', '"', "agent.websocket.listen"),
        ("/api.pem", "/nonexistent.pem", "agent.websocket.certificate"),
        ("/api.key", "/password", "agent.websocket.key"),
        ('"https://crm.example.com"', '"crm"', "agent.websocket.origins"),
        ("registered = true", 'registered = true\naddress = "192.0.2.7"', "peer.registered"),
        ("registered = true", 'registered = true\nsrtp = "required"', "peer.srtp"),
        ("registered = true", 'registered = true\ncodecs = ["opus", "opus"]', "peer.codecs"),
        ("registered = true", 'registered = true\ncodecs = ["speex"]', "opus"),
        ("registered = true", 'registered = true\ntenant = "acme"', "peer.tenant"),
        ("registered = true", "registered = false", "peer.address"),
        ('number = "204"', 'number = "2 04"', "phone.number"),
        ('number = "204"', 'number = "204"\ntenant = "acme"', "phone.tenant"),
        ("/password", "/nonexistent", "phone.password_file"),
        ("/password", "/short", "phone.password_file"),
        ("[[phone]]", '[[phone]]\nnumber = "204"\npassword_file = "/etc/hostname"\n[[phone]]', "phone."),
        ("[[peer]]", '[[peer]]\nname = "more"\nside = "agent"\nregistered = true\n[[peer]]', "one peer a tenant"),
    ],
)
def test_every_mistake_about_browsers_is_named(tmp_path: Path, text: str, old: str, new: str, says: str) -> None:
    (tmp_path / "password").write_text("long enough")
    (tmp_path / "short").write_text("short")
    more = BROWSERS.replace("/etc/flattone/", f"{tmp_path}/")
    loaded = load(tmp_path, text + more)
    assert loaded.agent.websocket is not None
    assert loaded.phones[0].number == "204"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text + more.replace(old, new, 1))
    assert says in str(caught.value)


def test_the_ten_lines_of_a_registered_browser_hold(tmp_path: Path, text: str) -> None:
    document = EXAMPLE.parents[1] / "docs" / "webrtc.md"
    block = next(part for part in document.read_text().split("```toml\n")[1:]).partition("```")[0]
    assert len([line for line in block.splitlines() if line.strip()]) <= 12  # ten, and two heads of tables
    (tmp_path / "jssip.js").write_text("")
    block = block.replace("/usr/share/flattone/", f"{tmp_path}/")
    for name, made in (("phones.pem", "api.pem"), ("phones.key", "api.key")):
        block = block.replace(f"/etc/flattone/{name}", f"{tmp_path}/{made}")
    tables, _, script = block.partition("[api]")
    api = "[api]\n" + script.partition("\n")[2]
    loaded = load(tmp_path, text.replace("[api]\n", api, 1) + "\n" + tables)
    assert loaded.peers[-1].registered
    assert loaded.api.phone_script


PAY = """
[[field]]
name = "account"
least = 6
most = 10

[[template]]
name = "debit"
fields = ["account"]

[[gateway]]
name = "second"
url = "https://x.example.com/t"
bearer_file = "/etc/flattone/second"
body = { a = "{account}", p = "{pan}", e = "{expiry.month}", c = "{cvv}" }

[[webhook]]
name = "crm"
url = "https://x.example.com/h"
secret_file = "/etc/flattone/secret"

[prompts.en]
pan = "/etc/flattone/pan.wav"
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "account"', 'name = "cvv"', "field.name"),
        ('name = "account"', 'name = "Account Number"', "field.name"),
        ("most = 10", "most = 5", "field.least"),
        ("most = 10", "most = 99", "field.least"),
        ("most = 10", 'most = 10\ncheck = "crc"', "none, luhn, mod97"),
        ("most = 10", "most = 10\nseconds = nan", "field.seconds"),
        ('fields = ["account"]', 'fields = ["account", "account"]', "template.fields"),
        ('fields = ["account"]', "fields = []", "template.fields"),
        ('fields = ["account"]', 'fields = ["account"]\ngateway = "third"', "template.gateway"),
        ('"{account}"', '"{acount}"', "gateway.body"),
        ('"{expiry.month}"', '"{expiry.day}"', "gateway.body"),
        ('"{expiry.month}"', '"{pan.month}"', "gateway.body"),
        ('body = { a = "{account}", p = "{pan}", e = "{expiry.month}", c = "{cvv}" }', 'body = { a = "x" }', "gateway.body"),
        ('name = "second"', 'name = "second"\nkind = "paypal"', "rest, stripe, vgs, basis-theory"),
        ('name = "second"', 'name = "second"\nkind = "stripe"', "gateway.body"),
        ('name = "second"', 'name = "second"\nstandby = "second"', "gateway.standby"),
        ('name = "second"', 'name = "second"\nretries = 99', "gateway.retries"),
        ('name = "second"', 'name = "second"\nheaders = { "X:Y" = "1" }', "gateway.headers"),
        ('name = "second"', 'name = "second"\nheaders = { "X-Y" = "a\\nb" }', "gateway.headers"),
        ('name = "second"', 'name = "second"\nheaders = { "Content-Length" = "5" }', "gateway.headers"),
        ('name = "second"', 'name = "second"\nheader_files = { "X-Y" = "/nonexistent" }', "gateway.header_files"),
        ('name = "second"', 'name = "second"\nbasic_file = "/etc/flattone/second"', "gateway.basic_file"),
        ('"{pan}"', '"{pan"', "gateway.body: a brace"),
        ('"{cvv}"', '"int:{cvv}"', "gateway.body: int"),
        ('"{pan}"', '"{expiry_year}"', "gateway.body: a brace"),
        ('name = "account"', 'name = "muted"', "field.name"),
        ('name = "second"', 'name = "second"\ntoken = ""', "gateway.token"),
        ('name = "second"', 'name = "second"\nca_file = "/etc/flattone/second"', "gateway.ca_file"),
        ('name = "second"', 'name = "second"\nerrors = { a = "stolen" }', "declined, invalid-field"),
        ('https://x.example.com/h"', 'http://x.example.com/h"', "webhook.url"),
        ('secret_file = "/etc/flattone/secret"', 'secret_file = "/nonexistent"', "webhook.secret_file"),
        ('pan = "', 'pin = "', "prompts"),
        ('pan = "/etc/flattone/pan.wav"', 'pan = "/nonexistent.wav"', "prompts.pan"),
        ('record = true', 'record = true\ntemplates = ["debits"]', "route.templates"),
        ('record = true', 'record = true\nprompts = "de"', "route.prompts"),
        ('record = true', "record = true\nprompts_to_agent = true", "route.prompts_to_agent"),
        ('record = true', 'record = true\nprompts = "en"\nspeech = "announced"', "route.speech"),
        ('record = true', "mute_recording = true", "route.mute_recording"),
        ('record = true', 'record = true\nwebhook = "erp"', "route.webhook"),
        ('record = true', 'record = true\nstart = "ring"', "api, answer"),
        ("auto_submit = true", "auto_submit = true\ntries = 0", "capture.tries"),
        ("auto_submit = true", 'auto_submit = true\nexpiry = "DDMM"', "MMYY, YYMM, MMYYYY"),
        ("auto_submit = true", "auto_submit = true\npause_seconds = 0", "capture.pause_seconds"),
    ],
)  # fmt: skip
def test_every_mistake_about_payments_is_named(tmp_path: Path, text: str, old: str, new: str, says: str) -> None:
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    made = files(tmp_path, text + PAY)
    load(tmp_path, made)
    new = new.replace("/etc/flattone/", f"{tmp_path}/made/")
    old = old.replace("/etc/flattone/", f"{tmp_path}/made/")
    assert old in made
    with pytest.raises(ConfigError, match=r".") as caught:
        load(tmp_path, made.replace(old, new, 1))
    assert says in str(caught.value), caught.value


@pytest.mark.parametrize(
    ("kind", "fields", "good"),
    [
        ("vgs", '["pan"]', True),
        ("vgs", '["pan", "cvv"]', False),
        ("stripe", '["pan", "expiry", "cvv"]', True),
        ("stripe", '["expiry"]', False),
        ("stripe", '["pan", "account"]', False),
        ("basis-theory", '["pan", "expiry"]', True),
        ("rest", '["pan", "account"]', True),
    ],
)
def test_nothing_is_asked_of_a_caller_that_the_gateway_does_not_take(
    tmp_path: Path, text: str, kind: str, fields: str, good: bool
) -> None:
    pay = PAY.replace('body = { a = "{account}", p = "{pan}", e = "{expiry.month}", c = "{cvv}" }', f'kind = "{kind}"')
    made = files(tmp_path, text + pay)
    made = made.replace(
        'gateway = "merchant"\nfields = ["pan", "expiry", "cvv"]', f'gateway = "second"\nfields = {fields}'
    )
    assert f"fields = {fields}" in made
    if good:
        load(tmp_path, made)
    else:
        with pytest.raises(ConfigError, match=r"route\.fields: gateway second"):
            load(tmp_path, made)


@pytest.mark.parametrize(
    ("key", "content", "good"),
    [
        ("bearer_file", "sk_live_x\n", True),
        ("bearer_file", "", False),
        ("bearer_file", "two words", False),
        ("bearer_file", "two\nlines", False),
        ("bearer_file", "schlüssel", False),
        ("basic_file", "user:word", True),
        ("basic_file", "user", False),
        ("header_files", "anything goes", True),
        ("header_files", " \n", False),
    ],
)
def test_credentials_that_cannot_be_used_are_found_before_the_first_card(
    tmp_path: Path, text: str, key: str, content: str, good: bool
) -> None:
    made = files(tmp_path, text + PAY)
    secret = tmp_path / "made" / "second"
    if key == "header_files":
        made = made.replace(f'bearer_file = "{secret}"', f'header_files = {{ "X-Key" = "{secret}" }}')
    elif key == "basic_file":
        made = made.replace(f'bearer_file = "{secret}"', f'basic_file = "{secret}"')
    (tmp_path / "f.toml").write_text(made)
    secret.write_text(content)
    assert cli.main(["check-config", str(tmp_path / "f.toml")]) == (0 if good else 2)
    load(tmp_path, made)  # while serving only the vault opens it
