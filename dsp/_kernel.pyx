# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled half of dsp/kernel.py, which says what each of these does. See also _kernel.pyi."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy


cdef extern from "_kernel.h":
    int WIDEST, MOST_PAIRS
    ctypedef struct window_t:
        int samples, cols, hum, rank, pairs
        float share
        const float *bank
        const float *joint
        const float *basis
        const float *solve
    ctypedef struct limits_t:
        int hop, every
        float floor, close, slack, least, weaker, step, vowel, steady, onset, onset_joint, fade, tiny
    ctypedef struct judge_t:
        window_t brief, lasting
        limits_t limit
    int widest_lanes()
    void judge_row(int, const judge_t *, const float *, long, long, int64_t *, int64_t *) nogil
    int look_row(int, const float *, const float *, int, const float *, float *, float, float, float, float) nogil
    void decode_row(const float *, const uint8_t *, long, float *) nogil


LANES = widest_lanes()


cdef class Window:
    cdef window_t c
    cdef tuple kept
    cdef int lanes

    def __init__(
        self, const float[:, ::1] bank, int hum, const float[::1] joint, const float[:, :, :, ::1] basis,
        const float[:, :, ::1] solve, float share,
    ):
        self.lanes, self.kept = basis.shape[3], (bank, joint, basis, solve)
        self.c.samples, self.c.cols, self.c.hum = bank.shape[0], bank.shape[1], hum
        self.c.rank, self.c.pairs, self.c.share = basis.shape[1], solve.shape[0], share
        if self.c.samples % 8 or self.c.cols > WIDEST or joint.shape[0] != self.c.cols:
            raise ValueError("bank")
        if hum + self.c.rank > self.c.cols or self.c.pairs % 16 or self.c.pairs > MOST_PAIRS:
            raise ValueError("rank")
        if basis.shape[2] != 4 or basis.shape[0] * basis.shape[3] != self.c.pairs:
            raise ValueError("pairs")
        if solve.shape[1] != 4 or solve.shape[2] != self.c.rank:
            raise ValueError("solve")
        self.c.bank, self.c.joint, self.c.basis = &bank[0, 0], &joint[0], &basis[0, 0, 0, 0]
        self.c.solve = &solve[0, 0, 0]


cdef class Judge:
    cdef judge_t c
    cdef tuple kept
    cdef int lanes

    def __init__(self, Window brief, Window lasting, int lanes, dict limits):
        cdef limits_t limit = limits
        if lanes not in (4, 8, 16) or lanes > LANES or brief.c.cols % lanes or lasting.c.cols % lanes:
            raise ValueError("lanes")
        if brief.lanes != lanes or lasting.lanes != lanes:
            raise ValueError("lanes")
        if brief.c.samples * 2 != lasting.c.samples:
            raise ValueError("windows")
        if limit.close > limit.slack * brief.c.share or limit.hop < 1 or limit.every < 1:
            raise ValueError("limits")
        self.kept, self.lanes = (brief, lasting), lanes
        self.c.brief, self.c.lasting, self.c.limit = brief.c, lasting.c, limit

    def __call__(self, const float[:, :] audio, int64_t[::1] yes, int64_t[::1] last):
        cdef Py_ssize_t n = audio.shape[0], total = audio.shape[1], row
        cdef long length = total - self.c.lasting.samples, count = (length + self.c.limit.hop - 1) // self.c.limit.hop
        cdef long end = length - (count - 1) * self.c.limit.hop
        if not n or length <= 0:
            return
        if audio.strides[1] != 4 or yes.shape[0] < n or last.shape[0] < n:
            raise ValueError("audio")
        for row in range(n):
            judge_row(
                self.lanes, &self.c, &audio[row, 0] + self.c.lasting.samples + end - self.c.brief.samples, count, end,
                &yes[row], &last[row],
            )


def look(
    const float[:, :] x, const float[:, ::1] bank, const float[::1] hann, uint8_t[::1] near, float[:, ::1] power,
    float norm, float share, float weakest, float twist,
):
    cdef Py_ssize_t n = x.shape[0], row
    cdef int samples = x.shape[1], lanes = LANES
    if not n:
        return
    if x.strides[1] != 4 or samples % 16 or bank.shape[0] != samples or bank.shape[1] != 16:
        raise ValueError("x")
    if hann.shape[0] != samples or near.shape[0] < n or power.shape[0] < n or power.shape[1] != 8:
        raise ValueError("power")
    for row in range(n):
        near[row] = look_row(
            lanes, &bank[0, 0], &hann[0], samples, &x[row, 0], &power[row, 0], norm, share, weakest, twist
        )


