"""`flattone scan`: what is found, looked through and told; then what is done with what was dirty."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from mediaproxy import signing
from mediaproxy.printable import printable, shown
from mediaproxy.scan import files, forms, incidents, pool, report, sample
from mediaproxy.scan.cluster import Cluster, ClusterError
from mediaproxy.scan.files import Place
from mediaproxy.scan.look import Options
from mediaproxy.scan.sample import Strata
from mediaproxy.scan.state import State, StateError
from mediaproxy.scan.verdict import FileVerdict


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for: the options of `flattone scan`."""

    paths: Sequence[str]
    report: str = ""
    sign: str = ""
    as_json: bool = False
    quiet: bool = False
    workers: int = 0
    state: str = ""
    plant: bool = True
    seed: int = 1
    sample: int = 0
    bound: float = 0.0
    confidence: float = 0.95
    strata: Strata = "folder"
    quarantine: str = ""
    remask: str = ""
    suspects_too: bool = False
    dask: str = ""
    dask_ca: str = ""
    dask_cert: str = ""
    dask_key: str = ""


class WrongUse(Exception):
    """The scan cannot begin; the text says what is wrong."""


def run(request: Request) -> int:
    """The command. Returns 0 all clean, 1 something found, 2 something unreadable, wrong use or nothing to scan."""
    try:
        return _run(request)
    except WrongUse as error:
        print(f"flattone: {error}", file=sys.stderr)
        return 2


def _run(request: Request) -> int:
    signer = _signer(request)
    for folder in (request.quarantine, request.remask, request.report):
        if folder:
            _folder(folder, request.paths if folder != request.report else ())
    options = Options(request.seed if request.plant else None)
    began = report.now()
    places = list(files.find(request.paths))
    found = len(places)
    places, plan = _sampled(request, places)
    state = _state(request, options)
    verdicts = [FileVerdict(shown(p.path), "unreadable", p.trouble) for p in places if p.trouble]
    real = {shown(place.path): place.path for place in places}
    todo = []
    for place in places:
        before = state.done.get(shown(place.path)) if state else None
        if before is not None and not before.failed and before.stamp == place.stamp:
            verdicts.append(before)
        elif not place.trouble:
            todo.append(place)
    resumed = sum(not verdict.failed for verdict in verdicts)
    for verdict in verdicts:
        _tell(request, verdict)
    try:
        for verdict in _looked(request, options, todo):
            verdicts.append(verdict)
            if state:
                _keep(request, state, verdict)
            _tell(request, verdict)
    except KeyboardInterrupt:
        go_on = f"; --state {request.state} goes on from here" if state else ""
        raise WrongUse(f"stopped after {len(verdicts)} of {len(places)} files, without a report{go_on}") from None
    except ClusterError as error:
        go_on = f"; --state {request.state} goes on from here" if state else ""
        done = f"after {len(verdicts)} of {len(places)} files, without a report{go_on}"
        raise WrongUse(f"--dask {request.dask}: {error}, {done}") from None
    finally:
        if state:
            state.close()
    return _finish(request, verdicts, real, signer, plan, began, found, options, resumed)


def _finish(
    request: Request, verdicts: list[FileVerdict], real: dict[str, str], signer: signing.Signer | None,
    plan: sample.Plan | None, began: str, found: int, options: Options, resumed: int,
) -> int:  # fmt: skip
    summary = report.summary(verdicts, found)
    count = summary["coverage"]
    if count["passed over"] == len(verdicts):
        raise WrongUse("there is no audio in what was named")
    found_in, whole = incidents.handle(
        verdicts, real, request.remask, request.quarantine, request.suspects_too, _shows(request)
    )
    header: dict[str, Any] = {
        "began": began, "ended": report.now(), "paths": [shown(path) for path in request.paths],
        "config": options.hash(), "options": msgspec.to_builtins(options),
        "from_state": resumed, **summary,
        "sampling": _means(plan, verdicts) if plan else None,
    }  # fmt: skip
    if request.report:
        try:
            report.write(Path(request.report), verdicts, header, found_in, signer)
        except OSError as error:
            raise WrongUse(f"{request.report}: cannot be written ({error.strerror})") from None
    if request.as_json:
        print(json.dumps({**header, "incidents": found_in, "results": msgspec.to_builtins(verdicts)}))
    else:
        _sum_up(header, found_in)
    failed = count["unreadable"] or count["in_part"] or not whole or any(map(incidents.undone, found_in))
    return 2 if failed else 1 if count["dirty"] or count["suspect"] else 0


def _signer(request: Request) -> signing.Signer | None:
    if not request.sign:
        return None
    if not request.report:
        raise WrongUse("--sign: goes with --report")
    try:
        return signing.Signer.load(request.sign)
    except signing.KeyFileError as error:
        raise WrongUse(f"--sign {request.sign}: {error}") from None


def _folder(name: str, scanned: Sequence[str]) -> None:
    """Make a folder that will be written to: before hours of work, not after."""
    for path in scanned:
        if "://" not in path and os.path.isdir(path) and Path(name).resolve().is_relative_to(Path(path).resolve()):
            raise WrongUse(f"{name}: lies in what is scanned, and would be scanned the next time")
    try:
        os.makedirs(name, mode=0o700, exist_ok=True)
    except OSError as error:
        raise WrongUse(f"{name}: cannot be made ({error.strerror})") from None
    try:
        with tempfile.TemporaryFile(dir=name):
            return
    except OSError as error:
        raise WrongUse(f"{name}: cannot be written to ({error.strerror})") from None


