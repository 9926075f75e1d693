"""The audit log: lines that are chained, and `flattone verify`, which names what was altered or is missing."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mediaproxy import chain
from mediaproxy.agent.audit import Audit, Unwritten, _place
from mediaproxy.config import AuditConfig, Config, RouteConfig, SideConfig, TenantConfig
from mediaproxy.verify import command as verify

SIDE = SideConfig(sip_listen="127.0.0.1:5060", rtp_address="127.0.0.1")
ROUTES = (
    RouteConfig(name="in", origin="a", target="b"),
    RouteConfig(name="acme-in", origin="a", target="b", tenant="acme"),
)


def config(directory: Path, **settings: Any) -> Config:
    return Config(
        trunk=SIDE, agent=SIDE, peers=(), routes=ROUTES, tenants=(TenantConfig(name="acme"),),
        audit=AuditConfig(directory=str(directory), **settings),
    )  # fmt: skip


def written(directory: Path, lines: int = 6) -> Path:
    """A log of `lines` lines."""
    audit = Audit(config(directory))
    for i in range(lines - 1):
        audit.write("", "ann", "idp", "capture-start", "ok", call=f"c{i}", number="204")
    audit.close()
    return directory / "audit.jsonl"


def verified(capsys: pytest.CaptureFixture[str], *paths: Path, anchors: Path | None = None) -> tuple[int, str]:
    capsys.readouterr()
    code = verify.run([str(p) for p in paths], [str(anchors)] if anchors else [])
    return code, capsys.readouterr().out


def test_lines_say_who_did_what_when_and_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["seq"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[0]["action"] == "started"
    assert {"who", "by", "action", "result", "call", "number", "at", "configuration", "version"} <= set(lines[1])
    code, out = verified(capsys, path)
    assert code == 0
    assert out.startswith(f"fine        {path}: lines 1 to 6 of audit (flattone-audit seq=6 hash=")
    assert verified(capsys, tmp_path)[0] == 0


def test_every_byte_that_is_changed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path)
    data = path.read_bytes()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        path.write_bytes(changed)
        code, out = verified(capsys, path)
        assert code == 1, at
        assert f"line {data[:at].count(10) + 1} " in out or (data[at] == 10 and "line" in out), (at, out)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines[:2] + lines[3:], "1 line(s) before it are missing"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "line 2"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], "does not follow"),
        (lambda lines: lines[1:], "lines 1 to 1 of audit are not here"),
        (lambda lines: [*lines, b'{"seq":7,"who":"x"}\n'], "line 7 is no line of a chain"),
        (lambda lines: [*lines, b"\n"], "line 7"),
        (lambda _: [], "is empty"),
    ],
)
def test_lines_that_are_missing_swapped_repeated_or_added_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, says: str
) -> None:
    path = written(tmp_path)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    code, out = verified(capsys, path)
    assert code == 1
    assert says in out


def test_a_chain_made_anew_and_a_tail_cut_off_show_against_anchors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The anchors come by syslog: here to a socket whose datagrams are written to a file, as a syslog server does."""
    kept = tmp_path / "syslog"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(2)
        (tmp_path / "a").mkdir()
        audit = Audit(config(tmp_path / "a", syslog=f"127.0.0.1:{server.getsockname()[1]}"))
        for i in range(5):
            audit.write("acme" if i % 2 else "", "ann", "idp", "release", "ok", call=f"c{i}")
        audit.close()
        told = [server.recv(2000).decode() for _ in range(6)]
    assert all(line.startswith("<109>1 ") for line in told)  # RFC 5424: facility 13, severity 5, version 1
    kept.write_text("\n".join(told))
    path, acme = tmp_path / "a" / "audit.jsonl", tmp_path / "a" / "audit-acme.jsonl"
    assert verified(capsys, tmp_path / "a", anchors=kept)[0] == 0
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert verified(capsys, path)[0] == 0  # the chain alone cannot know
    code, out = verified(capsys, path, anchors=kept)
    assert code == 1
    assert "lines 4 to 4 of audit were anchored and are not here" in out
    link, forged = chain.Link(), b""
    for line in whole.splitlines():
        entry = {k: v for k, v in json.loads(line).items() if k not in ("seq", "previous", "hash")}
        line, link = chain.append(link, entry | {"who": "nobody"})
        forged += line
    path.write_bytes(forged)
    assert verified(capsys, path)[0] == 0
    code, out = verified(capsys, path, anchors=kept)
    assert code == 1
    assert "line number 1 is not the one that was anchored" in out
    assert verified(capsys, acme, anchors=kept)[0] == 0
    assert verified(capsys, acme, anchors=acme)[0] == 2  # no anchors in it


