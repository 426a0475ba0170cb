/*
 * The searches, one group of weights per vector lane. Included by each instruction set's file
 * after its vector operations.
 *
 * A tile holds the i-th weight of every lane's group side by side: x[i * LANES + lane]. Sums run
 * over i in order and every operation rounds once, as in the scalar program that these follow, so
 * each lane holds exactly that program's numbers.
 */

#define VECTORS 2 /* side by side: hides the latency of the sums */
#define LANES (WIDTH * VECTORS)
#define ALIGNED __attribute__((aligned(64)))
#define LARGEST 3.0e38f

#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 4")
#endif
#define EACH UNROLLED for (int k = 0; k < VECTORS; ++k)

INLINE V at(const float *tile, int i, int k) { return v_load(tile + i * LANES + k * WIDTH); }
INLINE void put(float *tile, int i, int k, V a) { v_store(tile + i * LANES + k * WIDTH, a); }
INLINE M not_finite(V a) { return m_not(v_lt(v_abs(a), v_set(LARGEST))); }

/* A bit per lane of both vectors. */
INLINE uint32_t lane_bits(const M *m) {
    uint32_t bits = 0;
    EACH bits |= m_bits(m[k]) << (k * WIDTH);
    return bits;
}

/* n columns from `first` on, of every lane's row. */
static void gather(const float *const *rows, int first, int n, float *tile) {
    for (int k = 0; k < VECTORS; ++k)
        for (int i = 0; i < n; i += WIDTH)
            transpose(rows + k * WIDTH, first + i, tile + i * LANES + k * WIDTH, LANES);
}

/* ------------------------------------------------------------------ x = scale * l + low, l >= 0 */

typedef struct {
    int n, top;        /* weights of a group; the largest l */
    int steps;         /* candidates */
    float from, by;    /* their ranges: top + from, top + from + by, ... levels */
    int absolute;      /* the error is |difference|, not its square */
} affine;

typedef struct {
    V scale[VECTORS], low[VECTORS], weight[VECTORS];
    uint32_t flat;     /* lanes whose l are all zero */
    uint32_t odd;      /* lanes not done exactly */
} affine_fit;

INLINE V affine_error(V scale, V l, V low, V x, V w, int absolute) {
    const V difference = scale * l + low - x;
    if (absolute) return w * v_abs(difference);
    return w * (difference * difference);
}

/* Rounds with the given factor and sums; l goes to `levels`. */
INLINE void affine_sums(const float *x, const float *w, int n, float top, int below, int above,
                        const V *factor, const V *low, float *levels, V *sl, V *sll, V *slx) {
    EACH sl[k] = sll[k] = slx[k] = v_set(0);
    for (int i = 0; i < n; ++i) {
        EACH {
            const V xi = at(x, i, k);
            V l = v_rint(factor[k] * (xi - low[k]));
            if (above) l = v_min(l, v_set(top));
            if (below) l = v_max(l, v_set(0));
            put(levels, i, k, l);
            const V wl = at(w, i, k) * l;
            sl[k] = sl[k] + wl;
            sll[k] = sll[k] + wl * l;
            slx[k] = slx[k] + wl * xi;
        }
    }
}

/*
 * Least squares for a series of roundings; the best wins. A winner moves `low`, from where the
 * next candidate starts, so candidates cannot be taken out of order.
 *
 * Clamping is left out where no lane can need it: above, when the candidate's range ends well
 * below top + 1/2; below, when even the smallest weight of each lane rounds to zero or more.
 */
