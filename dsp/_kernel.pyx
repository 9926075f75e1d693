# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled half of dsp/kernel.py, which says what each of these does. See also _kernel.pyi."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.math cimport sqrt
from libc.string cimport memcpy, memset


cdef extern from "_kernel.h":
    int WIDEST, MOST_PAIRS, TERMS
    enum: BATCH
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
    ctypedef struct marks_t:
        int samples, hop, gap
        float bins, weakest, twist, share, deviation
        double clip, on, off, cut, rival, trace, mean_share, mean_deviation, wander, deviating, whole, certain
    ctypedef struct hearing_t:
        marks_t limit
        const float *bank
        const float *hann
        const float *turn
        const float *relative
        const float *response
        const double *ramp
    ctypedef struct frame_t:
        float power[8]
        float energy, share, low, high
        int key, good
    ctypedef struct run_t:
        int64_t key, told, start, last, end
        double on, off, good, there, peak
        double sums[6]
    int widest_lanes()
    void judge_row(int, const judge_t *, const float *, long, long, int64_t *, int64_t *) nogil
    int look_row(int, const float *, const float *, int, const float *, float *, float, float, float, float) nogil
    void hear_row(int, const hearing_t *, const float *, long, frame_t *) nogil
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


cdef class Hear:
    cdef hearing_t c
    cdef tuple kept
    cdef int lanes
    cdef uint8_t[:, ::1] runs

    def __init__(
        self, const float[:, ::1] bank, const float[::1] hann, const float[:, ::1] turn, const float[::1] relative,
        const float[::1] response, const double[::1] ramp, int lanes, dict limits, uint8_t[:, ::1] runs,
    ):
        cdef marks_t limit = limits
        cdef int samples = limit.samples
        if lanes not in (4, 8, 16) or lanes > LANES:
            raise ValueError("lanes")
        if samples % 16 or bank.shape[0] != samples or bank.shape[1] != 16 or limit.hop < 1:
            raise ValueError("bank")
        if hann.shape[0] != samples or ramp.shape[0] != samples or response.shape[0] != TERMS:
            raise ValueError("window")
        if turn.shape[0] != 2 or turn.shape[1] != 8 or relative.shape[0] != 8:
            raise ValueError("tones")
        if runs.shape[1] != sizeof(run_t):
            raise ValueError("runs")
        self.lanes, self.runs, self.kept = lanes, runs, (bank, hann, turn, relative, response, ramp)
        self.c.limit = limit
        self.c.bank, self.c.hann, self.c.turn, self.c.relative = &bank[0, 0], &hann[0], &turn[0, 0], &relative[0]
        self.c.response, self.c.ramp = &response[0], &ramp[0]

    def __call__(
        self, const Py_ssize_t[:] slots, const float[:, :] audio, const int64_t[:] known, const int64_t[:] position,
        list pressed, list released,
    ):
        cdef Py_ssize_t n = slots.shape[0], row
        cdef const marks_t *h = &self.c.limit
        cdef long hop = h.hop, length = audio.shape[1] - h.samples - hop, taken
        cdef int i, count
        cdef frame_t frames[BATCH]
        cdef run_t *run
        if not n:
            return
        if length < 0 or audio.shape[0] != n or known.shape[0] != n or position.shape[0] != n:
            raise ValueError("rows")
        if audio.strides[1] != 4:
            raise ValueError("audio")
        for row in range(n):
            run = <run_t *>&self.runs[slots[row], 0]
            if known[row] <= 0 and run.key >= 0 and not bridge(h, run, position[row]):
                release(run, row, released)
            taken = hop - (position[row] % hop + hop) % hop
            while taken <= length:
                count = min(BATCH, (length - taken) // hop + 1)
                hear_row(self.lanes, &self.c, &audio[row, 0] + taken, count, frames)
                for i in range(count):
                    if step(&self.c, run, &frames[i], max(known[row], 0) + taken, position[row] + taken):
                        run.told = 1
                        pressed.append((row, run.key, run.start))
                    if run.off >= h.off:
                        release(run, row, released)
                    taken += hop
            run.end = position[row] + length


cdef void blank(run_t *run) noexcept nogil:
    memset(run, 0, sizeof(run_t))
    run.key = -1


cdef void release(run_t *run, Py_ssize_t row, list released):
    if run.told:
        released.append((row, run.last))
    blank(run)


cdef bint bridge(const marks_t *h, run_t *run, int64_t position) noexcept nogil:
    """Carry a run over a gap before the block, if it may be."""
    if <uint32_t>(position - run.end) >= <uint32_t> h.gap:
        return False
    run.on += run.there * h.cut
    run.off += (1 - run.there) * h.cut
    run.there = 0
    return True


cdef bint step(const hearing_t *c, run_t *run, const frame_t *f, int64_t known, int64_t end) noexcept nogil:
    """Take in a frame, of which `known` samples are; whether its run is to be told now."""
    cdef const marks_t *h = &c.limit
    cdef double best, mass, there, full, share = f.share, low = f.low, high = f.high, weight
    cdef bint same
    if f.good and not run.told and f.key != run.key:
        best = level(f, f.key)
        if run.key < 0 or best >= h.clip * run.peak and level(f, run.key) < h.rival * best:
            blank(run)
            run.key, run.start = f.key, end - h.samples * 3 // 4
    if run.key < 0:
        return False
    same = f.good and f.key == run.key
    mass = level(f, run.key)
    if (f.power[run.key // 4] + f.power[4 + run.key % 4]) / f.energy < h.trace:
        mass = 0
    if same and mass > run.peak:
        run.peak = mass
    there = min(mass / (h.clip * run.peak), 1)
    full = min(c.ramp[min(known, h.samples) - 1] / h.clip, 1)
    run.on += there
    run.there = there
    run.off = 0 if same and there >= 0.75 else run.off + max(full - there, 0)
    if same:
        weight = share * share * share * share
        run.sums[0] += weight
        run.sums[1] += weight * share
        run.sums[2] += weight * low
        run.sums[3] += weight * low * low
        run.sums[4] += weight * high
        run.sums[5] += weight * high * high
        run.good += 1
        run.last = end - h.samples // 2
    return not run.told and run.on >= h.on and certain(h, run)


cdef double level(const frame_t *f, int64_t key) noexcept nogil:
    return sqrt(sqrt(<double>f.power[key // 4] * f.power[4 + key % 4]))


cdef bint certain(const marks_t *h, const run_t *run) noexcept nogil:
    cdef double share = run.sums[1] / run.sums[0], certainty = share + h.whole * min(run.good / run.on, 1)
    cdef double mean, square
    cdef int tone
    for tone in range(2, 6, 2):
        mean = run.sums[tone] / run.sums[0]
        square = mean * mean
        if not square <= h.mean_deviation:
            return False
        certainty -= h.wander * max(run.sums[tone + 1] / run.sums[0] - square, 0) + h.deviating * square
    return certainty >= h.certain and share >= h.mean_share


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