def test_what_verify_has_said_is_an_anchor_and_a_middle_or_a_whole_log_that_is_gone_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, 3)
    for part in (1, 2):
        path.rename(tmp_path / f"audit.jsonl.{part}")
        audit = Audit(config(tmp_path))
        audit.write("acme", "ann", "idp", "guard", "ok")
        audit.close()
    kept = tmp_path / "kept"
    kept.write_text(verified(capsys, tmp_path)[1])
    with gzip.open(tmp_path / "audit.jsonl.1.gz", "wb") as packed:
        packed.write((tmp_path / "audit.jsonl.1").read_bytes())
    (tmp_path / "audit.jsonl.1").unlink()
    assert verified(capsys, tmp_path, anchors=kept)[0] == 0  # compressed ones are read too
    (tmp_path / "audit.jsonl.1.gz").rename(tmp_path / "away")
    code, out = verified(capsys, tmp_path, anchors=kept)
    assert code == 0
    assert "what was before number 4 is elsewhere" in out
    (tmp_path / "away").rename(tmp_path / "audit.jsonl.1.gz")
    (tmp_path / "audit.jsonl.2").unlink()
    code, out = verified(capsys, tmp_path, anchors=kept)
    assert code == 1
    assert "lines 4 to 4 of audit are not here" in out
    (tmp_path / "audit-acme.jsonl").unlink()
    code, out = verified(capsys, tmp_path, anchors=kept)
    assert code == 1
    assert "audit-acme.jsonl: was anchored and is not here" in out


def test_folders_of_two_machines_are_two_chains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for machine in ("a", "b"):
        (tmp_path / machine).mkdir()
        written(tmp_path / machine)
    assert verified(capsys, tmp_path)[0] == 0


@pytest.mark.parametrize("bit", [1, 64, 128])
def test_any_octet_that_is_no_text_is_named_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bit: int
) -> None:
    path = written(tmp_path)
    data = bytearray(path.read_bytes())
    at = len(data) - 150
    data[at] ^= bit
    path.write_bytes(data)
    assert verified(capsys, path)[0] == 1
    audit = Audit(config(tmp_path))
    with pytest.raises(Unwritten):
        audit.write("", "ann", "idp", "guard", "ok")
    assert [e["seq"] for e in audit.entries("", 0, 10)] == [1, 2, 3, 4, 5]
    audit.close()


def test_a_page_of_a_large_log_is_found_without_reading_all_of_it(tmp_path: Path) -> None:
    audit = Audit(config(tmp_path))
    link = audit._file("").link
    lines = []
    for i in range(5000):
        line, link = chain.append(link, {"at": "", "who": "x" * (i % 90), "by": "", "action": "a", "result": "ok"})
        lines.append(line)
    path = tmp_path / "audit.jsonl"
    with path.open("ab") as file:
        file.writelines(lines)
    for after in (0, 1, 2, 700, 2500, 4999, 5000, 5001, 9000):
        found = [e["seq"] for e in audit.entries("", after, 3)]
        assert found == [n for n in range(after + 1, after + 4) if n <= 5001]
        if 1500 < after < 9000:
            with path.open("rb") as file:
                assert _place(file, after) > path.stat().st_size * after / 5001 * 0.7
    audit.close()