INLINE void fit_affine(const float *x, const float *w, affine a, affine_fit *fit) {
    float levels[32 * LANES] ALIGNED;
    V least[VECTORS], most[VECTORS], low[VECTORS], scale[VECTORS], sw[VECTORS], sx[VECTORS];
    V best[VECTORS];
    M flat[VECTORS], odd[VECTORS];
    const V zero = v_set(0), far = v_set(4e6f), top = v_set((float)a.top);

    EACH {
        least[k] = most[k] = at(x, 0, k);
        sw[k] = at(w, 0, k);
        sx[k] = sw[k] * least[k];
    }
    for (int i = 1; i < a.n; ++i) {
        EACH {
            const V xi = at(x, i, k), wi = at(w, i, k);
            least[k] = v_min(xi, least[k]);
            most[k] = v_max(xi, most[k]);
            sw[k] = sw[k] + wi;
            sx[k] = sx[k] + wi * xi;
        }
    }
    V factor[VECTORS];
    EACH {
        low[k] = v_min(zero, least[k]);
        flat[k] = m_not(v_gt(most[k], low[k]));
        factor[k] = top / (most[k] - low[k]);
        odd[k] = m_not(v_lt(factor[k], v_set(LARGEST)));
        scale[k] = v_set(1) / factor[k];
        best[k] = zero;
    }
    for (int i = 0; i < a.n; ++i) {
        EACH {
            const V xi = at(x, i, k);
            const V l = v_rint(factor[k] * (xi - low[k]));
            best[k] = best[k] + affine_error(scale[k], l, low[k], xi, at(w, i, k), a.absolute);
        }
    }

    for (int s = 0; s < a.steps; ++s) {
        const float range = a.from + a.by * s + a.top;
        const int above = range > (float)a.top + 0.4f;
        uint32_t below = 0;
        V sl[VECTORS], sll[VECTORS], slx[VECTORS], e[VECTORS];
        EACH {
            const V width = most[k] - low[k];
            factor[k] = v_set(range) / width;
            const V lowest = factor[k] * (least[k] - low[k]);
            below |= m_bits(v_lt(lowest, v_set(-0.4f)));
            /* Rounding is exact only far from 2^22; the negated comparison catches NaN, too. */
            odd[k] = m_or(odd[k], m_not(m_and(v_gt(width, zero), v_lt(v_abs(lowest), far))));
        }
        if (below)
            affine_sums(x, w, a.n, (float)a.top, 1, 1, factor, low, levels, sl, sll, slx);
        else if (above)
            affine_sums(x, w, a.n, (float)a.top, 0, 1, factor, low, levels, sl, sll, slx);
        else
            affine_sums(x, w, a.n, (float)a.top, 0, 0, factor, low, levels, sl, sll, slx);

        V new_scale[VECTORS], new_low[VECTORS];
        M solved[VECTORS];
        EACH {
            const V d = sw[k] * sll[k] - sl[k] * sl[k];
            solved[k] = v_gt(d, zero);
            new_scale[k] = (sw[k] * slx[k] - sx[k] * sl[k]) / d;
            new_low[k] = (sll[k] * sx[k] - sl[k] * slx[k]) / d;
            const M positive = v_gt(new_low[k], zero);
            if (m_bits(positive)) {
                new_scale[k] = v_pick(positive, slx[k] / sll[k], new_scale[k]);
                new_low[k] = v_pick(positive, zero, new_low[k]);
            }
            e[k] = zero;
        }
        for (int i = 0; i < a.n; ++i) {
            EACH e[k] = e[k] + affine_error(new_scale[k], at(levels, i, k), new_low[k],
                                            at(x, i, k), at(w, i, k), a.absolute);
        }
        EACH {
            const M better = m_and(solved[k], v_lt(e[k], best[k]));
            best[k] = v_pick(better, e[k], best[k]);
            scale[k] = v_pick(better, new_scale[k], scale[k]);
            low[k] = v_pick(better, new_low[k], low[k]);
        }
    }
    EACH {
        fit->scale[k] = scale[k];
        fit->low[k] = low[k];
        fit->weight[k] = sw[k];
        odd[k] = m_and(odd[k], m_not(flat[k]));
        odd[k] = m_or(odd[k], m_or(not_finite(sw[k]), not_finite(sx[k])));
        odd[k] = m_or(odd[k], m_or(not_finite(scale[k]), not_finite(low[k])));
        /* A negative scale would wrap around in the block's unsigned bytes. */
        odd[k] = m_or(odd[k], v_lt(scale[k], zero));
    }
    fit->flat = lane_bits(flat);
    fit->odd = lane_bits(odd);
}

/* ------------------------------------------------------------------- x = scale * l, l of any sign */

typedef struct {
    V scale[VECTORS];
    V factor[VECTORS]; /* what the winner multiplied with before rounding */
    M zero[VECTORS];   /* lanes with no weight worth mentioning: l = 0 without the usual offset */
    M odd[VECTORS];
} symmetric_fit;

