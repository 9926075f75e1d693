"""python -m mediaproxy.vault: the vault, started by the supervisor."""

import asyncio

from mediaproxy.ipc.process import enter
from mediaproxy.vault.service import Vault


async def _main() -> None:
    await Vault(process).run()


if __name__ == "__main__":
    process = enter("vault", lock_memory=True)
    asyncio.run(_main())