def test_the_chain_goes_on_over_restarts_and_rotation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, 3)
    path.rename(tmp_path / "audit.jsonl.1")  # while nothing runs
    audit = Audit(config(tmp_path))
    audit.write("", "ann", "idp", "guard", "ok")
    path.rename(tmp_path / "audit.jsonl.2")  # while it runs
    audit.write("", "ann", "idp", "guard", "ok")
    audit.close()
    code, out = verified(capsys, tmp_path)
    assert code == 0, out
    assert "lines 6 to 6 of audit" in out
    (tmp_path / "audit.jsonl.1").unlink()
    code, out = verified(capsys, tmp_path)
    assert code == 1
    assert "lines 1 to 3 of audit are not here" in out
    begin = chain.read((tmp_path / "audit.jsonl.2").read_bytes().splitlines()[0])[0]
    (tmp_path / "kept").write_text(chain.anchor("audit", begin))
    assert verified(capsys, tmp_path, anchors=tmp_path / "kept")[0] == 0  # what was archived is vouched for elsewhere


def test_a_change_of_the_configuration_is_written_down(tmp_path: Path) -> None:
    for settings, said in (({}, "first"), ({}, "same"), ({"port_rest_seconds": 7.0}, "changed"), ({}, "changed")):
        if said == "changed":  # also where the file was moved away meanwhile
            (tmp_path / "audit.jsonl").rename(tmp_path / f"audit.jsonl.{len(settings)}")
        made = config(tmp_path)
        audit = Audit(msgspec.structs.replace(made, media=msgspec.structs.replace(made.media, **settings)))
        audit.close()
        last = json.loads((tmp_path / "audit.jsonl").read_bytes().splitlines()[-1])
        assert (last["action"], last["result"]) == ("started", said)


def test_a_line_that_was_being_written_when_the_machine_stopped_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    audit = Audit(config(tmp_path))
    audit.close()
    assert verified(capsys, path)[0] == 0
    assert path.read_bytes().splitlines()[:5] == whole.splitlines()[:5]


def test_a_broken_log_is_not_written_on_and_nothing_is_done(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"ann", b"eve"))
    before = path.read_bytes()
    audit = Audit(config(tmp_path))
    with pytest.raises(Unwritten):
        audit.write("", "ann", "idp", "release", "ok")
    assert audit.failed == 2  # the start, and this
    assert path.read_bytes() == before


def test_a_full_disk_leaves_no_half_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a process whose files may not grow beyond a limit, which is how a full disk looks to write(2)."""
    script = f"""
import resource, signal, sys
from pathlib import Path
from mediaproxy import log
from mediaproxy.agent.audit import Audit, Unwritten, _place
from tests.unit.test_audit import config
log.configure("t")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
audit = Audit(config(Path({str(tmp_path)!r})))
done = 0
try:
    while done < 100:
        audit.write("", "ann", "idp", "release", "ok")
        done += 1
except Unwritten:
    print(done)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = (tmp_path / "audit.jsonl").read_bytes().splitlines()
    assert len(lines) == int(done.stdout) + 1 < 20
    assert verified(capsys, tmp_path)[0] == 0
    assert "audit-not-written" in done.stderr


def test_two_writers_would_fork_the_chain_and_the_second_is_refused(tmp_path: Path) -> None:
    first = Audit(config(tmp_path))
    second = Audit(config(tmp_path))
    with pytest.raises(Unwritten):
        second.write("", "ann", "idp", "release", "ok")
    second.close()
    first.write("", "ann", "idp", "release", "ok")
    first.close()


def test_each_tenant_has_a_file_of_its_own(tmp_path: Path) -> None:
    audit = Audit(config(tmp_path))
    audit.system("passthrough", "acme-in", call="call-one")
    audit.write("", "ann", "idp", "release", "ok", call="call-two")
    audit.close()
    assert b"call-one" not in (tmp_path / "audit.jsonl").read_bytes()
    assert b"call-two" not in (tmp_path / "audit-acme.jsonl").read_bytes()
    assert [e["call"] for e in audit.entries("acme", 0, 10)] == ["call-one"]


def test_who_has_accepted_the_notice_outlasts_a_restart(tmp_path: Path) -> None:
    audit = Audit(config(tmp_path))
    audit.accept("acme", "ann", "idp")
    audit.close()
    again = Audit(config(tmp_path))
    again.close()
    assert again.accepted("acme", "ann", "idp")
    assert not again.accepted("", "ann", "idp")
    assert not again.accepted("acme", "ann", "other")
