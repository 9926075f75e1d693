"""What is done with what was found: incident records for the compliance process, masked copies, a place apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from mediaproxy import signing
from mediaproxy.printable import shown
from mediaproxy.scan import remask, report
from mediaproxy.scan.verdict import FileVerdict

Incident = dict[str, Any]


def handle(
    verdicts: Sequence[FileVerdict],
    real: dict[str, str],
    remasked: str,
    quarantined: str,
    suspects_too: bool,
    show: bool,
) -> tuple[list[Incident], bool]:  # fmt: skip
    """Write masked copies to `remasked`, move files to `quarantined`, where these are named.

    real: paths by the names that verdicts have. Returns (a record of each file with a find, with what was done; whether
    nobody has stopped it). Never raises for what a file or a disk does.
    """
    incidents: list[Incident] = []
    whole = True
    bad = sorted((v for v in verdicts if v.state in ("dirty", "suspect")), key=lambda v: v.path)
    for v in tqdm(bad, unit="file", disable=not show or not (remasked or quarantined)):
        actions: list[dict[str, str]] = []
        incident: Incident = {
            "path": v.path, "sha256": v.sha256, "state": v.state, "found": report.now(), "versions": report.versions(),
            "keys": v.keys, "residues": v.residues, "runs": v.runs,
            "where": [
                {"channel": f.channel, "kind": f.kind, "start": f.start, "seconds": f.seconds, "keys": f.keys}
                for f in v.findings
            ],
            "actions": actions,
        }  # fmt: skip
        incidents.append(incident)
        if whole and (v.state == "dirty" or suspects_too):
            path = real[v.path].removeprefix("file://")
            name = PurePosixPath(path).name
            try:
                if remasked:
                    actions.append(_remasked(path, Path(remasked), name))
                if quarantined:
                    actions.append(_moved(path, Path(quarantined), name, incident))
            except KeyboardInterrupt:
                whole = False
                actions.append({"what": "handled", "failed": "stopped by hand"})
    return incidents, whole


def _remasked(path: str, folder: Path, name: str) -> dict[str, str]:
    if "://" in path:
        return {"what": "masked", "failed": "only local files are masked"}
    try:
        copy, verdict = remask.masked_copy(path, folder, name)
    except remask.CannotMask as error:
        return {"what": "masked", "failed": str(error)}
    return {"what": "masked", "to": shown(str(copy)), "sha256": verdict.sha256, "state": verdict.state}


def _moved(path: str, folder: Path, name: str, incident: Incident) -> dict[str, str]:
    if "://" in path:
        return {"what": "quarantined", "failed": "only local files are moved"}
    try:
        target = remask.quarantine(path, incident["sha256"], folder, name)
    except OSError as error:
        return {"what": "quarantined", "failed": error.strerror or type(error).__name__}
    action = {"what": "quarantined", "to": shown(str(target))}
    note = target.with_name(target.name + ".incident.json")
    try:
        note.write_bytes(signing.render({**incident, "actions": [*incident["actions"], action]}))
        note.chmod(0o600)
    except OSError as error:  # where it is now must be told all the same
        action["failed"] = f"moved there, but without its note ({error.strerror or type(error).__name__})"
    return action


def undone(incident: Incident) -> bool:
    """Whether something of it could not be done."""
    return any("failed" in action for action in incident["actions"])
