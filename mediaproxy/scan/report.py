"""The report of a scan: JSON that is signed and names the hashes of the others, CSV, a page, and incident records."""

from __future__ import annotations

import csv
import hashlib
import io
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import av
import msgspec
import numpy as np

from mediaproxy import __version__, evidence, signing
from mediaproxy.printable import printable
from mediaproxy.scan import page, sample
from mediaproxy.scan.verdict import ORDER, FileVerdict, Planted

METHOD: Final = (
    "Each file is read by its content, not its name, resampled to 8000 Hz where it has another rate, and each channel "
    "is looked through on its own.",
    "Whole keys: frames of 16 ms in which two tones of one key (ITU-T Q.23) are much of the sound, and how long and "
    "steadily they last, scored by a network; once more with only what is between 640 and 1780 Hz, by a second one.",
    "Residues: least-squares fits of the sixteen pairs to windows of 2.5 ms, how well, how long and how abruptly they "
    "stand in what is around them, scored by a third network.",
    "None is part of the live mask, and all were trained and tested on different voices (benchmarks.scan prints "
    "what they find and miss).",
    "In packet captures RTP streams are told by their numbers; G.711 is decoded, telephone-events (RFC 4733) are found "
    "as such.",
    "Detection is measured in each scan: known keys and residues at -20 dBm0 are added to copies of the audio in "
    "memory after decoding, and looked for in the same way. What a codec had blurred before, this does not show.",
)
LIMITS: Final = (
    "Only keypad tones and telephone-events are looked for: digits that were spoken are not.",
    "Residues are found where they stand in a pause or beside a steady tone; under speech few are. Measured on what is "
    "known (benchmarks.scan): 5 ms are found in G.711 and MP3 always, behind Opus at 12 kbit/s two times of three, "
    "behind GSM one of four; 10 ms always, nearly always, and five times of six. AAC was not measured.",
    "Keys fainter than -50 dBm0, more than 3 % off their frequency, split between channels, or in a file whose header "
    "tells a wrong rate are not found for sure; nor are keys under a louder sound in their own band.",
    "What could not be read is not clean. It is listed with its reason.",
    "A file found clean here may have copies and backups that were not scanned.",
    "The signature shows who made this report and that it has not changed since, not that the archive was complete.",
)


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def versions() -> dict[str, str]:
    """Of what judged."""
    return {
        "flattone": __version__, "python": platform.python_version(), "numpy": np.__version__, "av": av.__version__,
    }  # fmt: skip


def summary(verdicts: Sequence[FileVerdict], found: int) -> dict[str, Any]:
    """Coverage, detection and alarms. found: files that there were, sampled or not."""
    count = {state: sum(v.state == state for v in verdicts) for state in ORDER}
    planted: dict[str, Planted] = {}
    for verdict in verdicts:
        for name, one in verdict.planted.items():
            key = f"{verdict.form}: {name}"
            planted[key] = planted.get(key, Planted()).plus(one)
    detection = {}
    for name in sorted(planted):
        low, high = sample.interval(planted[name].found, planted[name].planted)
        share = planted[name].found / planted[name].planted
        detection[name] = {
            "planted": planted[name].planted, "found": planted[name].found,
            "share": round(share, 4), "low": round(low, 4), "high": round(high, 4),
        }  # fmt: skip
    hours = sum(v.channel_seconds for v in verdicts if v.state in ("clean", "suspect")) / 3600
    suspects = sum(v.runs for v in verdicts if v.state == "suspect")
    return {
        "coverage": {
            "found": found, "scanned": len(verdicts) - count["unreadable"] - count["passed over"], **count,
            "in_part": sum(v.failed and v.state in ("dirty", "suspect") for v in verdicts),
            "hours": round(sum(v.seconds for v in verdicts) / 3600, 4),
            "channel_hours": round(sum(v.channel_seconds for v in verdicts) / 3600, 4),
            "octets": sum(v.size for v in verdicts),
        },
        "detection": detection,
        "alarms": {
            "suspect_runs": suspects, "per_channel_hour": round(suspects / hours, 4) if hours else 0.0,
            "means": "in files without a whole key; an upper limit of false alarms there: a suspect may be a residue",
        },
    }  # fmt: skip


def root(verdicts: Sequence[FileVerdict]) -> str:
    """Over all files, in the report's order."""
    return signing.merkle_root([evidence.leaf(v.path, v.size, v.sha256, v.state) for v in verdicts])


def write(
    folder: Path, verdicts: Sequence[FileVerdict], header: Mapping[str, Any], incidents: Sequence[Mapping[str, Any]],
    signer: signing.Signer | None,
) -> dict[str, Any]:  # fmt: skip
    """Write the report to `folder`; returns the header as written. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(verdicts, key=lambda v: (ORDER.index(v.state), v.path))
    head: dict[str, Any] = {
        "format": evidence.REPORT_FORMAT, "versions": versions(), **header, "method": list(METHOD),
        "limits": list(LIMITS),
        "merkle_root": root(ordered), "signed_by": signing.fingerprint(signer.public) if signer else "",
    }  # fmt: skip
    beside = {
        "report.html": page.render(head, ordered).encode(),
        "report.csv": _csv(ordered).encode(),
        "incidents.json": signing.seal({"incidents": list(incidents), "signed_by": head["signed_by"]}, signer),
    }
    for name, data in beside.items():
        _put(folder / name, data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in beside.items()}
    document = {**head, "files": hashes, "results": msgspec.to_builtins(ordered)}
    _put(folder / evidence.REPORT, signing.seal(document, signer))
    return head


def _put(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


_COLUMNS: Final = (
    "path", "state", "reason", "form", "seconds", "channels", "size", "sha256", "keys", "residues", "runs", "channel",
    "kind", "start", "run_seconds", "run_keys", "run_residues", "milliseconds", "level_dbm0",
)  # fmt: skip


def _csv(verdicts: Sequence[FileVerdict]) -> str:
    """A line for each finding, and one for each file without."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for v in verdicts:
        head = [
            _cell(v.path), v.state, v.reason, v.form, v.seconds, v.channels, v.size, v.sha256, v.keys, v.residues,
            v.runs,
        ]  # fmt: skip
        for f in v.findings:
            rows.writerow([*head, f.channel, f.kind, f.start, f.seconds, f.keys, f.pieces, f.milliseconds, f.level])
        if not v.findings:
            rows.writerow([*head, *[""] * 8])
    return text.getvalue()


def _cell(text: str) -> str:
    """A name that a spreadsheet will not take for a formula, nor a terminal for an order."""
    text = printable(text)
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") else text
