/*
 * e4m3 with a scale per 128 x 128 block, as formats/weights/fp8.py has it: the same operations in
 * the same order. Weights must be finite.
 */

/* The nearest e4m3 number, ties to even; what is beyond the largest becomes the largest. */
INLINE uint8_t to_e4m3(float f) {
    const uint32_t bits = float_bits(f), size = bits & 0x7fffffffu;
    /* From 2^-6 on: exponent and three bits of the fraction, the rest rounded into them. */
    const int32_t normal = (int32_t)((size + 0x7ffffu + (size >> 20 & 1)) >> 20) - 960;
    /* Below: units of 2^-9, which is what the last bit of a number from 2^14 on counts. */
    const int32_t small = (int32_t)float_bits(bits_float(size) + 0x1p14f) - 0x46800000;
    /* Not by ?:, which the compiler makes a branch of. */
    const int32_t below = -(int32_t)(size < 0x3c800000u);
    const int32_t code = (small & below) | (normal & ~below);
    return (uint8_t)((uint32_t)(code < 0x7e ? code : 0x7e) | (bits >> 24 & 0x80u));
}

INLINE float to_bf16_and_back(float f) {
    const uint32_t bits = float_bits(f);
    return bits_float((bits + 0x7fffu + (bits >> 16 & 1)) & 0xffff0000u);
}

/* A block of height x width weights, at most 128 of each, in rows of `columns`. */
INLINE float fp8_block(const char *from, int source, int height, int width, int64_t columns,
                       uint8_t *to) {
    const int64_t row_bytes = columns * (source == F32 ? 4 : 2);
    float buffer[FP8_BLOCK] ALIGNED;
    int32_t most = 0; /* as bits: without a sign, floats compare as they do */
    for (int r = 0; r < height; ++r) {
        const float *x = as_floats(from + r * row_bytes, source, width, buffer);
        for (int i = 0; i < width; ++i) {
            const int32_t size = (int32_t)(float_bits(x[i]) & 0x7fffffffu);
            most = size > most ? size : most;
        }
    }
    float scale = to_bf16_and_back(bits_float((uint32_t)most) / 448);
    if (scale < 0x1p-120f) scale = 0x1p-120f;
    for (int r = 0; r < height; ++r) {
        const float *x = as_floats(from + r * row_bytes, source, width, buffer);
        for (int i = 0; i < width; ++i) to[r * columns + i] = to_e4m3(x[i] / scale);
    }
    return scale;
}

/* All blocks of a matrix; scales lie row by row. */
static void fp8(const void *from, int source, int64_t rows, int64_t columns, uint8_t *to,
                float *scales) {
    const int64_t element_bytes = source == F32 ? 4 : 2;
    for (int64_t r = 0; r < rows; r += FP8_BLOCK) {
        for (int64_t c = 0; c < columns; c += FP8_BLOCK) {
            const int height = rows - r < FP8_BLOCK ? (int)(rows - r) : FP8_BLOCK;
            const int width = columns - c < FP8_BLOCK ? (int)(columns - c) : FP8_BLOCK;
            const int64_t at = r * columns + c;
            const char *first = (const char *)from + at * element_bytes;
            *scales++ = fp8_block(first, source, height, width, columns, to + at);
        }
    }
}