/* The element of largest size, with its sign; the first of equals. */
INLINE void largest(const float *x, int n, V *size, V *value) {
    EACH size[k] = value[k] = v_set(0);
    for (int i = 0; i < n; ++i) {
        EACH {
            const V xi = at(x, i, k), ax = v_abs(xi);
            const M more = v_gt(ax, size[k]);
            size[k] = v_pick(more, ax, size[k]);
            value[k] = v_pick(more, xi, value[k]);
        }
    }
}

INLINE void symmetric_sums(const float *x, const float *w, const float *wx, int n, float top,
                           int below, const V *factor, V *slx, V *sll) {
    EACH slx[k] = sll[k] = v_set(0);
    for (int i = 0; i < n; ++i) {
        EACH {
            V l = v_min(v_rint(factor[k] * at(x, i, k)), v_set(top - 1));
            if (below) l = v_max(l, v_set(-top));
            slx[k] = slx[k] + at(wx, i, k) * l;
            sll[k] = sll[k] + at(w, i, k) * l * l;
        }
    }
}

/* 19 roundings, the first without stretch; the best wins. wx[i] must be w[i] * x[i]. */
INLINE void fit_symmetric(const float *x, const float *w, const float *wx, int n, int top,
                          symmetric_fit *fit) {
    V size[VECTORS], value[VECTORS], slx[VECTORS], sll[VECTORS], best[VECTORS], factor[VECTORS];
    const V zero = v_set(0);
    largest(x, n, size, value);
    EACH fit->factor[k] = factor[k] = v_set((float)-top) / value[k];
    symmetric_sums(x, w, wx, n, (float)top, 0, factor, slx, sll);
    EACH {
        fit->zero[k] = v_lt(size[k], v_set(TINY));
        fit->scale[k] = v_pick(v_ne(sll[k], zero), slx[k] / sll[k], zero);
        best[k] = fit->scale[k] * slx[k];
        fit->odd[k] = m_or(not_finite(slx[k]), not_finite(sll[k]));
    }
    for (int s = -9; s <= 9; ++s) {
        if (s == 0) continue;
        const float range = -(top + 0.1f * s);
        EACH factor[k] = v_set(range) / value[k];
        if (s > 4)
            symmetric_sums(x, w, wx, n, (float)top, 1, factor, slx, sll);
        else /* even the largest weight stays above -(top + 1/2) */
            symmetric_sums(x, w, wx, n, (float)top, 0, factor, slx, sll);
        EACH {
            const M better = m_and(v_gt(sll[k], zero), v_gt(slx[k] * slx[k], best[k] * sll[k]));
            const V scale = slx[k] / sll[k];
            fit->scale[k] = v_pick(better, scale, fit->scale[k]);
            fit->factor[k] = v_pick(better, factor[k], fit->factor[k]);
            best[k] = v_pick(better, scale * slx[k], best[k]);
        }
    }
    EACH {
        fit->scale[k] = v_pick(fit->zero[k], zero, fit->scale[k]);
        fit->odd[k] = m_and(fit->odd[k], m_not(fit->zero[k]));
        fit->odd[k] = m_or(fit->odd[k], m_or(not_finite(fit->scale[k]), not_finite(size[k])));
    }
}

/*
 * Q3_K's way without importances: one rounding, then up to five rounds in which each weight in
 * turn takes the level that is best given the others. A lane at rest stays at rest, so all go on
 * until none moves.
 */
