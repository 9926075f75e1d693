/* The loops of dsp/_kernel.h, included once for each width of vector.

   LANES: floats in a vector; TARGET: the attribute of functions that may use it; NAME(x): x with a suffix of its own.
   Comparisons are written the way round that lets what is not a number end as a yes, like dsp/gate.py. */

typedef float NAME(vec) __attribute__((vector_size(4 * LANES)));
typedef float NAME(any) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define VEC NAME(vec)
#define LOAD(p) (*(const NAME(any) *)(p))
#define STORE(p, v) (*(NAME(any) *)(p) = (v))
#define ALIGNED __attribute__((aligned(64)))
#define INLINE TARGET static inline __attribute__((always_inline))

/* Sum of LANES floats. */
INLINE float NAME(sum)(const float *t) {
    four s = *(const four *)t;
    for (int i = 4; i < LANES; i += 4) s += *(const four *)(t + i);
    return (s[0] + s[2]) + (s[1] + s[3]);
}

/* Sum of the squares of x[n], less `mean` each. */
INLINE float NAME(power)(const float *x, int n, float mean) {
    VEC a = {0}, b = {0};
    ALIGNED float t[LANES], rest = 0;
    int i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        VEC u = LOAD(x + i) - mean, v = LOAD(x + i + LANES) - mean;
        a += u * u;
        b += v * v;
    }
    for (; i < n; i++) rest += (x[i] - mean) * (x[i] - mean);
    a += b;
    STORE(t, a);
    return NAME(sum)(t) + rest;
}

INLINE float NAME(mean)(const float *x, int n) {
    VEC a = {0};
    ALIGNED float t[LANES], rest = 0;
    int i = 0;
    for (; i + LANES <= n; i += LANES) a += LOAD(x + i);
    for (; i < n; i++) rest += x[i];
    STORE(t, a);
    return (NAME(sum)(t) + rest) / (float)n;
}

/* nv vectors of columns, from c on, of GROUP products x[g * hop + s] * bank[s + g * skew], s every `step`, into y. */
#define PRODUCT(nv)                                                                                                    \
    do {                                                                                                               \
        VEC acc[GROUP][nv];                                                                                            \
        const float *b = bank + c;                                                                                     \
        for (int g = 0; g < GROUP; g++)                                                                                \
            for (int v = 0; v < nv; v++) acc[g][v] = (VEC){0};                                                         \
        for (int s = 0; s < samples; s += step, b += step * (long)cols)                                                \
            for (int g = 0; g < GROUP; g++)                                                                            \
                for (int v = 0; v < nv; v++) acc[g][v] += x[s + g * hop] * LOAD(b + g * skew + v * LANES);             \
        for (int g = 0; g < GROUP; g++)                                                                                \
            for (int v = 0; v < nv; v++) STORE(y + g * WIDEST + c + v * LANES, acc[g][v]);                             \
    } while (0)

INLINE void NAME(product)(
    const float *bank, int cols, const float *x, int samples, int step, long hop, long skew, float *y
) {
    int c = 0;
    for (; c + 3 * LANES <= cols; c += 3 * LANES) PRODUCT(3);
    if (c + 2 * LANES <= cols) {
        PRODUCT(2);
        c += 2 * LANES;
    }
    if (c < cols) PRODUCT(1);
}
#undef PRODUCT

/* y[g * WIDEST] = windows x[g * hop] @ bank, GROUP of them. */
TARGET static __attribute__((noinline)) void NAME(many)(const window_t *w, const float *x, long hop, float *y) {
    NAME(product)(w->bank, w->cols, x, w->samples, 1, hop, 0, y);
}

/* y[cols] = x @ bank: GROUP sums side by side, added up at the end. samples must be a multiple of GROUP. */
TARGET static __attribute__((noinline)) void NAME(single)(const float *bank, int cols, const float *x, int samples, float *y) {
    ALIGNED float part[GROUP * WIDEST];
    NAME(product)(bank, cols, x, samples, GROUP, 1, cols, part);
    for (int c = 0; c < cols; c += LANES) {
        VEC a = LOAD(part + c);
        for (int g = 1; g < GROUP; g++) a += LOAD(part + g * WIDEST + c);
        STORE(y + c, a);
    }
}

INLINE float NAME(joint)(const window_t *w, const float *y) {
    VEC a = {0};
    ALIGNED float t[LANES];
    for (int c = 0; c < w->cols; c += LANES) {
        VEC v = LOAD(y + c);
        a += v * (v * LOAD(w->joint + c));
    }
    STORE(t, a);
    return NAME(sum)(t);
}

INLINE float NAME(hum)(const window_t *w, const float *y) {
    float sum = 0;
    for (int c = 0; c < w->hum; c++) sum += y[c] * y[c];
    return sum;
}