def decode(const uint8_t[:, :] octets, const Py_ssize_t[:] codec, const float[:, ::1] table, float[:, :] out):
    cdef Py_ssize_t n = octets.shape[0], length = octets.shape[1], row
    if not n or not length:
        return
    if octets.strides[1] != 1 or out.strides[1] != 4 or table.shape[1] != 256 or out.shape[0] != n:
        raise ValueError("shape")
    if out.shape[1] != length or codec.shape[0] != n:
        raise ValueError("length")
    for row in range(n):
        decode_row(&table[codec[row], 0], &octets[row, 0], length, &out[row, 0])


def place(
    const Py_ssize_t[:] slots, const uint32_t[:] timestamp, uint32_t length, int32_t resync, uint32_t[::1] expected,
    uint8_t[::1] joined, uint8_t[::1] started, uint8_t[::1] late, uint8_t[::1] gap,
):
    cdef Py_ssize_t row, slot
    cdef int32_t delta
    for row in range(slots.shape[0]):
        slot = slots[row]
        delta = <int32_t>(timestamp[row] - expected[slot])
        late[row] = started[slot] and -resync < delta < 0
        gap[row] = not late[row] and (delta != 0 or not joined[slot])
        if not late[row]:
            expected[slot] = timestamp[row] + length
            joined[slot] = started[slot] = 1


def settle(
    const Py_ssize_t[:] slots, const uint8_t[:] ok, const uint8_t[:] forced, const int64_t[:] yes,
    const int64_t[:] last, int64_t[::1] until, int64_t[::1] run, int64_t[::1] heat, int64_t[::1] seen,
    uint8_t[::1] confirmed, uint8_t[::1] flat, uint8_t[::1] hot, *, int64_t length, int64_t hang, int64_t more,
    int64_t delay, int64_t grid, int64_t span, int64_t strong,
):
    cdef Py_ssize_t row, slot
    cdef int64_t end
    for row in range(slots.shape[0]):
        slot = slots[row]
        flat[row] = hot[row] = 0
        if not ok[row]:
            continue
        end = until[slot]
        if heat[slot] <= 0:
            seen[slot] = 0
        heat[slot] = max(heat[slot] - length, 0)
        if yes[row] > 0:
            seen[slot] += yes[row]
            end = max(end, last[row] + hang + more * yes[row])
            heat[slot] = span + length
        flat[row] = yes[row] > 0 or forced[row] or end > -delay or (
            confirmed[slot] and run[slot] > 0 and (run[slot] < grid or run[slot] % grid >= length)
        )
        until[slot] = end - length
        run[slot] = run[slot] + length if flat[row] else 0
        confirmed[slot] = confirmed[slot] and flat[row]
        hot[row] = seen[slot] >= strong and heat[slot] > 0


def shift(
    const Py_ssize_t[:] slots, const uint8_t[:] ok, const uint8_t[:, :] octets, const Py_ssize_t[:] codec,
    const uint8_t[:, ::1] transcode, uint8_t[:, ::1] before, Py_ssize_t[::1] held, uint8_t[:, ::1] line,
):
    cdef Py_ssize_t n = slots.shape[0], length = octets.shape[1], width = before.shape[1], row, slot, i
    if not n or not length:
        return
    if octets.strides[1] != 1 or octets.shape[0] != n or line.shape[0] != n or line.shape[1] != width + length:
        raise ValueError("octets")
    for row in range(n):
        slot = slots[row]
        memcpy(&line[row, 0], &before[slot, 0], width)
        memcpy(&line[row, 0] + width, &octets[row, 0], length)
        if held[slot] != codec[row]:
            for i in range(width):
                line[row, i] = transcode[1 - codec[row], line[row, i]]
        if ok[row]:
            memcpy(&before[slot, 0], &line[row, 0] + length, width)
            held[slot] = codec[row]


def paint(
    const Py_ssize_t[:] slots, const uint8_t[:] ok, const uint8_t[:] flat, const uint32_t[:] clock,
    const Py_ssize_t[:] codec, const uint8_t[:, ::1] tone, const uint8_t[::1] silence, int64_t[::1] unknown,
    uint8_t[:, ::1] out, int64_t[::1] masked,
):
    cdef Py_ssize_t length = out.shape[1], period = tone.shape[1], row, slot, i, at
    for row in range(slots.shape[0]):
        slot = slots[row]
        masked[row] = 0
        if flat[row]:
            masked[row] = length
            at = clock[row] % period
            for i in range(length):
                out[row, i] = tone[codec[row], at]
                at = at + 1 if at + 1 < period else 0
        elif ok[row] and unknown[slot] > 0:
            masked[row] = min(unknown[slot], length)
            for i in range(masked[row]):
                out[row, i] = silence[codec[row]]
        if ok[row]:
            unknown[slot] = max(unknown[slot] - length, 0)
