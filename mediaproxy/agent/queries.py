"""What callers of the API may say: bodies and parts of an address, checked. No error repeats any of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

import msgspec
from starlette.requests import Request

from mediaproxy.agent.desk import View
from mediaproxy.agent.problem import Problem
from mediaproxy.ipc import messages as m

LARGEST_BODY: Final = 16_384
SLOWEST_BODY: Final = 10.0
"""Seconds."""
LARGEST_PAGE: Final = 500
USUAL_PAGE: Final = 100
_LONGEST_TEXT: Final = 256

T = TypeVar("T")
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=_LONGEST_TEXT)]


class Which(msgspec.Struct, forbid_unknown_fields=True):
    """A call, by one of these: the agent's extension, Flattone's id or a SIP Call-ID, the correlation header."""

    extension: _Name | msgspec.UnsetType = msgspec.UNSET
    call_id: _Name | msgspec.UnsetType = msgspec.UNSET
    correlation: _Name | msgspec.UnsetType = msgspec.UNSET

    def named(self) -> int:
        return sum(map(bool, (self.extension, self.call_id, self.correlation)))

    def fits_call(self, call: m.CallState) -> bool:
        """Whether it names `call`, or nothing at all."""
        return (
            (not self.extension or call.number == self.extension)
            and (not self.call_id or self.call_id in (call.call, *call.sip_call_ids))
            and (not self.correlation or call.correlation == self.correlation)
        )

    def fits_capture(self, view: View, calls: Mapping[str, m.CallState]) -> bool:
        """Whether it names the call of a capture; one that is over is known by its own id only."""
        call = calls.get(view.call)
        by_id = self.call_id in (view.call, *(call.sip_call_ids if call is not None else ()))
        return (
            (not self.extension or view.number == self.extension)
            and (not self.call_id or by_id)
            and (not self.correlation or view.correlation == self.correlation)
        )


class Start(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/captures."""

    call: Which
    fields: tuple[str, ...] = ()
    template: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """How many, and after which."""

    limit: int
    after: str


async def read_body(request: Request, kind: type[T]) -> T:
    """The body. Raises Problem 408, 413, 422."""
    data = b""
    try:
        async with asyncio.timeout(SLOWEST_BODY):
            async for chunk in request.stream():
                data += chunk
                if len(data) > LARGEST_BODY:
                    raise Problem(413, "too-large", "the body is too large")
    except TimeoutError:
        raise Problem(408, "too-slow", "the body did not come in time") from None
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        place = re.search(r"at `\$\.([a-z_.]+)", str(error))  # names of this description, never of the input
        where = f" (at {place[1]})" if place else ""
        raise Problem(422, "body", f"the body must be JSON as openapi.yaml describes it{where}") from None


def page(request: Request, cursor: str) -> Page:
    """`limit` and `after` of the address; cursor: what `after` looks like. Raises Problem 422."""
    limit, after = request.query_params.get("limit", str(USUAL_PAGE)), request.query_params.get("after")
    if not re.fullmatch(r"[1-9][0-9]{0,2}", limit) or int(limit) > LARGEST_PAGE:
        raise Problem(422, "query", f"limit: 1 to {LARGEST_PAGE}")
    if after is not None and not re.fullmatch(cursor, after):
        raise Problem(422, "query", "after: the `next` of the page before")
    return Page(int(limit), after or "")


def which(request: Request) -> Which:
    """The call that an address names, or none. Raises Problem 422."""
    return Which(*(text(request, key) or msgspec.UNSET for key in ("extension", "call_id", "correlation")))


def text(request: Request, key: str) -> str:
    """A part of the address by name. Raises Problem 422."""
    found = request.query_params.get(key, "")
    if len(found) > _LONGEST_TEXT:
        raise Problem(422, "query", f"{key}: at most {_LONGEST_TEXT} characters")
    return found
