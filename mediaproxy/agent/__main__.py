"""python -m mediaproxy.agent: the HTTP side, started by the supervisor."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from mediaproxy.agent.api import Api
from mediaproxy.agent.audit import Audit
from mediaproxy.agent.connections import Connection
from mediaproxy.agent.desk import Desk
from mediaproxy.ipc.process import Process, enter


class _Server(uvicorn.Server):
    """Signals are the supervisor's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _main(process: Process) -> None:
    audit = Audit(process.config)
    desk = Desk(process, audit)
    api = Api(desk, audit, process.config)
    config = uvicorn.Config(
        api.app, log_config=None, access_log=False, server_header=False, lifespan="off",
        h11_max_incomplete_event_size=16_384,
        timeout_graceful_shutdown=2, ssl_certfile=process.config.api.certificate or None,
        ssl_keyfile=process.config.api.key or None, ws="none", http=Connection,
        proxy_headers=False,
    )  # fmt: skip
    server = _Server(config)
    task = asyncio.create_task(server.serve([socket.socket(fileno=process.sockets["api"])]))
    desk.attach()
    told = asyncio.create_task(desk.stopping.wait())
    await asyncio.wait((task, told), return_when=asyncio.FIRST_COMPLETED)  # a server that ends by itself has failed
    server.should_exit = True
    await task
    audit.close()


if __name__ == "__main__":
    asyncio.run(_main(enter("agent")))