/* Energy that each of the pairs explains of y, e[pairs]; the most of them. */
TARGET static __attribute__((noinline)) float NAME(explained)(const window_t *w, const float *y, float *e) {
    const float *inside = y + w->hum, *row = w->basis;
    ALIGNED float most[LANES] = {0};
    for (int p = 0; p < w->pairs; p += LANES) {
        VEC a = {0}, b = {0}, c = {0}, d = {0};
        for (int r = 0; r < w->rank; r++, row += 4 * LANES) {
            a += inside[r] * LOAD(row);
            b += inside[r] * LOAD(row + LANES);
            c += inside[r] * LOAD(row + 2 * LANES);
            d += inside[r] * LOAD(row + 3 * LANES);
        }
        STORE(e + p, (a * a + b * b) + (c * c + d * d));
    }
    for (int p = 0; p < w->pairs; p += LANES)
        for (int l = 0; l < LANES; l++) most[l] = e[p + l] > most[l] ? e[p + l] : most[l];
    for (int l = 1; l < LANES; l++) most[0] = most[l] > most[0] ? most[l] : most[0];
    return most[0];
}

/* Whether y, the coordinates of a window of that energy, is a pair: `best` gets what it explains. */
TARGET static int NAME(pair)(const judge_t *j, const window_t *w, const float *y, float energy, float limit, float *best) {
    ALIGNED float e[MOST_PAIRS], c[4] = {0, 0, 0, 0};
    *best = NAME(explained)(w, y, e);
    if (*best < limit * energy) return 0;
    int at = 0;
    while (at < w->pairs - 1 && e[at] != *best) at++;
    const float *solve = w->solve + (long)at * 4 * w->rank, *inside = y + w->hum;
    for (int k = 0; k < 4; k++)
        for (int r = 0; r < w->rank; r++) c[k] += solve[k * w->rank + r] * inside[r];
    float low = c[0] * c[0] + c[2] * c[2], high = c[1] * c[1] + c[3] * c[3];
    return !((low < high ? low : high) < j->limit.weaker * (low + high));
}

/* Whether a short window x, which may be a pair, is no vowel: `_plausible` of dsp/gate.py. */
TARGET static int NAME(plausible)(const judge_t *j, const float *x, const float *y, float energy, float total, float best) {
    const window_t *w = &j->brief, *l = &j->lasting;
    const int half = w->samples / 2;
    const float *past = x - w->samples;
    ALIGNED float z[WIDEST], e[MOST_PAIRS];
    float first = NAME(power)(x, half, NAME(mean)(x, half));
    float second = NAME(power)(x + half, half, NAME(mean)(x + half, half));
    if (first > j->limit.fade * second) return 0;
    float loud = NAME(power)(past, w->samples, 0);
    NAME(single)(w->bank, w->cols, past, w->samples, z);
    float before = loud - NAME(hum)(w, z);
    if (best / (energy + j->limit.tiny) < w->share && !(before <= j->limit.onset * energy && NAME(joint)(w, y) >= j->limit.onset_joint * energy))
        return 0;
    if (!(loud > j->limit.step * total) || NAME(explained)(w, z, e) / (before + j->limit.tiny) < j->limit.vowel) return 1;
    NAME(single)(l->bank, l->cols, past, l->samples, z);
    return NAME(explained)(l, z, e) / (NAME(power)(past, l->samples, 0) - NAME(hum)(l, z) + j->limit.tiny) >= j->limit.steady;
}

/* Judge one row: x[0] is the first window's first sample, `end` where that window ends in the block. */
TARGET static void NAME(judge)(const judge_t *j, const float *x, long count, long end, int64_t *yes, int64_t *last) {
    const window_t *w = &j->brief, *l = &j->lasting;
    ALIGNED float y[GROUP * WIDEST], z[WIDEST], total[GROUP], best;
    for (long k = 0; k < count; k += GROUP) {
        /* The last group begins early enough to be whole, where there are as many windows. */
        long start = k + GROUP <= count || count < GROUP ? k : count - GROUP;
        int g, loud = 0, many = count - start < GROUP ? (int)(count - start) : GROUP;
        for (g = (int)(k - start); g < many; g++) {
            total[g] = NAME(power)(x + (start + g) * j->limit.hop, w->samples, 0);
            loud |= !(total[g] <= j->limit.floor * (float)w->samples);
        }
        if (!loud) continue;
        if (many == GROUP)
            NAME(many)(w, x + start * j->limit.hop, j->limit.hop, y);
        else
            for (g = 0; g < many; g++) NAME(single)(w->bank, w->cols, x + (start + g) * j->limit.hop, w->samples, y + g * WIDEST);
        for (g = (int)(k - start); g < many; g++) {
            const float *at = x + (start + g) * j->limit.hop, *inside = y + g * WIDEST;
            float energy = total[g] - NAME(hum)(w, inside), joint = NAME(joint)(w, inside);
            int found = 0;
            if (energy <= j->limit.floor * (float)w->samples || joint < j->limit.close * energy) continue;
            if (!(joint < j->limit.slack * w->share * energy))
                found = NAME(pair)(j, w, inside, energy, j->limit.least, &best) &&
                        NAME(plausible)(j, at, inside, energy, total[g], best);
            if ((count - 1 - start - g) % j->limit.every == 0) {
                const float *from = at + w->samples - l->samples;
                float whole = NAME(power)(from, l->samples, 0);
                if (!(whole <= j->limit.floor * (float)l->samples)) {
                    NAME(single)(l->bank, l->cols, from, l->samples, z);
                    whole -= NAME(hum)(l, z);
                    if (!(whole <= j->limit.floor * (float)l->samples || NAME(joint)(l, z) < j->limit.slack * l->share * whole))
                        found += NAME(pair)(j, l, z, whole, l->share, &best);
                }
            }
            if (found) {
                *yes += found;
                *last = end + (start + g) * j->limit.hop;
            }
        }
    }
}

