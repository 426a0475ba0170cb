/*
 * Block quantisers that give the same bytes as llama.cpp's, many blocks at a time.
 *
 * The vector kernels do what can be done exactly in them. A block that cannot (infinities, a scale
 * that vanishes in half precision, numbers so large or small that rounding would leave the exact
 * range) is handed to `reference`, which is llama.cpp's own ggml_quantize_chunk; so there is no
 * second implementation here that could differ from it.
 */
#include <cpuid.h>
#include <immintrin.h>

#include "kernels.h"

#define EXPORT __attribute__((visibility("default")))

typedef size_t (*reference_function)(int type, const float *x, void *out, int64_t start,
                                     int64_t rows, int64_t columns, const float *importance);

enum { UNKNOWN_TYPE = -1, NOT_HERE = -2, BAD_SHAPE = -3 };

static const kernel_set *const SETS[] = {&kernels_sse2, &kernels_avx2, &kernels_avx512};

/* Which vector registers the operating system saves, as bits. */
static uint32_t saved_registers(void) {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/*
 * The highest level that this processor and its operating system can run. Asked of the processor
 * itself: __builtin_cpu_supports needs a part of the compiler's run-time library that not every
 * tool chain brings.
 */
EXPORT int qwharf_kernels_level(void) {
    const uint32_t avx = 6, avx512 = 0xe6;             /* of xgetbv */
    const uint32_t osxsave = 1u << 27, avx2 = 1u << 5; /* of leaves 1 (ecx) and 7 (ebx) */
    const uint32_t wide = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & osxsave)) return 0;
    const uint32_t saved = saved_registers();
    if ((saved & avx) != avx || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & avx2)) return 0;
    return (saved & avx512) == avx512 && (b & wide) == wide ? 2 : 1;
}

EXPORT const char *qwharf_kernels_level_name(int level) {
    return level < 0 || level > 2 ? "none" : SETS[level]->name;
}

/* Denormals count, and rounding is to nearest, whatever the caller's thread is set to. */
enum { PLAIN_MODE = 0x1f80 };

static const kernel *find(int level, int type) {
    for (int i = 0; i < SETS[level]->count; ++i)
        if (SETS[level]->kernels[i].type == type) return &SETS[level]->kernels[i];
    return NULL;
}

/*
 * Quantises rows of `columns` weights each, which lie one after the other.
 *
 *   level       0 SSE2, 1 AVX2, 2 AVX-512; at most qwharf_kernels_level()
 *   type        ggml's number of the block type
 *   source      0 float, 1 half, 2 bfloat16
 *   importance  one per column, or NULL
 *
 * Returns how many blocks went to `reference`, or a negative number: UNKNOWN_TYPE, NOT_HERE for a
 * level above the processor's, BAD_SHAPE when rows are not whole blocks.
 */
EXPORT int64_t qwharf_kernels_quantize(int level, int type, int source, const void *from,
                                       void *to, int64_t rows, int64_t columns,
                                       const float *importance, reference_function reference) {
    if (level < 0 || level > qwharf_kernels_level()) return NOT_HERE;
    const kernel *const k = find(level, type);
    if (!k || source < F32 || source > BF16) return UNKNOWN_TYPE;
    if (rows < 0 || columns <= 0 || columns % k->elements) return BAD_SHAPE;

    const group_kernel run = importance ? k->weighted : k->plain;
    const int lanes = SETS[level]->lanes, elements = k->elements;
    const int64_t across = columns / elements, blocks = rows * across;
    float wide[MAX_LANES * SUPER] __attribute__((aligned(64)));
    const float *x[MAX_LANES], *weights[MAX_LANES];
    uint8_t *out = to;
    int64_t redone = 0;

    const unsigned int saved = _mm_getcsr();
    _mm_setcsr(PLAIN_MODE);
    for (int64_t first = 0; first < blocks; first += lanes) {
        const int count = blocks - first < lanes ? (int)(blocks - first) : lanes;
        const char *at = (const char *)from + first * elements * (source == F32 ? 4 : 2);
        const float *floats = as_floats(at, source, (size_t)count * elements, wide);
        for (int lane = 0; lane < lanes; ++lane) {
            const int block = lane < count ? lane : count - 1;
            x[lane] = floats + block * elements;
            weights[lane] = importance ? importance + (first + block) % across * elements : NULL;
        }
        uint32_t odd = run(x, weights, count, out);
        for (int lane = 0; lane < count; ++lane, odd >>= 1, out += k->bytes) {
            if (!(odd & 1)) continue;
            reference(type, x[lane], out, 0, 1, elements, weights[lane]);
            ++redone;
        }
    }
    _mm_setcsr(saved);
    return redone;
}

/*
 * MLX's words, scales and biases of `elements` finite weights, whole groups, one after the other.
 * Returns 0, or NOT_HERE or BAD_SHAPE as above.
 */
EXPORT int64_t qwharf_kernels_mlx(int level, int source, const void *from, int64_t elements,
                                  int group, int bits, uint8_t *words, float *scales,
                                  float *biases) {
    float wide[SUPER * 16] __attribute__((aligned(64)));
    const int64_t step = sizeof wide / sizeof *wide;
    if (level < 0 || level > qwharf_kernels_level()) return NOT_HERE;
    if (source < F32 || source > BF16 || elements < 0 || bits < 2 || bits > 8 || bits == 7 ||
        (group != 32 && group != 64 && group != 128) || elements % group)
        return BAD_SHAPE;
    const unsigned int saved = _mm_getcsr();
    _mm_setcsr(PLAIN_MODE);
    for (int64_t first = 0; first < elements; first += step) {
        const int64_t n = elements - first < step ? elements - first : step;
        const char *at = (const char *)from + first * (source == F32 ? 4 : 2);
        SETS[level]->mlx(as_floats(at, source, (size_t)n, wide), n / group, group, bits,
                         words + first / 8 * bits, scales + first / group,
                         biases + first / group);
    }
    _mm_setcsr(saved);
    return 0;
}

/*
 * e4m3 patterns of a matrix of finite weights, and the scale of each block of 128 x 128, of which
 * those at the edges may be smaller. Returns as above.
 */
EXPORT int64_t qwharf_kernels_fp8(int level, int source, const void *from, int64_t rows,
                                  int64_t columns, uint8_t *to, float *scales) {
    if (level < 0 || level > qwharf_kernels_level()) return NOT_HERE;
    if (source < F32 || source > BF16 || rows < 0 || columns < 0) return BAD_SHAPE;
    const unsigned int saved = _mm_getcsr();
    _mm_setcsr(PLAIN_MODE);
    SETS[level]->fp8(from, source, rows, columns, to, scales);
    _mm_setcsr(saved);
    return 0;
}
