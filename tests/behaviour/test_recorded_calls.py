"""Recordings of real calls: clean where the caller's own sound is dirty, in every form, and what policies keep out."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dsp import g711, synth
from mediaproxy import wav
from mediaproxy.scan import audio
from mediaproxy.scan.look import Options, look
from mediaproxy.verify import command as verify
from tests.fixtures import live
from tests.fixtures.live import CARD, CVV, EXPIRY, Live

KEYS = len(CARD + EXPIRY + CVV)


def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    return folder


async def finished(folder: Path, seconds: float = 10) -> Path:
    """The recording, once its manifest and name are there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = [p for p in folder.rglob("*") if p.suffix in (".wav", ".opus", ".mp3")]
        if found:
            return found[0]
        await asyncio.sleep(0.1)
    raise AssertionError(f"no recording: {list(folder.rglob('*'))}")


def channels(path: Path) -> list[NDArray[np.float32]]:
    form = {".wav": "wav", ".opus": "ogg", ".mp3": "mp3"}[path.suffix]
    with path.open("rb") as file:
        blocks = list(audio.Source(file, form).blocks())
    return [np.concatenate([block for place, block in blocks if place == (0, channel)]) for channel in (0, 1)]


def told(path: Path) -> dict[str, Any]:
    document = json.loads(path.with_suffix(".json").read_text())
    assert isinstance(document, dict)
    return document


async def pay(up: Live) -> None:
    """The caller talks, keys everything in-band, and talks again."""
    speech = g711.encode(synth.speechlike(0.8, np.random.default_rng(3), -20), g711.PCMU)
    up.caller.say(speech)
    await up.silent()
    capture = await up.start()
    for field in (CARD, EXPIRY, CVV):
        up.key(field)
        await up.silent()
        await asyncio.sleep(0.6)
    assert (await up.ended(capture))["state"] == "token"
    up.caller.say(speech)
    up.desk.say(speech)
    await up.silent()


@pytest.mark.parametrize("form", ["opus"])
def test_a_recorded_payment_is_clean_and_the_same_call_before_the_mask_dirty(tmp_path: Path, form: str) -> None:
    folder = recordings(tmp_path)

    async def scenario() -> None:
        lines = f'format = "{form}"\nname = "{{year}}/{{route}}-{{call}}"'
        async with live.call(tmp_path, settings={"recording": lines}, recordings=folder) as up:
            await pay(up)
            sent = up.caller.sent_audio()
            key = up.site.signing_key
            up.caller.hang_up()
            path = await finished(folder)
            verdict = look(str(path), Options(None))
            assert (verdict.state, verdict.reason, verdict.findings) == ("clean", "", ())
            assert verdict.channels == 2
            wav.write(tmp_path / "raw.wav", g711.DECODE_INT16[g711.PCMU][sent])
            raw = look(str(tmp_path / "raw.wav"), Options(None))
            assert (raw.state, raw.keys) == ("dirty", KEYS)
            assert verify.run([str(folder)], key=str(key)) == 0
            about = told(path)
            assert path.parent == folder / time.strftime("%Y", time.gmtime())
            assert path.name.startswith("inbound-")
            assert [mode["mode"] for mode in about["modes"]] == ["guarded", "armed", "guarded"]
            assert about["complete"]
            assert not about["alarms"]
            assert not about["silent"]
            armed, guarded = about["modes"][1]["at"], about["modes"][2]["at"]
            within = [span for span in about["masked"] if armed <= span[0] < span[1] <= guarded + 0.5]
            assert KEYS * 0.08 < sum(end - start for start, end in within) < KEYS * 0.4
            heard, said = channels(path)
            assert np.sqrt(np.mean(np.square(heard))) > 0.005
            assert np.abs(said).max() > 0.05
            text = path.with_suffix(".json").read_text()
            alone = r"(?<![\w.]){}(?!\w)"  # three digits stand by chance in a time or a hash
            assert CARD not in text
            assert not [part for part in (CARD[-4:], CVV) if re.search(alone.format(part), text)]

    asyncio.run(scenario())