/* The guard's first look at x[samples]: power[8] of the tones; whether two of them are most of it. */
TARGET static int NAME(look)(
    const float *bank, const float *hann, int samples, const float *x, float *power, float norm, float share,
    float weakest, float twist
) {
    ALIGNED float y[16], t[LANES];
    VEC a = {0};
    NAME(single)(bank, 16, x, samples, y);
    for (int i = 0; i < samples; i += LANES) {
        VEC v = LOAD(x + i);
        a += v * v * LOAD(hann + i);
    }
    STORE(t, a);
    for (int k = 0; k < 8; k++) power[k] = y[k] * y[k] + y[k + 8] * y[k + 8];
    float low = power[0], high = power[4];
    for (int k = 1; k < 4; k++) {
        low = power[k] > low ? power[k] : low;
        high = power[k + 4] > high ? power[k + 4] : high;
    }
    float less = low < high ? low : high, more = low < high ? high : low;
    return (low + high) * norm >= share * NAME(sum)(t) && less >= weakest && more <= twist * less;
}

/* atan2 to 1e-7, without branches: the loop over tones becomes vectors. */
INLINE float NAME(angle)(float y, float x) {
    float u = __builtin_fabsf(x), v = __builtin_fabsf(y), less = u < v ? u : v, more = u < v ? v : u;
    float a = less / (more + 1e-37f), s = a * a;
    float r = a * (1.f + s * (-0.33333066f + s * (0.19992484f + s * (-0.14202571f + s * (0.10636754f + s * (-0.07495446f
              + s * (0.04258761f + s * (-0.01600503f + s * 0.00283406f))))))));
    r = u < v ? 1.57079633f - r : r;
    r = x < 0 ? 3.14159265f - r : r;
    return __builtin_copysignf(r, y);
}

/* `_frames` of dsp/decoder.py for a row. */
TARGET static void NAME(hear)(const hearing_t *h, const float *x, int count, frame_t *frames) {
    ALIGNED float y[(BATCH + 1) * WIDEST], t[LANES], off[8];
    int w = 0;
    for (; w + GROUP <= count + 1; w += GROUP)
        NAME(product)(h->bank, 16, x + w * h->limit.hop, h->limit.samples, 1, h->limit.hop, 0, y + w * WIDEST);
    for (; w <= count; w++) NAME(single)(h->bank, 16, x + w * h->limit.hop, h->limit.samples, y + w * WIDEST);
    for (w = 0; w < count; w++) {
        const float *was = y + w * WIDEST, *is = was + WIDEST, *at = x + (w + 1) * h->limit.hop;
        frame_t *f = frames + w;
        VEC a = {0};
        for (int i = 0; i < h->limit.samples; i += LANES) {
            VEC v = LOAD(at + i);
            a += v * v * LOAD(h->hann + i);
        }
        STORE(t, a);
        f->energy = NAME(sum)(t) + 1e-12f;
        for (int k = 0; k < 8; k++) {
            float re = is[k] * was[k] + is[k + 8] * was[k + 8], im = is[k + 8] * was[k] - is[k] * was[k + 8];
            float turn = NAME(angle)(re * h->turn[k + 8] + im * h->turn[k], re * h->turn[k] - im * h->turn[k + 8]);
            float bins = __builtin_fabsf(turn) * h->limit.bins, square, passed = 0;
            bins = bins < 0.9f ? bins : 0.9f;
            square = bins * bins;
            for (int i = TERMS - 1; i >= 0; i--) passed = passed * square + h->response[i];
            off[k] = turn * h->relative[k];
            f->power[k] = (is[k] * is[k] + is[k + 8] * is[k + 8]) / (passed * passed);
        }
        int low = 0, high = 4;
        for (int k = 1; k < 4; k++) {
            low = f->power[k] > f->power[low] ? k : low;
            high = f->power[k + 4] > f->power[high] ? k + 4 : high;
        }
        float one = f->power[low], other = f->power[high], share = (one + other) / f->energy;
        float weak = one < other ? one : other, strong = one < other ? other : one;
        f->key = low * 4 + high - 4;
        f->share = share < 1 ? share : 1;
        f->low = off[low];
        f->high = off[high];
        f->good = f->share >= h->limit.share && weak >= h->limit.weakest && strong <= h->limit.twist * weak &&
                  __builtin_fabsf(f->low) <= h->limit.deviation && __builtin_fabsf(f->high) <= h->limit.deviation;
    }
}

#undef VEC
#undef LOAD
#undef STORE
#undef INLINE
#undef ALIGNED
