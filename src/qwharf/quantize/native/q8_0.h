/* Q8_0: thirty-two whole numbers and their scale. Nothing is searched, so a block is a row here. */

/* The largest of n weights in size; not a number if any is not finite. */
INLINE float largest_of(const float *x, int n) {
    V most = v_set(0), none = v_set(0);
    float m[WIDTH], z[WIDTH], found = 0;
    for (int i = 0; i < n; i += WIDTH) {
        const V a = v_load(x + i);
        most = v_max(most, v_abs(a));
        none = none + a * v_set(0);
    }
    v_store(m, most);
    v_store(z, none);
    for (int i = 0; i < WIDTH; ++i) found = (m[i] > found ? m[i] : found) + z[i];
    return found;
}

/* To the nearest whole number, halves away from zero; for sizes below 2^31. */
INLINE int32_t rounded_away(float f) {
    const uint32_t bits = float_bits(f);
    const float size = bits_float(bits & 0x7fffffffu);
    const int32_t whole = (int32_t)size, sign = (int32_t)bits >> 31;
    /* What is left is never negative, so its bits compare as it does. */
    const int32_t up = (int32_t)float_bits(size - (float)whole) >= 0x3f000000;
    return ((whole + up) ^ sign) - sign;
}

static uint32_t group_q8_0(const float *const *rows, const float *const *importance, int count,
                           uint8_t *out) {
    uint32_t odd = 0;
    (void)importance;
    for (int lane = 0; lane < count; ++lane, out += 34) {
        const float *x = rows[lane];
        const float d = largest_of(x, 32) / 127, factor = d != 0 ? 1 / d : 0;
        if (!usable(d) || !usable(factor)) {
            odd |= 1u << lane;
            continue;
        }
        put_half(out, to_half(d));
        for (int i = 0; i < 32; ++i) out[2 + i] = (uint8_t)rounded_away(x[i] * factor);
    }
    return odd;
}
