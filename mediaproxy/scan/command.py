"""`flattone scan`: files in, a verdict each, text or JSON out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from math import gcd
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from mediaproxy import __version__, wav
from mediaproxy.scan.judge import Finding, judge

SUFFIXES = (".wav", ".wave")


@dataclass(frozen=True, slots=True)
class FileVerdict:
    """state: clean, suspect (residues only), dirty (whole keys) or unreadable."""

    path: str
    state: str
    reason: str = ""
    seconds: float = 0.0
    keys: int = 0
    residues: int = 0
    findings: list[Finding] = field(default_factory=list)


def judge_file(path: Path) -> FileVerdict:
    """Look through one file; what cannot be read is told so by name."""
    try:
        channels, rate = wav.read(path)
    except wav.WavError as error:
        return FileVerdict(str(path), "unreadable", str(error))
    findings: list[Finding] = []
    for number, samples in enumerate(channels):
        findings += judge(number, _at_8000(samples, rate))
    keys = sum(f.kind == "key" for f in findings)
    residues = len(findings) - keys
    state = "dirty" if keys else "suspect" if residues else "clean"
    return FileVerdict(str(path), state, "", round(channels.shape[1] / rate, 3), keys, residues, findings)


def _at_8000(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    if rate == 8000:
        return samples
    common = gcd(rate, 8000)
    return np.asarray(resample_poly(samples, 8000 // common, rate // common), np.float32)


def _files(paths: list[str]) -> Iterator[Path]:
    for text in paths:
        path = Path(text)
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        else:
            yield path


def run(paths: list[str], report: str | None, as_json: bool) -> int:
    """The command. Returns 0 all clean, 1 something found, 2 something unreadable or nothing to scan."""
    verdicts: list[FileVerdict] = []
    for path in _files(paths):
        verdict = judge_file(path)
        verdicts.append(verdict)
        if not as_json:
            print(_line(verdict))
    if not verdicts:
        print("flattone: no WAV file there", file=sys.stderr)
        return 2
    counts = {state: sum(v.state == state for v in verdicts) for state in ("clean", "suspect", "dirty", "unreadable")}
    summary = {"version": __version__, "files": len(verdicts)} | counts | {"results": [asdict(v) for v in verdicts]}
    if as_json:
        print(json.dumps(summary))
    else:
        print(f"{len(verdicts)} files: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    if report:
        try:
            Path(report).mkdir(parents=True, exist_ok=True)
            (Path(report) / "report.json").write_text(json.dumps(summary, indent=1) + "\n")
        except OSError as error:
            print(f"flattone: {report}: cannot be written ({error.strerror})", file=sys.stderr)
            return 2
    return 2 if counts["unreadable"] else 1 if counts["dirty"] or counts["suspect"] else 0


def _line(verdict: FileVerdict) -> str:
    if verdict.state == "unreadable":
        return f"unreadable  {verdict.path}: {verdict.reason}"
    text = f"{verdict.state:<10}  {verdict.path}  {verdict.seconds:.1f} s"
    if verdict.findings:
        text += f"  {verdict.keys} keys, {verdict.residues} residues"
        for finding in verdict.findings[:5]:
            place = f"channel {finding.channel} at {finding.start_seconds:.3f} s"
            text += f"\n            {place}: {finding.kind}, {finding.milliseconds:.0f} ms"
        if len(verdict.findings) > 5:
            text += f"\n            and {len(verdict.findings) - 5} more"
    return text