def test_a_paused_recording_is_silent_both_ways_while_armed(tmp_path: Path) -> None:
    folder = recordings(tmp_path)

    async def scenario() -> None:
        async with live.call(tmp_path, settings={"inbound": "pause_recording = true"}, recordings=folder) as up:
            speech = g711.encode(synth.speechlike(1.0, np.random.default_rng(3), -18), g711.PCMU)
            capture = await up.start()
            await asyncio.sleep(0.1)
            for phone in (up.caller, up.desk):
                phone.say(speech)
            await up.silent()
            up.key(CARD + "#")
            await up.silent()
            assert (await up.api("POST", f"/v1/captures/{capture}/cancel"))[0] == 202
            await up.modes("guarded")
            await asyncio.sleep(0.2)
            for phone in (up.caller, up.desk):
                phone.say(speech)
            await up.silent()
            await asyncio.sleep(0.2)
            up.caller.hang_up()
            path = await finished(folder)
            about = told(path)
            (start, end) = about["silent"][0]
            assert len(about["silent"]) == 1
            assert end - start > 3
            for side in channels(path):
                inside = side[round((start + 0.05) * 8000) : round((end - 0.05) * 8000)]
                assert np.abs(inside).max() < 0.002
                assert np.abs(side[round((end + 0.1) * 8000) :]).max() > 0.05
            assert look(str(path), Options(None)).state == "clean"

    asyncio.run(scenario())


def test_a_recording_in_passthrough_holds_none_of_the_keys_that_pass(tmp_path: Path) -> None:
    """An IVR behind us hears the keys; the recording has silence of the caller until passthrough is over."""
    folder = recordings(tmp_path)

    async def scenario() -> None:
        settings = {"inbound": 'mode = "passthrough"\nguard_on = []\nguard_keys = 3'}
        async with live.call(tmp_path, settings=settings, recordings=folder) as up:
            up.key("123456")
            await up.silent()
            await asyncio.sleep(0.3)
            assert len(up.leaked()) >= 6  # they were meant to come through
            up.caller.key_events("1234")  # one more than may pass
            await up.modes("guarded")
            up.key("789")
            await up.silent()
            up.caller.hang_up()
            path = await finished(folder)
            assert look(str(path), Options(None)).state == "clean"
            about = told(path)
            assert [mode["mode"] for mode in about["modes"]] == ["passthrough", "guarded"]
            assert about["silent"]
            assert about["masked"]

    asyncio.run(scenario())


def test_a_disk_that_is_full_stops_no_media_and_shows_in_the_alarms(tmp_path: Path) -> None:
    """The folder of recordings is on a file system of 96 kB."""
    folder = recordings(tmp_path)
    small = os.getuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "none", folder], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    assert small, "a file system of its own is needed: run as root, where mounting is allowed"

    async def scenario() -> None:
        async with live.call(tmp_path, recordings=folder) as up:
            speech = g711.encode(synth.speechlike(6.0, np.random.default_rng(3), -18), g711.PCMU)
            up.caller.say(speech)
            await up.until("recording-failed", seconds=20)
            kinds: set[str] = set()
            deadline = time.monotonic() + 10
            while "recording-failed" not in kinds and time.monotonic() < deadline:
                _, shown = await up.api("GET", "/v1/alarms")
                kinds = {alarm["kind"] for alarm in shown["past"]}
                await asyncio.sleep(0.2)
            assert "recording-failed" in kinds
            await up.silent()
            gaps = np.diff([packet.at for packet in up.desk.media.heard])
            assert len(gaps) > 250
            assert np.unique(np.diff([p.timestamp for p in up.desk.media.heard]).astype(np.uint32)).tolist() == [160]
            assert np.quantile(gaps, 0.99) < 0.06

    try:
        asyncio.run(scenario())
    finally:
        subprocess.run(["umount", "-l", folder], check=False)
