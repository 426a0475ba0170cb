/* All formats for one instruction set; included by its file after the vector operations. */
#include "search.h"

#include "scales.h"

#include "packing.h"

#include "affine.h"
#include "iq4.h"
#include "signed.h"
#include "q8_0.h"

#include "mlx.h"
#include "fp8.h"

static const kernel table[] = {
    {TYPE_Q8_0, 32, 34, group_q8_0, group_q8_0},
    {TYPE_Q2_K, SUPER, 84, group_q2_k, group_q2_k_weighted},
    {TYPE_Q3_K, SUPER, 110, group_q3_k, group_q3_k_weighted},
    {TYPE_Q4_K, SUPER, 144, group_q4_k, group_q4_k_weighted},
    {TYPE_Q5_K, SUPER, 176, group_q5_k, group_q5_k_weighted},
    {TYPE_Q6_K, SUPER, 210, group_q6_k, group_q6_k_weighted},
    {TYPE_IQ4_NL, 32, 18, group_iq4_nl, group_iq4_nl_weighted},
    {TYPE_IQ4_XS, SUPER, 136, group_iq4_xs, group_iq4_xs_weighted},
};

const kernel_set SET = {SET_NAME, LANES, table, sizeof table / sizeof *table, mlx, fp8};
