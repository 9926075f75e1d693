"""python -m mediaproxy.signalling: SIP, started by the supervisor."""

import asyncio

from mediaproxy.ipc.process import enter
from mediaproxy.signalling.host import Host


async def _main() -> None:
    await Host(process).run()


if __name__ == "__main__":
    process = enter("signalling")
    asyncio.run(_main())
