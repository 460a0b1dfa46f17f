// The mask of dropout, drawn where it is used: the numbers that NumPy's generator PCG64 gives on the host, each thread jumping to its own.
//
//     s <- a s + c  (mod 2^128),   output: the two halves of s xored and turned right by its upper 6 bits
//
// (O'Neill, "PCG: a family of simple fast space-efficient statistically good algorithms for random number generation", 2014: XSL RR.)
// k steps at once are s <- a^k s + c (a^k - 1) / (a - 1), by squaring (Brown, "Random number generation with arbitrary strides", 1994).
// A float32 takes 32 bits of an output, the lower half first, and of these the upper 24.

struct Generator {
    unsigned long long state[2], increment[2];           // upper half, lower half
    int left;                                            // 1: half an output is left over from before, and comes first
    unsigned rest;
};

struct Wide {
    unsigned long long high, low;
};

__device__ inline Wide plus(Wide a, Wide b) {
    unsigned long long low = a.low + b.low;
    return {a.high + b.high + (low < a.low), low};
}

__device__ inline Wide times(Wide a, Wide b) {
    return {__umul64hi(a.low, b.low) + a.high * b.low + a.low * b.high, a.low * b.low};
}

// mask[i] = scale where the i-th number is at least p, 0 otherwise. A thread draws a run of numbers, an even one, from a whole output on.
template <typename T, typename I>
__global__ void dropout_mask(T* __restrict__ mask, Generator generator, float p, T scale, I run, I total) {
    const I thread = thread_number<I>();
    const float unit = 1.0f / 16777216.0f;
    if (thread == 0 && generator.left && total) mask[0] = (generator.rest >> 8) * unit >= p ? scale : T(0);
    I i = generator.left + thread * run, end = i + run < total ? i + run : total;
    if (i >= end) return;

    const Wide a = {0x2360ED051FC65DA4ull, 0x4385DF649FCCF645ull}, c = {generator.increment[0], generator.increment[1]}, one = {0, 1};
    Wide state = {generator.state[0], generator.state[1]}, power = a, sum = c, factor = one, offset = {0, 0};
    for (unsigned long long steps = (unsigned long long)thread * (run / 2); steps > 0; steps /= 2) {
        if (steps & 1) {
            factor = times(factor, power);
            offset = plus(times(offset, power), sum);
        }
        sum = times(plus(power, one), sum);
        power = times(power, power);
    }
    state = plus(times(factor, state), offset);
    while (i < end) {
        state = plus(times(a, state), c);
        const unsigned long long x = state.high ^ state.low, turn = state.high >> 58;
        const unsigned long long output = (x >> turn) | (x << ((64 - turn) & 63));
        mask[i] = ((unsigned)output >> 8) * unit >= p ? scale : T(0);
        if (i + 1 < end) mask[i + 1] = ((unsigned)(output >> 32) >> 8) * unit >= p ? scale : T(0);
        i += 2;
    }
}
