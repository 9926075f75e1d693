"""`flattone scan` and `verify` as QA uses them: archives, stops, clusters, reports, what is done with dirty files."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from dsp import synth
from mediaproxy.demo import certificates
from mediaproxy.scan import files, sample
from mediaproxy.scan.look import Options, look
from tests.fixtures import browser, recorded


def flattone(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mediaproxy", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=110, **more,
    )  # fmt: skip


def scan(*arguments: object, **more: Any) -> tuple[int, dict[str, Any]]:
    done = flattone("scan", "--json", *arguments, **more)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def states(document: dict[str, Any]) -> dict[str, str]:
    return {Path(result["path"]).name: result["state"] for result in document["results"]}


def audio(kind: str, seconds: float = 12, seed: int = 0) -> Any:
    """A line of the caller's: dirty with 16 keys, suspect with two residues of 5 ms, or clean."""
    rng = np.random.default_rng(seed)
    line = recorded.quiet(round(seconds * 8000), seed)
    if kind == "dirty":
        presses = [synth.Press(int(rng.integers(16)), 80, -15) for _ in range(16)]
        keyed, _ = synth.keying(presses, rng, noise_dbm0=-90)
        line[8000 : 8000 + len(keyed)] += keyed
    if kind == "suspect":
        for at in (20_000, 44_000):
            tone = synth.tone_pair(synth.Press(int(rng.integers(16)), 5, -20))
            line[at : at + len(tone)] += tone
    return np.stack([line, recorded.quiet(len(line), seed + 1000)])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two folders, three of each kind of file, of several forms."""
    root = tmp_path / "archive"
    for folder, forms in (("2026-01", ("wav-ulaw", "mp3", "flac")), ("2026-02", ("wav-pcm16", "ogg-opus", "wav-alaw"))):
        (root / folder).mkdir(parents=True)
        for kind, form in zip(("dirty", "suspect", "clean"), forms, strict=True):
            if form in ("mp3", "ogg-opus"):
                form = "wav-ulaw"  # a codec blurs what is left of a key
            path = recorded.write(root / folder, form, audio(kind))
            path.rename(path.with_name(f"{kind}{path.suffix}"))
    return root


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


# What is found


def test_folders_globs_files_and_urls_give_the_same(archive: Path) -> None:
    expected = {"clean": 2, "suspect": 2, "dirty": 2, "unreadable": 0, "passed over": 0}
    for places in ([archive], [f"file://{archive}/**/*.*"]):
        code, document = scan("--no-plant", *places)
        assert code == 1
        assert {state: document["coverage"][state] for state in expected} == expected, places
    names = sorted(map(str, archive.rglob("*.*")))
    for places in (
        [archive], [archive / "2026-01", archive / "2026-02"], [f"{archive}/**/*.*"], names, [f"file://{archive}"],
        [archive, archive / "2026-01"], [*names, *names],
    ):  # fmt: skip
        found = list(files.find(list(map(str, places))))
        assert sorted(place.path.removeprefix("file://") for place in found) == names
        assert {place.stamp for place in found if "file://" not in place.path} <= {
            files.stamp(Path(name).stat()) for name in names
        }


def test_an_object_store_is_read_by_its_url(archive: Path, tmp_path: Path) -> None:
    """A store that is not the file system: a ZIP archive, as fsspec reads it."""
    packed = tmp_path / "archive.zip"
    subprocess.run([sys.executable, "-m", "zipfile", "-c", packed, archive / "2026-01"], check=True)
    code, document = scan("--no-plant", f"zip://**/*.*::file://{packed}")
    assert code == 1
    assert sorted(result["state"] for result in document["results"]) == ["clean", "dirty", "suspect"]
    code, document = scan(f"zip://none.wav::file://{packed}")
    assert (code, document["results"][0]["reason"]) == (2, "there is no such file")
    code, document = scan("nothing://bucket/x")
    assert (code, document["coverage"]["unreadable"]) == (2, 1)


def test_links_are_followed_once_and_loops_and_dead_ones_told(archive: Path, tmp_path: Path) -> None:
    (archive / "loop").symlink_to(archive)
    (archive / "dead.wav").symlink_to(tmp_path / "nothing")
    (archive / "again").symlink_to(archive / "2026-01")
    (archive / "self.wav").symlink_to(archive / "self.wav")
    (archive / "copy.wav").symlink_to(archive / "2026-01" / "dirty.wav")
    code, document = scan("--no-plant", archive)
    assert code == 2
    why = {Path(r["path"]).name: r["reason"] for r in document["results"] if r["reason"]}
    assert why == {"loop": "a loop of links", "dead.wav": "a link to nothing", "self.wav": "a loop of links"}
    assert document["coverage"]["found"] == 6 + 3


def test_names_that_would_steer_a_terminal_a_page_or_a_table_do_not(archive: Path, tmp_path: Path) -> None:
    names = [b"new\nline.wav", b"\x1b[2Jclear.wav", b"=cmd().wav", b"<script>alert(1)</script>.wav", b"\xff\xfe.wav"]
    data = (archive / "2026-01" / "dirty.wav").read_bytes()
    folder = tmp_path / "names"
    folder.mkdir()
    for name in names:
        (folder / os.fsdecode(name.replace(b"/", b"_"))).write_bytes(data)
    done = flattone("scan", "--no-plant", ".", "--report", tmp_path / "report", cwd=folder)
    assert done.returncode == 1, done.stderr
    assert "\x1b" not in done.stdout
    assert "new\\nline.wav" in done.stdout
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    with (tmp_path / "report" / "report.csv").open() as file:
        cells = [row["path"] for row in csv.DictReader(file)]
    assert len(cells) == 5
    assert not [cell for cell in cells if cell[0] in "=+-@"]
    assert flattone("verify", tmp_path / "report").returncode == 0


@contextlib.contextmanager
def nobody(path: Path) -> Iterator[None]:
    """As a user without rights, who can come to `path`: pytest's folders are for their owner alone."""
    if os.geteuid() != 0:
        yield
        return
    for above in path.parents:
        if above.stat().st_mode & 0o001 == 0:
            above.chmod(above.stat().st_mode | 0o011)
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_what_may_not_be_read_is_told(archive: Path) -> None:
    archive.chmod(0o755)
    for path in archive.rglob("*"):
        path.chmod(0o755)
    assert look(str(archive / "2026-01" / "suspect.wav"), Options(None)).state == "suspect"  # all is loaded now
    (archive / "2026-01" / "dirty.wav").chmod(0)
    (archive / "2026-02").chmod(0)
    with nobody(archive):
        found = {Path(p.path).name: p.trouble or look(p.path, Options(None)).reason for p in files.find([str(archive)])}
    (archive / "2026-02").chmod(0o755)
    assert found.pop("dirty.wav") == "no permission to read it"
    assert found.pop("2026-02") == "no permission to read this folder"
    assert list(found.values()) == ["", ""]


