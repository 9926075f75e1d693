"""For operators: whether it runs, whether it is ready, and the metrics page."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mediaproxy.agent.desk import Desk

GAUGES = frozenset(
    {"calls", "connections", "down", "load", "memory_locked", "ready", "registered", "running", "streams", "waiting"}
)
"""What a process tells that may fall again; all else only grows, until the process is restarted."""


def routes(desk: Desk) -> list[Route]:
    """/healthz, /readyz, /metrics."""
    registry = CollectorRegistry()
    registry.register(_Metrics(desk))

    async def health(_: Request) -> Response:
        return _json({"status": "ok"})

    async def ready(_: Request) -> Response:
        roles = desk.counters.roles
        up = (
            desk.informed and bool(roles) and all(c.get("ready") for c in roles.values()) and not desk.stopping.is_set()
        )
        return _json({"status": "ready" if up else "starting"}, 200 if up else 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    return [Route("/healthz", health), Route("/readyz", ready), Route("/metrics", metrics)]


def _json(body: dict[str, str], status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, {"Cache-Control": "no-store"}, "application/json")


class _Metrics(Collector):
    """Every process's counters, as they were last told to the supervisor."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def collect(self) -> Any:
        counters = self._desk.counters
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for role, values in sorted(counters.roles.items()):
            for name, value in sorted(values.items()):
                key = f"flattone_{role.partition('-')[0]}_{name.removesuffix('_total')}"
                kind = GaugeMetricFamily if name in GAUGES else CounterMetricFamily
                family = families.setdefault(key, kind(key, name.replace("_", " "), labels=["worker"]))
                family.add_metric([role], value)
        histograms: dict[str, HistogramMetricFamily] = {}
        for role, timings in sorted(counters.timings.items()):
            for name, found in timings.items():
                key = f"flattone_{role.partition('-')[0]}_{name}_seconds"
                histogram = histograms.setdefault(key, HistogramMetricFamily(key, name, labels=["worker"]))
                below = list(accumulate(found.counts))
                names = [*(f"{bound:g}" for bound in found.bounds), "+Inf"]
                histogram.add_metric([role], list(zip(names, below, strict=True)), found.seconds)
        restarts = CounterMetricFamily("flattone_restarts", "processes restarted", labels=["worker"])
        for role, count in counters.restarts.items():
            restarts.add_metric([role], count)
        return [*families.values(), *histograms.values(), restarts]