def _sampled(request: Request, places: list[Place]) -> tuple[list[Place], sample.Plan | None]:
    if not request.sample and not request.bound:
        return places, None
    size = request.sample or sample.size_for(request.bound, request.confidence)
    places = [place for place in places if place.trouble or forms.named_audio(place.path)]
    if not places:
        raise WrongUse("there is no file that is named like audio in what was named")
    return sample.draw(places, size, request.seed, request.strata, request.confidence)


def _means(plan: sample.Plan, verdicts: Sequence[FileVerdict]) -> dict[str, Any]:
    """The plan and what it shows."""
    judged = [v for v in verdicts if v.state != "passed over"]
    bad = sum(v.state in ("dirty", "suspect") for v in judged)
    unread = sum(v.state == "unreadable" for v in judged)
    limit = sample.upper(bad + unread, len(judged), plan.confidence)
    text = (
        f"With {plan.confidence:.0%} confidence at most {limit:.2%} of the files that are named like audio hold what "
        f"this scan marks; the {unread} unreadable one(s) count as if they did. A sample does not show that an archive "
        "is clean."
    )
    return {**msgspec.to_builtins(plan), "marked": bad, "unreadable": unread, "upper": round(limit, 6), "means": text}


def _state(request: Request, options: Options) -> State | None:
    if not request.state:
        return None
    try:
        return State(request.state, options.hash())
    except StateError as error:
        raise WrongUse(f"--state {request.state}: {error}") from None


def _keep(request: Request, state: State, verdict: FileVerdict) -> None:
    try:
        state.add(verdict)
    except OSError as error:
        raise WrongUse(f"{request.state}: cannot be written ({error.strerror})") from None


def _looked(request: Request, options: Options, todo: list[Place]) -> Iterator[FileVerdict]:
    paths = [place.path for place in todo]
    sizes = {shown(place.path): place.size for place in todo}
    if not paths:
        return
    if request.dask:
        try:
            cluster = Cluster(request.dask, request.dask_ca, request.dask_cert, request.dask_key)
        except ClusterError as error:
            raise WrongUse(f"--dask {request.dask}: {error}") from None
        with closing(cluster):
            yield from _progress(request, cluster.run(paths, options), sizes)
    else:
        workers = min(request.workers or pool.cores(), len(paths))
        with closing(pool.run(paths, options, workers)) as verdicts:
            yield from _progress(request, verdicts, sizes)


def _progress(request: Request, verdicts: Iterable[FileVerdict], sizes: dict[str, int]) -> Iterator[FileVerdict]:
    """The same, with a bar on a terminal: by octets, which is what takes time."""
    total = sum(sizes.values())
    with tqdm(total=total, unit="B", unit_scale=True, disable=not _shows(request), dynamic_ncols=True) as bar:
        done, hours = 0, 0.0
        for verdict in verdicts:
            done, hours = done + 1, hours + verdict.seconds / 3600
            bar.set_postfix_str(f"{done}/{len(sizes)} files, {hours:.1f} h of audio", refresh=False)
            bar.update(sizes[verdict.path])
            yield verdict


def _shows(request: Request) -> bool:
    """Whether there is somebody to show a bar to."""
    return not request.quiet and sys.stderr.isatty()


def _tell(request: Request, verdict: FileVerdict) -> None:
    if request.as_json or verdict.state == "passed over" or (request.quiet and verdict.state == "clean"):
        return
    tqdm.write(_line(verdict), file=sys.stdout)


def _line(v: FileVerdict) -> str:
    text = f"{v.state:<10}  {printable(v.path)}"
    if v.seconds:
        text += f"  {v.seconds:.1f} s"
    if v.findings:
        text += f"  {v.keys} key(s), {v.residues} residue(s) in {v.runs} run(s)"
    for why in (*([v.reason] if v.reason else ()), *v.remarks):
        text += f"\n            {why}"
    for f in v.findings[:5]:
        count = f"{f.keys} key(s)" if f.kind == "key" else f"{f.keys} event(s)" if f.keys else f"{f.pieces} residue(s)"
        text += (
            f"\n            channel {f.channel} at {f.start:.3f} s: {f.kind}, {count} in {f.seconds:.2f} s, "
            f"longest {f.milliseconds} ms, {f.level} dBm0"
        )
    if v.runs > 5:
        text += f"\n            and {v.runs - 5} more runs"
    return text


def _sum_up(header: dict[str, Any], found_in: Sequence[incidents.Incident]) -> None:
    count = header["coverage"]
    states = ("clean", "suspect", "dirty", "unreadable", "passed over")
    drawn = f"{header['sampling']['size']} drawn of " if header["sampling"] else ""
    part = f" ({count['in_part']} of the suspect or dirty ones read in part only)" if count["in_part"] else ""
    print(f"{drawn}{count['found']} files: " + ", ".join(f"{count[state]} {state}" for state in states) + part)
    planted = [sum(one[what] for one in header["detection"].values()) for what in ("found", "planted")]
    if planted[1]:
        print(
            f"self-test: {planted[0]} of {planted[1]} keys and residues planted in copies were found (see the report)"
        )
    if header["sampling"]:
        print(header["sampling"]["means"])
    for incident in found_in:
        for action in incident["actions"]:
            what = ", ".join(action[key] for key in ("to", "failed") if key in action)
            print(f"{action['what']:<10}  {printable(incident['path'])}: {printable(what)}")
