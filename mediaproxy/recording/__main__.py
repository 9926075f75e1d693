"""python -m mediaproxy.recording: the recorder, started by the supervisor."""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

from mediaproxy.ipc.process import enter
from mediaproxy.recording.service import Recorder

if __name__ == "__main__":
    Recorder(enter("recording")).run()