INLINE void fit_by_moves(const float *x, int n, int top, symmetric_fit *fit) {
    float levels[16 * LANES] ALIGNED;
    V size[VECTORS], value[VECTORS], factor[VECTORS], slx[VECTORS], sll[VECTORS];
    const V zero = v_set(0), low = v_set((float)-top), high = v_set((float)(top - 1));
    largest(x, n, size, value);
    EACH {
        factor[k] = low / value[k];
        slx[k] = sll[k] = zero;
        fit->zero[k] = v_lt(size[k], v_set(TINY));
    }
    for (int i = 0; i < n; ++i) {
        EACH {
            const V xi = at(x, i, k), w = xi * xi;
            const V l = v_max(v_min(v_rint(factor[k] * xi), high), low);
            put(levels, i, k, l);
            slx[k] = slx[k] + w * xi * l;
            sll[k] = sll[k] + w * l * l;
        }
    }
    for (int round = 0; round < 5; ++round) {
        uint32_t moved = 0;
        for (int i = 0; i < n; ++i) {
            EACH {
                const V xi = at(x, i, k), w = xi * xi, l = at(levels, i, k);
                V others_x = slx[k] - w * xi * l, others_l = sll[k] - w * l * l;
                M move = v_gt(others_x, zero);
                const V to =
                    v_max(v_min(v_rint_wrapped(xi * others_l / others_x), high), low);
                move = m_and(move, v_ne(to, l));
                others_x = others_x + w * xi * to;
                others_l = others_l + w * to * to;
                move = m_and(move, v_gt(others_l, zero));
                move = m_and(move, v_gt(others_x * others_x * sll[k],
                                        slx[k] * slx[k] * others_l));
                put(levels, i, k, v_pick(move, to, l));
                slx[k] = v_pick(move, others_x, slx[k]);
                sll[k] = v_pick(move, others_l, sll[k]);
                moved |= m_bits(m_and(move, m_not(fit->zero[k])));
            }
        }
        if (!moved) break;
    }
    EACH {
        fit->scale[k] = v_pick(v_gt(sll[k], zero), slx[k] / sll[k], zero);
        fit->scale[k] = v_pick(fit->zero[k], zero, fit->scale[k]);
        fit->odd[k] = m_and(m_or(not_finite(slx[k]), not_finite(sll[k])), m_not(fit->zero[k]));
        fit->odd[k] = m_or(fit->odd[k], m_or(not_finite(fit->scale[k]), not_finite(size[k])));
    }
}

/* ---------------------------------------------------------------------- x = scale * IQ4_VALUES[l] */

INLINE void iq4_sums(const float *x, const float *w, int n, const V *factor, V *sqx, V *sqq) {
    EACH sqx[k] = sqq[k] = v_set(0);
    for (int i = 0; i < n; ++i) {
        EACH {
            const V xi = at(x, i, k), q = v_iq4(factor[k] * xi), wq = at(w, i, k) * q;
            sqx[k] = sqx[k] + wq * xi;
            sqq[k] = sqq[k] + wq * q;
        }
    }
}

INLINE void fit_iq4(const float *x, const float *w, int n, symmetric_fit *fit) {
    V size[VECTORS], value[VECTORS], sqx[VECTORS], sqq[VECTORS], best[VECTORS], factor[VECTORS];
    const V zero = v_set(0);
    largest(x, n, size, value);
    /* The first try puts the largest weight at +127, the others near -127. */
    EACH factor[k] = v_set(1) / (v_neg(value[k]) / v_set(-127));
    iq4_sums(x, w, n, factor, sqx, sqq);
    EACH {
        fit->zero[k] = v_lt(size[k], v_set(TINY));
        fit->scale[k] = v_pick(v_gt(sqq[k], zero), sqx[k] / sqq[k], zero);
        best[k] = fit->scale[k] * sqx[k];
        fit->odd[k] = m_or(not_finite(sqx[k]), not_finite(sqq[k]));
    }
    for (int s = -7; s <= 7; ++s) {
        EACH factor[k] = v_set((float)(s - 127)) / value[k];
        iq4_sums(x, w, n, factor, sqx, sqq);
        EACH {
            const M better = m_and(v_gt(sqq[k], zero), v_gt(sqx[k] * sqx[k], best[k] * sqq[k]));
            const V scale = sqx[k] / sqq[k];
            fit->scale[k] = v_pick(better, scale, fit->scale[k]);
            best[k] = v_pick(better, scale * sqx[k], best[k]);
        }
    }
    EACH {
        fit->scale[k] = v_pick(fit->zero[k], zero, fit->scale[k]);
        fit->odd[k] = m_and(fit->odd[k], m_not(fit->zero[k]));
        fit->odd[k] = m_or(fit->odd[k], m_or(not_finite(fit->scale[k]), not_finite(size[k])));
    }
}
