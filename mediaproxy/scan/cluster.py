"""The same work on a Dask cluster: paths travel there, verdicts come back, audio goes nowhere.

Every worker needs flattone in the same version, and the files under the same paths (a shared folder or a store).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

from mediaproxy.printable import shown
from mediaproxy.scan.look import Options, look
from mediaproxy.scan.verdict import FileVerdict

BATCH: Final = 16
"""Files a task: a scheduler's work is by task (0.5 ms a file in batches of this size: benchmarks.scan)."""
AHEAD: Final = 4
"""Tasks of each core that are under way, so that none waits and the scheduler holds little."""


class ClusterError(Exception):
    """The cluster cannot be used; the text says why."""


class Cluster:
    """A connection to a scheduler."""

    def __init__(self, address: str, ca: str = "", certificate: str = "", key: str = "") -> None:
        """ca, certificate, key: PEM files, for a scheduler at tls://. Raises ClusterError."""
        try:
            from distributed import Client
            from distributed.security import Security
        except ModuleNotFoundError as error:
            raise ClusterError(f"needs {error.name}: pip install 'flattone[cluster]'") from None
        if address.startswith("tls://") and not (ca and certificate and key):
            raise ClusterError("a scheduler at tls:// needs --dask-ca, --dask-cert and --dask-key")
        security: Any = None
        if ca or certificate or key:
            security = Security(
                require_encryption=True, tls_ca_file=ca, tls_client_cert=certificate, tls_client_key=key
            )
        try:
            self._client = Client(address, security=security, timeout=5, set_as_default=False)
        except Exception as error:  # distributed raises much; none of it is for the user
            raise ClusterError(f"no scheduler answers there ({type(error).__name__})") from None
        try:
            self._check()
        except ClusterError:
            self.close()
            raise

    def _check(self) -> None:
        """Whether there are workers, and they would judge as this process would."""
        try:
            hashes = self._client.run(_hash)
        except Exception as error:  # a worker that has no flattone raises what its interpreter raises
            raise ClusterError(f"a worker has no flattone that fits this one ({type(error).__name__})") from None
        if not hashes:
            raise ClusterError("the cluster has no workers")
        if set(hashes.values()) != {_hash()}:
            raise ClusterError("its workers run another version of flattone")
        self._cores = sum(self._client.ncores().values())

    def run(self, paths: Iterable[str], options: Options) -> Iterator[FileVerdict]:
        """Verdicts, in the order in which they come. Raises ClusterError where the scheduler is lost."""
        try:
            yield from self._run(paths, options)
        except ClusterError:
            raise
        except Exception as error:  # as above
            raise ClusterError(f"the scheduler is lost ({type(error).__name__})") from None

    def _run(self, paths: Iterable[str], options: Options) -> Iterator[FileVerdict]:
        from distributed import as_completed

        todo = iter(paths)
        doing = as_completed(loop=self._client.loop, with_results=False)
        batches: dict[Any, list[str]] = {}

        def more() -> None:
            batch = list(islice(todo, BATCH))
            if batch:
                future = self._client.submit(look_at, batch, options, pure=False)
                batches[future.key] = batch
                doing.add(future)

        for _ in range(AHEAD * self._cores):
            more()
        for future in doing:
            batch = batches.pop(future.key)
            more()
            if future.status == "cancelled":
                raise ClusterError("the scheduler is lost")
            if future.status == "finished":
                yield from future.result()
            elif len(batch) > 1:  # one of them took its worker down: each on its own, to know which
                for path in batch:
                    alone = self._client.submit(look_at, [path], options, pure=False, retries=0)
                    batches[alone.key] = [path]
                    doing.add(alone)
            else:
                yield FileVerdict(shown(batch[0]), "unreadable", "the worker that read it was lost")

    def close(self) -> None:
        self._client.close()


def look_at(paths: list[str], options: Options) -> list[FileVerdict]:
    """What a worker does."""
    return [look(path, options) for path in paths]


def _hash() -> str:
    return Options().hash()