def test_nothing_to_scan_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    for arguments in ([tmp_path], [tmp_path / "none*"]):
        assert flattone("scan", *arguments).returncode == 2
    recorded.write(tmp_path, "wav-ulaw", audio("dirty"))
    (tmp_path / "taken").write_text("")
    for late in (["--report", "/proc/x"], ["--report", tmp_path / "taken"], ["--quarantine", tmp_path / "in"]):
        done = flattone("scan", tmp_path, "--quarantine", tmp_path.parent / "q", *late)
        assert done.returncode == 2
        assert (tmp_path / "wav-ulaw.wav").exists()  # told before anything was moved
    for wrong in (["--seed", "-1"], ["--workers", "0"], ["--bound", "2"], ["--sign", "x"], ["--state", "/dev/null/x"]):
        assert flattone("scan", tmp_path, *wrong).returncode == 2


# Work that stops, and goes on


def test_a_stopped_scan_goes_on_where_it_was(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    root.mkdir()
    for i in range(24):
        path = recorded.write(root, "wav-ulaw", audio("dirty" if i % 4 == 0 else "clean", 60, i))
        path.rename(root / f"{i:02d}.wav")
    state = tmp_path / "state"
    command = [sys.executable, "-m", "mediaproxy", "scan", root, "--state", state, "--workers", "1"]
    first = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what a shell starts behind itself ignores it
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while (state.read_bytes().count(b"\n") if state.exists() else 0) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=30)
    assert first.returncode == 2
    assert "goes on from here" in said
    done = state.read_bytes().count(b"\n") - 1
    assert 4 <= done < 24
    with state.open("ab") as file:
        file.write(b'{"path": "torn')
    before = state.stat().st_mtime_ns
    code, document = scan(root, "--state", state)
    assert code == 1
    assert document["coverage"]["dirty"] == 6
    assert document["coverage"]["found"] == len(document["results"]) == 24
    assert state.stat().st_mtime_ns > before
    assert state.read_bytes().count(b"\n") == 25
    assert scan(root, "--no-plant")[1]["coverage"] == document["coverage"]
    again = flattone("scan", root, "--state", state, "--no-plant")
    assert again.returncode == 2
    assert "of another version of flattone or other options" in again.stderr
    other = tmp_path / "other"
    other.write_text("something\n")
    assert "is no state of a scan" in flattone("scan", root, "--state", other).stderr


