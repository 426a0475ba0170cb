/* Where a block's bits go. */

/* Four bits each; weights i and i + 32 of each 64 share a byte. */
INLINE void pack_nibbles(const uint8_t *levels, uint8_t *out) {
    for (int j = 0; j < SUPER / 64; ++j)
        for (int i = 0; i < 32; ++i)
            out[32 * j + i] =
                (uint8_t)((levels[64 * j + i] & 15) | (levels[64 * j + i + 32] & 15) << 4);
}

/* Two bits each; weights i, i + 32, i + 64, i + 96 of each 128 share a byte. */
INLINE void pack_pairs(const uint8_t *levels, int shift, uint8_t *out) {
    for (int j = 0; j < SUPER / 128; ++j) {
        const uint8_t *l = levels + 128 * j;
        for (int i = 0; i < 32; ++i)
            out[32 * j + i] =
                (uint8_t)((l[i] >> shift & 3) | (l[i + 32] >> shift & 3) << 2 |
                          (l[i + 64] >> shift & 3) << 4 | (l[i + 96] >> shift & 3) << 6);
    }
}

/* Bit number `bit` of each; weight i is bit i / 32 of byte i % 32. */
INLINE void pack_bits(const uint8_t *levels, int bit, uint8_t *out) {
    memset(out, 0, 32);
    for (int j = 0; j < SUPER / 32; ++j)
        for (int i = 0; i < 32; ++i)
            out[i] = (uint8_t)(out[i] | (levels[32 * j + i] >> bit & 1) << j);
}
