"""The report as one page that holds all it needs: no script from elsewhere, no picture with an axis of frequency."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from mediaproxy.printable import printable
from mediaproxy.scan.verdict import FileVerdict, Finding

MOST_FOUND: Final = 5000
MOST_CLEAN: Final = 1000
"""Rows of the table: all files are in the CSV and JSON beside it."""
_WIDTH: Final = 220
_HEIGHT: Final = 30


def render(head: Mapping[str, Any], verdicts: Sequence[FileVerdict]) -> str:
    """The page."""
    assets = files(__package__)
    found = [v for v in verdicts if v.state in ("dirty", "suspect") or v.failed]
    clean = [v for v in verdicts if v.state == "clean" and not v.failed]
    shown = found[:MOST_FOUND] + clean[:MOST_CLEAN]
    parts = {
        "style": assets.joinpath("report.css").read_text("utf-8"),
        "script": assets.joinpath("report.js").read_text("utf-8"),
        "state": "dirty" if head["coverage"]["dirty"] else "suspect" if head["coverage"]["suspect"]
        else "unreadable" if head["coverage"]["unreadable"] else "clean",
        "verdict": _verdict(head),
        "about": _about(head),
        "cards": _cards(head["coverage"]),
        "sampling": _sampling(head.get("sampling")),
        "detection": _detection(head),
        "rows": "\n".join(map(_row, shown)),
        "left_out": _left_out(len(found) + len(clean) - len(shown)),
        "passed_over": f"{head['coverage']['passed over']:,}",
        "findings": "\n".join(map(_file, [v for v in found[:MOST_FOUND] if v.findings])) or "<p>None.</p>",
        "method": _list(head["method"]),
        "limits": _list(head["limits"]),
    }  # fmt: skip
    text = assets.joinpath("report.html").read_text("utf-8")
    for name, value in parts.items():
        text = text.replace(f"<!-- {name} -->", value)
    return text


def _text(value: object) -> str:
    return html.escape(printable(str(value)))


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _verdict(head: Mapping[str, Any]) -> str:
    count = head["coverage"]
    unread = f"; {count['unreadable']:,} could not be read" if count["unreadable"] else ""
    if count["dirty"]:
        return f"{count['dirty']:,} file(s) hold keys that can be read{unread}"
    if count["suspect"]:
        return f"{count['suspect']:,} file(s) may hold parts of keys{unread}"
    if count["unreadable"]:
        return f"Nothing found, but {count['unreadable']:,} file(s) could not be read"
    if head.get("sampling"):
        return "Nothing found in the sample"
    return "Nothing found" if count["clean"] else "No audio was scanned"


def _about(head: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in head["versions"].items())
    signed = f"Ed25519 key {head['signed_by']}" if head["signed_by"] else "not signed"
    before = f"; {head['from_state']:,} file(s) in an earlier run" if head["from_state"] else ""
    lines = {
        "Scanned": f"{head['began']} to {head['ended']}{before}", "Places": ", ".join(map(str, head["paths"])),
        "Software": versions, "Configuration": head["config"], "Merkle root": head["merkle_root"], "Signed": signed,
    }  # fmt: skip
    return "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in lines.items())


def _cards(coverage: Mapping[str, Any]) -> str:
    shown = (
        ("found", "files found", ""), ("scanned", "scanned", ""), ("clean", "clean", "clean"),
        ("suspect", "suspect", "suspect"), ("dirty", "dirty", "dirty"), ("unreadable", "unreadable", "unreadable"),
    )  # fmt: skip
    cards = [
        f'<div class="card {kind if coverage[name] else ""}"><b>{coverage[name]:,}</b><span>{label}</span></div>'
        for name, label, kind in shown
    ]
    hours = coverage["hours"]
    text = f"{hours:,.1f}" if hours >= 10 else f"{hours:.2f}"
    return "".join(cards) + f'<div class="card"><b>{text}</b><span>hours of audio</span></div>'


def _sampling(plan: Mapping[str, Any] | None) -> str:
    if not plan:
        return "<p>Every file that was found was scanned: this is no sample.</p>"
    strata = "".join(
        f"<tr><td>{_text(name)}</td><td>{there:,}</td><td>{drawn:,}</td></tr>"
        for name, (there, drawn) in plan["strata"].items()
    )
    return (
        f"<p>{plan['size']:,} of {plan['population']:,} files, drawn with seed {plan['seed']}. "
        f"{_text(plan['means'])}</p>{_table(('Stratum', 'Files', 'Drawn'), strata)}"
    )


def _detection(head: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{_text(name)}</td><td>{one['planted']:,}</td><td>{one['found']:,}</td>"
        f"<td>{one['share']:.1%}</td><td>{one['low']:.1%} to {one['high']:.1%}</td></tr>"
        for name, one in head["detection"].items()
    )
    alarms = head["alarms"]
    if not rows:
        return "<p>Nothing was planted (--no-plant): how much this scan can find was not measured.</p>"
    table = _table(("Planted", "Copies", "Found", "Share", "95 % limits"), rows)
    return (
        f"{table}<p>Suspect runs: {alarms['suspect_runs']:,}, "
        f"{alarms['per_channel_hour']:g} an hour of a channel ({_text(alarms['means'])}).</p>"
    )


def _table(heads: Sequence[str], rows: str) -> str:
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(v: FileVerdict) -> str:
    reason = "; ".join([*([v.reason] if v.reason else []), *v.remarks])
    first = f"{min(f.start for f in v.findings):.3f}" if v.findings else ""
    cells = (
        f'<td data-v="{_STATES.index(v.state)}"><span class="state {v.state}">{v.state}</span></td>'
        f"<td>{_text(v.path)}{f'<small>{_text(reason)}</small>' if reason else ''}</td><td>{_text(v.form)}</td>"
    )
    numbers = "".join(
        f'<td class="n" data-v="{value}">{value if value else ""}</td>'
        for value in (round(v.seconds, 1), v.channels, v.keys, v.residues, v.runs)
    )
    return f'<tr>{cells}{numbers}<td class="n" data-v="{first or -1}">{first}</td></tr>'


_STATES: Final = ("dirty", "suspect", "unreadable", "clean")


def _left_out(count: int) -> str:
    return f"<p>{count:,} more files are in report.csv and report.json.</p>" if count > 0 else ""


def _file(v: FileVerdict) -> str:
    more = f"<p>{v.runs - len(v.findings):,} more runs.</p>" if v.runs > len(v.findings) else ""
    listed = "".join(map(_finding, v.findings[:50]))
    if len(v.findings) > 50:
        more = f"<p>{v.runs - 50:,} more runs: see report.csv.</p>"
    return (
        f'<section class="file"><h3>{_text(v.path)}</h3><p class="hash">SHA-256 {v.sha256}</p>{listed}{more}</section>'
    )


def _finding(f: Finding) -> str:
    what = {"key": "whole keys", "residue": "residues", "telephone-event": "telephone-events"}[f.kind]
    count = f.keys if f.kind != "residue" else f.pieces
    beside = f", {f.pieces} residue(s)" if f.pieces and f.kind != "residue" else ""
    return (
        f'<div class="finding"><div><b>{f.start:.3f} s</b>, channel {f.channel}<br>{count} {what}{beside} in '
        f"{f.seconds:.3f} s<br>longest {f.milliseconds} ms, loudest {f.level} dBm0</div>{_picture(f)}</div>"
    )


def _picture(f: Finding) -> str:
    """The score over time; there is no axis of frequency in it, and no step short enough to show a rhythm."""
    width = _WIDTH / len(f.score)
    bars = "".join(
        f'<rect x="{i * width:.2f}" y="{_HEIGHT - value * _HEIGHT:.1f}" width="{max(width - 0.3, 0.3):.2f}" '
        f'height="{value * _HEIGHT:.1f}"/>'
        for i, value in enumerate(f.score)
        if value
    )
    end = f.score_start + len(f.score) * f.score_step
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT + 1}" role="img" aria-label="score over time, 0 to 1">'
        f'<line x1="0" x2="{_WIDTH}" y1="{_HEIGHT + 0.5}" y2="{_HEIGHT + 0.5}"/>{bars}</svg>'
        f"<figcaption><span>{f.score_start:.3f} s</span><span>score, 0 to 1</span><span>{end:.3f} s</span>"
        "</figcaption></figure>"
    )
