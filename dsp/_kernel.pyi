from numpy import float32, float64, int64, intp, uint8, uint32
from numpy.typing import NDArray

LANES: int

class Window:
    def __init__(
        self, bank: NDArray[float32], hum: int, joint: NDArray[float32], basis: NDArray[float32],
        solve: NDArray[float32], share: float,
    ) -> None: ...  # fmt: skip

class Judge:
    def __init__(self, brief: Window, lasting: Window, lanes: int, limits: dict[str, float]) -> None: ...
    def __call__(self, audio: NDArray[float32], yes: NDArray[int64], last: NDArray[int64]) -> None: ...

class Hear:
    def __init__(
        self, bank: NDArray[float32], hann: NDArray[float32], turn: NDArray[float32], relative: NDArray[float32],
        response: NDArray[float32], ramp: NDArray[float64], lanes: int, limits: dict[str, float],
        runs: NDArray[uint8],
    ) -> None: ...  # fmt: skip
    def __call__(
        self, slots: NDArray[intp], audio: NDArray[float32], known: NDArray[int64], position: NDArray[int64],
        pressed: list[tuple[int, int, int]], released: list[tuple[int, int]],
    ) -> None: ...  # fmt: skip

def look(
    x: NDArray[float32], bank: NDArray[float32], hann: NDArray[float32], near: NDArray[uint8],
    power: NDArray[float32], norm: float, share: float, weakest: float, twist: float,
) -> None: ...  # fmt: skip
def decode(
    octets: NDArray[uint8], codec: NDArray[intp], table: NDArray[float32], out: NDArray[float32],
) -> None: ...  # fmt: skip
def place(
    slots: NDArray[intp], timestamp: NDArray[uint32], length: int, resync: int, expected: NDArray[uint32],
    joined: NDArray[uint8], started: NDArray[uint8], late: NDArray[uint8], gap: NDArray[uint8],
) -> None: ...  # fmt: skip
def settle(
    slots: NDArray[intp], ok: NDArray[uint8], forced: NDArray[uint8], yes: NDArray[int64], last: NDArray[int64],
    until: NDArray[int64], run: NDArray[int64], heat: NDArray[int64], seen: NDArray[int64],
    confirmed: NDArray[uint8], flat: NDArray[uint8], hot: NDArray[uint8], *, length: int, hang: int, more: int,
    delay: int, grid: int, span: int, strong: int,
) -> None: ...  # fmt: skip
def shift(
    slots: NDArray[intp], ok: NDArray[uint8], octets: NDArray[uint8], codec: NDArray[intp],
    transcode: NDArray[uint8], before: NDArray[uint8], held: NDArray[intp], line: NDArray[uint8],
) -> None: ...  # fmt: skip
def paint(
    slots: NDArray[intp], ok: NDArray[uint8], flat: NDArray[uint8], clock: NDArray[uint32], codec: NDArray[intp],
    tone: NDArray[uint8], silence: NDArray[uint8], unknown: NDArray[int64], out: NDArray[uint8],
    masked: NDArray[int64],
) -> None: ...  # fmt: skip
