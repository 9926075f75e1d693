/* The loops behind dsp/_kernel.pyx: the gate's judgement, the guard's first look, G.711 to linear. No state, no memory
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

static void decode_row(const float *table, const unsigned char *octets, long n, float *out) {
    for (long i = 0; i < n; i++) out[i] = table[octets[i]];
}