def test_a_file_that_has_changed_since_is_scanned_again(archive: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    scan(archive, "--state", state)
    changed = archive / "2026-01" / "clean.flac"
    as_it_was = changed.stat()
    with changed.open("r+b") as file:  # of the same length
        file.seek(0)
        file.write(b"\0" * as_it_was.st_size)
    _, document = scan(archive, "--state", state)
    assert document["coverage"]["unreadable"] == 1


def test_a_process_that_dies_takes_one_file_with_it(archive: Path, tmp_path: Path) -> None:
    """FFmpeg reads what strangers wrote: whatever kills its process, the scan names the file and goes on."""
    code = f"""
import os, signal, sys
from mediaproxy.scan import pool
from mediaproxy.scan.look import Options
if __name__ == "__main__":
    paths = {sorted(map(str, archive.rglob("*.*")))}
    run = pool.run(paths, Options(None), 2)
    import multiprocessing, threading, time
    def kill():
        time.sleep(0.05)
        while not multiprocessing.active_children(): time.sleep(0.01)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGSEGV)
    threading.Thread(target=kill).start()
    for verdict in run: print(verdict.path.rsplit("/", 1)[1], verdict.state, verdict.reason)
"""
    script = tmp_path / "kill.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert sum("ended (SIGSEGV)" in line for line in lines) == 1


def test_a_process_that_hangs_is_ended_though_the_others_go_on(tmp_path: Path) -> None:
    """One of two is stopped with its file; it is given up while the other still has files to read."""
    for i in range(60):
        recorded.write(tmp_path, "wav-ulaw", audio("clean", 60, i)).rename(tmp_path / f"{i:02d}.wav")
    code = f"""
import multiprocessing, os, signal
from mediaproxy.scan import pool
from mediaproxy.scan.look import Options
if __name__ == "__main__":
    pool.SLOWEST = 1 << 30
    run = pool.run({sorted(map(str, tmp_path.glob("*.wav")))}, Options(1), 2)
    for number, verdict in enumerate(run):
        print(verdict.state, verdict.reason)
        if number == 4:
            pool.LONGEST = 2.0  # both have begun by now
        elif number == 8:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGSTOP)
        elif "took longer" in verdict.reason:
            pool.LONGEST = 300.0  # the next one has to begin
"""
    script = tmp_path / "hang.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=100, check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == 60
    (at,) = [number for number, line in enumerate(lines) if "took longer than" in line]
    assert at < 50


def test_any_number_of_workers_finds_the_same(archive: Path) -> None:
    found = []
    for workers in (1, 5):
        _, document = scan(archive, "--workers", workers)
        found.append(sorted(document["results"], key=lambda result: result["path"]))
    assert found[0] == found[1]


# A cluster


@pytest.fixture
def tls(tmp_path: Path) -> tuple[Path, Path, Path]:
    """(authority, certificate, key) that scheduler, workers and scan all show each other."""
    (tmp_path / "tls").mkdir()
    return certificates.make(tmp_path / "tls")


@pytest.fixture
def cluster(tls: tuple[Path, Path, Path], tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A scheduler and two workers of Dask under TLS, each a process; (address, options of `scan`)."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    ca, certificate, key = tls
    options = ["--tls-ca-file", ca, "--tls-cert", certificate, "--tls-key", key]
    mine = ["--dask-ca", str(ca), "--dask-cert", str(certificate), "--dask-key", str(key)]
    address = f"tls://127.0.0.1:{port}"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    python = [sys.executable, "-m"]
    home = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    running = [
        subprocess.Popen(
            [*python, "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard", "--no-show", *options],
            env=home, cwd=tmp_path, **quiet,
        )
    ]  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        running += [
            subprocess.Popen(
                [*python, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard",
                 "--host", "127.0.0.1", "--local-directory", tmp_path / f"worker-{i}", *options],
                env=home, cwd=tmp_path, **quiet,
            )
            for i in range(2)
        ]  # fmt: skip
        yield address, mine
    finally:
        for process in reversed(running):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def scan_when_ready(*arguments: object) -> tuple[int, dict[str, Any]]:
    """Scan once both workers have come."""
    deadline = time.monotonic() + 60
    while True:
        done = flattone("scan", "--json", *arguments)
        if done.stdout:
            return done.returncode, json.loads(done.stdout)
        assert "has no workers" in done.stderr, done.stderr
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_a_cluster_finds_exactly_what_one_process_finds_and_takes_no_stranger(
    archive: Path, cluster: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, options = cluster
    (archive / "2026-01" / "broken.wav").write_bytes(b"RIFF")
    code, there = scan_when_ready(archive, "--dask", address, *options)
    assert code == 2
    _, here = scan(archive, "--workers", 1)
    by_path = [sorted(document["results"], key=lambda result: result["path"]) for document in (here, there)]
    assert by_path[0] == by_path[1]
    (tmp_path / "stranger").mkdir()
    authority, certificate, key = certificates.make(tmp_path / "stranger")
    forged = ["--dask-ca", authority, "--dask-cert", certificate, "--dask-key", key]
    for wrong in ([], forged):
        done = flattone("scan", archive, "--dask", address, *wrong)
        assert done.returncode == 2
        assert "--dask" in done.stderr
    assert "no scheduler answers" in flattone("scan", archive, "--dask", "tcp://127.0.0.1:9").stderr


# Reports


def test_a_report_is_signed_and_every_changed_octet_named(
    archive: Path, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    from mediaproxy.verify import command as verify

    report = tmp_path / "report"
    code, _ = scan(archive, "--report", report, "--sign", keys[0])
    assert code == 1
    done = flattone("verify", report, "--key", keys[1], "--files")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("was scanned as it is") == 6
    rng = np.random.default_rng(4)
    for name in ("report.json", "report.html", "report.csv", "incidents.json"):
        whole = (report / name).read_bytes()
        for place in rng.integers(0, len(whole), 25):
            changed = bytearray(whole)
            changed[place] ^= 1 << int(rng.integers(8))
            (report / name).write_bytes(changed)
            assert verify.run([str(report)], key=str(keys[1])) in (1, 2), (name, place)
        (report / name).write_bytes(whole)
    recording = archive / "2026-01" / "clean.flac"
    data = bytearray(recording.read_bytes())
    data[-10] ^= 1
    recording.write_bytes(data)
    (archive / "2026-02" / "dirty.wav").unlink()
    (report / "report.csv").unlink()
    done = flattone("verify", report, "--files")
    assert done.returncode == 1
    assert f"altered     {recording}: is not what was scanned" in done.stdout
    assert f"missing     {archive / '2026-02' / 'dirty.wav'}" in done.stdout
    assert f"missing     {report / 'report.csv'}" in done.stdout
    assert flattone("verify", report / "report.json", "--key", tmp_path / "none").returncode == 2


def test_a_report_whose_first_file_was_spoilt_or_taken_away_is_told(archive: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    scan(archive, "--report", report)
    for part in ("report.html", "incidents.json"):
        assert flattone("verify", report / part).returncode == 0
    text = (report / "report.json").read_bytes()
    (report / "report.json").write_bytes(text.replace(b"flattone-scan-report/1", b"flattone-scan-reporT/1"))
    assert flattone("verify", report).returncode != 0
    (report / "report.json").unlink()
    (report / "beside").mkdir()
    recorded.write(report / "beside", "wav-ulaw", audio("clean"))
    done = flattone("verify", report)
    assert f"missing     {report / 'report.json'}" in done.stdout


def test_a_report_made_anew_does_not_pass_under_the_key(archive: Path, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    """Somebody edits a result, and everything that can be made again without the key."""
    from mediaproxy import signing

    report = tmp_path / "report"
    scan(archive, "--report", report, "--sign", keys[0])
    document = json.loads((report / "report.json").read_text())
    signature = document.pop("signature")
    for result in document["results"]:
        result["state"], result["findings"] = "clean", []
    (report / "report.json").write_bytes(signing.render({**document, "signature": signature}))
    assert flattone("verify", report, "--key", keys[1]).returncode == 1
    (report / "report.json").write_bytes(signing.render(document))
    done = flattone("verify", report, "--key", keys[1])
    assert done.returncode == 1
    assert "is not signed" in done.stdout
    assert "Merkle root" in flattone("verify", report).stdout


def test_a_report_tells_no_digit(tmp_path: Path) -> None:
    """The card number stands nowhere, and reports on other digits in the same rhythm differ in nothing that could tell."""
    told = []
    for digits in ("4000001234567899", "5111119876543210"):
        rng = np.random.default_rng(2)
        presses = [synth.Press("123A456B789C*0#D".index(d), 80, -15) for d in digits]
        line, _ = synth.keying(presses, rng, noise_dbm0=-60, lead_ms=1000)
        folder = tmp_path / digits[:1]
        folder.mkdir()
        recorded.write(folder, "wav-pcm16", line[None, :])
        scan(folder, "--report", tmp_path / f"report-{digits[:1]}")
        text = "".join((tmp_path / f"report-{digits[:1]}" / name).read_text() for name in (
            "report.json", "report.html", "report.csv", "incidents.json"))  # fmt: skip
        assert digits not in text
        assert digits[-4:] not in re.sub(r"[0-9a-f]{64}", "", text)
        results = json.loads((tmp_path / f"report-{digits[:1]}" / "report.json").read_text())["results"]
        told.append([(f["keys"], f["channel"], f["kind"], f["level"]) for f in results[0]["findings"]])
    assert told[0] == told[1]


def test_the_page_sorts_filters_and_prints(archive: Path, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    (archive / "2026-01" / "broken.wav").write_bytes(b"RIFF")
    report = tmp_path / "report"
    scan(archive, "--report", report, "--sign", keys[0])
    asyncio.run(look_at(report / "report.html"))


async def look_at(path: Path) -> None:
    """The page on screen, printed, dark and narrow; pictures go where people look at them."""
    async with browser.opened(viewport={"width": 1100, "height": 900}) as window:
        page = window.page
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(f"file://{path}")
        assert await page.inner_text("h1") == "2 file(s) hold keys that can be read; 1 could not be read"
        first = "#files tbody tr:first-child td:first-child"
        assert await page.inner_text(first) == "dirty"
        await page.click("#files th button:text('State')")
        await page.click("#files th button:text('State')")
        assert await page.inner_text(first) == "clean"
        assert await page.get_attribute("#files th:first-child", "aria-sort") == "descending"
        await page.click("#files th button:text('Keys')")
        script = "cells => cells.map(cell => +cell.dataset.v)"
        numbers = await page.eval_on_selector_all("#files tbody tr td:nth-child(6)", script)
        assert numbers == sorted(numbers, reverse=True)
        await page.fill("#filter", "2026-01")
        assert await page.inner_text("#shown") == "4 of 7 rows"
        assert await page.locator("svg").count() == 4
        wide = "document.documentElement.scrollWidth <= innerWidth"
        assert await page.evaluate(wide)
        await window.shot("scan-report")
        await page.emulate_media(media="print")
        assert not await page.is_visible("#filter")
        assert await page.locator("#files tbody tr:visible").count() == 7
        await page.pdf(path=browser.SHOTS / "scan-report.pdf", format="A4")
        await page.emulate_media(media="screen", color_scheme="dark")
        await page.set_viewport_size({"width": 380, "height": 800})
        assert await page.evaluate(wide)
        await window.shot("scan-report-dark")
        assert [url for url in asked if url != f"file://{path}"] == []


# Samples


def test_a_sample_is_drawn_by_seed_from_every_folder_and_says_what_it_shows(archive: Path) -> None:
    code, document = scan(archive, "--sample", 4, "--seed", 7, "--no-plant")
    plan = document["sampling"]
    assert code in (0, 1)
    assert (plan["population"], plan["size"], plan["seed"]) == (6, 4, 7)
    assert all(drawn in (1, 2, 3) for _, drawn in plan["strata"].values())
    assert document["coverage"]["found"] == 6
    assert len(document["results"]) == 4
    places = list(files.find([str(archive)]))
    again, _ = sample.draw(places, 4, 7, "folder", 0.95)
    assert sorted(place.path for place in again) == sorted(result["path"] for result in document["results"])
    assert scan(archive, "--bound", 0.5, "--no-plant")[1]["sampling"]["size"] == 5


@pytest.mark.parametrize("folders", ["even", "many small ones beside a large one"])
def test_samples_of_a_known_archive_are_right_as_often_as_they_say(folders: str) -> None:
    """Files of which 2 % are dirty, all of them where a lopsided draw would not look: the limit holds 95 times of 100."""
    if folders == "even":
        names = [f"/a/{i % 7}/{i}.wav" for i in range(5000)]
    else:
        names = [f"/a/small-{i}/{i}.wav" for i in range(1000)] + [f"/a/large/{i}.wav" for i in range(4000)]
    places = [files.Place(name) for name in names]
    rng = np.random.default_rng(1)
    dirty = {names[i] for i in rng.choice(np.arange(1000, 5000), 100, replace=False)}
    held, runs = 0, 300
    for seed in range(runs):
        drawn, plan = sample.draw(places, 299, seed, "folder", 0.95)
        assert len({place.path for place in drawn}) == plan.size == 299
        assert all(abs(n - 299 * there / 5000) <= 1 for there, n in plan.strata.values())
        held += sample.upper(sum(place.path in dirty for place in drawn), 299, 0.95) >= 0.02
    assert held >= 0.93 * runs
    assert sample.size_for(0.01, 0.95) == 299
    assert sample.upper(0, 299, 0.95) == pytest.approx(0.01, abs=1e-4)


# What is done with dirty files


def test_masked_copies_scan_clean_and_keep_the_rest(archive: Path, tmp_path: Path) -> None:
    import av

    for form in ("mp3", "ogg-opus", "mp4-aac", "wav-gsm"):
        recorded.write(archive, form, audio("dirty"))
    recorded.write(archive, "wav-pcm24", audio("dirty"), rate=44100)
    code, document = scan(archive, "--remask", tmp_path / "masked", "--suspects-too", "--no-plant")
    assert code == 1
    assert len(document["incidents"]) == 9
    for incident in document["incidents"]:
        (action,) = incident["actions"]
        assert action["state"] == "clean"
        with av.open(incident["path"]) as before, av.open(action["to"]) as after:
            old, new = before.streams.audio[0], after.streams.audio[0]
            assert (new.rate, new.channels) == (old.rate, old.channels)
    assert scan(tmp_path / "masked", "--no-plant")[0] == 0
    assert scan(archive, "--no-plant")[1]["coverage"]["dirty"] == 7  # the originals are where they were


def test_whatever_cannot_be_masked_or_moved_the_report_is_written(tmp_path: Path) -> None:
    """MP3 joined of mono and stereo, a name as long as names can be, and a capture: one does not stop the others."""
    root = tmp_path / "archive"
    root.mkdir()
    mono = recorded.write(root, "mp3", audio("dirty")[:1]).read_bytes()
    both = recorded.write(root, "mp3", audio("dirty"))
    both.write_bytes(mono + both.read_bytes())
    recorded.write(root, "wav-ulaw", audio("dirty")).rename(root / f"{'x' * 251}.wav")
    code, document = scan(root, "--remask", tmp_path / "m", "--quarantine", tmp_path / "q", "--report", tmp_path / "r")
    assert code in (1, 2)
    assert len(document["incidents"]) == 2
    assert (tmp_path / "r" / "report.json").exists()
    assert not list(root.iterdir())
    assert len(list((tmp_path / "q").glob("*.incident.json"))) == 2
    masked = [action for incident in document["incidents"] for action in incident["actions"] if "state" in action]
    assert masked
    for action in masked:
        path = Path(action["to"])
        assert path.stat().st_mode & 0o077 == 0


def test_quarantine_moves_what_is_dirty_with_a_note(archive: Path, tmp_path: Path) -> None:
    apart = tmp_path / "apart"
    code, document = scan(archive, "--quarantine", apart, "--report", tmp_path / "report")
    assert code == 1
    assert apart.stat().st_mode & 0o077 == 0
    assert not list(archive.rglob("dirty.*"))
    moved = sorted(path for path in apart.iterdir() if path.suffix != ".json")
    assert len(moved) == 2
    for path in moved:
        assert path.stat().st_mode & 0o077 == 0
        note = json.loads(path.with_name(path.name + ".incident.json").read_text())
        assert note["actions"][-1]["to"] == str(path)
        assert path.name.startswith(note["sha256"][:16])
        assert note["keys"] == 16
    incidents = json.loads((tmp_path / "report" / "incidents.json").read_text())["incidents"]
    assert len(incidents) == 4
    assert {i["state"]: len(i["actions"]) for i in incidents} == {"dirty": 1, "suspect": 0}
    assert all(i["versions"]["flattone"] and i["found"].endswith("Z") and i["where"] for i in incidents)
    assert document["coverage"]["dirty"] == 2


def test_a_link_leads_quarantine_to_the_file_and_other_names_hinder_it(tmp_path: Path) -> None:
    root, apart = tmp_path / "archive", tmp_path / "apart"
    root.mkdir()
    (root / "a-link.wav").symlink_to("z.wav")
    recorded.write(root, "wav-ulaw", audio("dirty")).rename(root / "z.wav")
    code, document = scan(root, "--quarantine", apart)
    assert code == 1
    assert document["coverage"]["dirty"] == 1
    assert not (root / "z.wav").exists()
    recorded.write(root, "wav-ulaw", audio("dirty")).rename(root / "b.wav")
    os.link(root / "b.wav", root / "c.wav")
    code, document = scan(root, "--quarantine", apart)
    assert code == 2
    (incident,) = document["incidents"]
    assert "other names" in incident["actions"][0]["failed"]
    assert (root / "b.wav").exists()
    assert (root / "b.wav").stat().st_mode & 0o044


def test_what_cannot_be_moved_stays_and_is_told(archive: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mediaproxy.scan import remask

    path = archive / "2026-01" / "dirty.wav"
    with pytest.raises(OSError, match="not what was scanned"):
        remask.quarantine(str(path), "0" * 64, tmp_path, "x.wav")
    assert path.exists()
    done = flattone("scan", archive, "--quarantine", "/proc/none")
    assert done.returncode == 2
    assert path.exists()
