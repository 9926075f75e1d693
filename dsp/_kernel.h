/* The loops behind dsp/_kernel.pyx: the gate's judgement, the guard's first look, the decoder's frames, G.711 to linear. No state, no memory
   of its own. Vectors are GCC's and clang's; x86-64 gets three builds and picks one when it runs, so that no flag says
   what machine it must be (and no ifunc, which musl and macOS lack). */
#include <stdint.h>

#define WIDEST 96
/* Most columns of a bank, padded. */
#define MOST_PAIRS 160

/* A window as dsp/gate.py's, bank padded to `cols` columns. joint[cols]: 1 for the columns after the hum, 0 for others. */
typedef struct {
    int samples, cols, hum, rank, pairs;
    float share;
    const float *bank, *joint, *basis, *solve;
} window_t;

/* Limits of dsp/gate.py as factors. least: share asked of a short window after near silence. */
typedef struct {
    int hop, every;
    float floor, close, slack, least, weaker, step, vowel, steady, onset, onset_joint, fade, tiny;
} limits_t;

typedef struct {
    window_t brief, lasting;
    limits_t limit;
} judge_t;

#define BATCH 8
/* Frames that are analysed at a time: a packet of 20 ms. */
#define TERMS 8

/* Limits of dsp/decoder.py, those of what is squared squared; and its tables. */
typedef struct {
    int samples, hop, gap;
    float bins, weakest, twist, share, deviation;
    double clip, on, off, cut, rival, trace, mean_share, mean_deviation, wander, deviating, whole, certain;
} marks_t;

typedef struct {
    marks_t limit;
    const float *bank, *hann, *turn, *relative, *response;
    const double *ramp;
} hearing_t;

/* What a frame shows: the tones' power, its energy; of the strongest pair the key, whether it may be one, share of the
   energy, relative deviations. */
typedef struct {
    float power[8], energy, share, low, high;
    int key, good;
} frame_t;

/* State of a slot, RUN of dsp/decoder.py. */
typedef struct {
    int64_t key, told, start, last, end;
    double on, off, good, there, peak, sums[6];
} run_t;

typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define NAME(x) PASTE(x, LANES)

#define LANES 4
#define GROUP 4
#define TARGET
#include "_lanes.h"
#undef LANES
#undef GROUP
#undef TARGET

#if defined(__x86_64__) && defined(__GNUC__)
#define LANES 8
#define GROUP 4
#define TARGET __attribute__((target("avx2,fma")))
#include "_lanes.h"
#undef LANES
#undef GROUP
#undef TARGET

#define LANES 16
#define GROUP 8
#define TARGET __attribute__((target("avx2,fma,avx512f,avx512vl,avx512dq,avx512bw")))
#include "_lanes.h"
#undef LANES
#undef GROUP
#undef TARGET

static int widest_lanes(void) {
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 4;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")
               ? 16
               : 8;
}
#define PICK(lanes, call) ((lanes) == 16 ? call##16 : (lanes) == 8 ? call##8 : call##4)
#else
static int widest_lanes(void) { return 4; }
#define PICK(lanes, call) call##4
#endif

static void judge_row(int lanes, const judge_t *j, const float *x, long count, long end, int64_t *yes, int64_t *last) {
    PICK(lanes, judge)(j, x, count, end, yes, last);
}

static int look_row(
    int lanes, const float *bank, const float *hann, int samples, const float *x, float *power, float norm, float share,
    float weakest, float twist
) {
    return PICK(lanes, look)(bank, hann, samples, x, power, norm, share, weakest, twist);
}

/* Up to BATCH frames; x[0] is the first sample of the window before the first. */
static void hear_row(int lanes, const hearing_t *h, const float *x, long count, frame_t *frames) {
    PICK(lanes, hear)(h, x, (int)count, frames);
}

static void decode_row(const float *table, const unsigned char *octets, long n, float *out) {
    for (long i = 0; i < n; i++) out[i] = table[octets[i]];
}
