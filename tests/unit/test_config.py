"""The configuration: every mistake is told by file, line, key and what is allowed."""

from pathlib import Path

import pytest

from mediaproxy import config, config_file
from mediaproxy.demo import certificates
from mediaproxy.errors import ConfigError

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
