/*
 * MLX's affine groups, as formats/weights/mlx.py has them: the same operations in the same order.
 * Weights must be finite. Scales that overflow come out infinite, and the levels then mean nothing.
 */

/* To the nearest whole number, ties to even, whatever the size. */
INLINE float whole(float f) {
    const float size = size_of(f), near = (size + 8388608.0f) - 8388608.0f;
    const float found = size < 8388608.0f ? near : size;
    return f < 0 ? -found : found;
}

/* Eight numbers of `bits` bits, one in each byte, side by side, the first lowest. */
INLINE uint64_t squeezed(const uint8_t *levels, int bits) {
    uint64_t v;
    memcpy(&v, levels, sizeof v);
    if (bits == 8) return v;
    v = (v & 0x00ff00ff00ff00ffu) | (v & 0xff00ff00ff00ff00u) >> (8 - bits);
    v = (v & 0x0000ffff0000ffffu) | (v & 0xffff0000ffff0000u) >> (16 - 2 * bits);
    return (v & 0x00000000ffffffffu) | (v & 0xffffffff00000000u) >> (32 - 4 * bits);
}

INLINE void range_of(const float *x, int n, float *low, float *high) {
    V least = v_load(x), most = least;
    float l[WIDTH], h[WIDTH];
    for (int i = WIDTH; i < n; i += WIDTH) {
        least = v_min(least, v_load(x + i));
        most = v_max(most, v_load(x + i));
    }
    v_store(l, least);
    v_store(h, most);
    *low = l[0], *high = h[0];
    for (int i = 1; i < WIDTH; ++i) {
        if (l[i] < *low) *low = l[i];
        if (h[i] > *high) *high = h[i];
    }
}

INLINE void mlx_groups(const float *x, int64_t groups, int group, int bits, uint8_t *words,
                       float *scales, float *biases) {
    const int top = (1 << bits) - 1;
    for (int64_t g = 0; g < groups; ++g, x += group) {
        uint8_t levels[128] ALIGNED;
        float low, high;
        range_of(x, group, &low, &high);
        const int from_low = size_of(low) > size_of(high);
        const float edge = from_low ? low : high;
        float scale = (high - low) / (float)top, bias = 0;
        if (scale < 1e-7f) scale = 1e-7f;
        if (!from_low) scale = -scale;
        const float steps = whole(edge / scale);
        if (steps != 0) {
            scale = edge / steps;
            bias = edge;
        }
        scales[g] = scale;
        biases[g] = bias;
        for (int i = 0; i < group; i += 16) round16(x + i, -bias, scale, 0, top, 0, levels + i);
        for (int i = 0; i < group; i += 8, words += bits) {
            const uint64_t packed = squeezed(levels + i, bits);
            memcpy(words, &packed, (size_t)bits);
        }
    }
}

/* For each number of bits its own loop, with constants for shifts and lengths. */
static void mlx(const float *x, int64_t groups, int group, int bits, uint8_t *words,
                float *scales, float *biases) {
    switch (bits) {
    case 2: mlx_groups(x, groups, group, 2, words, scales, biases); break;
    case 3: mlx_groups(x, groups, group, 3, words, scales, biases); break;
    case 4: mlx_groups(x, groups, group, 4, words, scales, biases); break;
    case 5: mlx_groups(x, groups, group, 5, words, scales, biases); break;
    case 6: mlx_groups(x, groups, group, 6, words, scales, biases); break;
    default: mlx_groups(x, groups, group, 8, words, scales, biases);
    }
}
