"""python -m mediaproxy.media: a media worker, started by the supervisor."""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one core a worker: must be set before numpy is loaded

from mediaproxy.ipc.process import enter
from mediaproxy.media.worker import Worker

if __name__ == "__main__":
    process = enter("media")
    worker = Worker(process)
    process.begin()
    worker.run()
