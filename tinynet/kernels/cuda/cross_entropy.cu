// Softmax and cross-entropy on logits with class numbers as targets: the loss and its gradient in one pass, nothing in between stored.
// With class weights w, label smoothing ε, C classes, target t, and logits x whose largest is M:
//
//     log p_c = x_c - M - log Σ_j e^{x_j - M},     q_c = w_c ((1 - ε) [c = t] + ε / C),
//     loss = -Σ_c q_c log p_c,                     dx_c = p_c Σ_j q_j - q_c,
//
// both over Σ w_t of the targets that count, where the mean is asked for. A row whose target is ignore_index counts nowhere. A target
// that is no class makes its row NaN: to ask the host would make it wait. x: (N, C, inner), a row is one (n, i).
// logits 0: x is log p itself (the negative log-likelihood), and dx_c = -q_c.

template <typename T>
__device__ T weight_of(const T* weight, long long c) {
    return weight ? weight[c] : T(1);
}

// Σ w_t, by one block, in a fixed order.
template <typename T, typename I>
__global__ void target_weight(const long long* __restrict__ target, const T* __restrict__ weight, T* __restrict__ total, I rows, I classes,
                              long long ignore_index) {
    T sum = T(0);
    for (I row = threadIdx.x; row < rows; row += blockDim.x) {
        long long t = target[row];
        if (t != ignore_index && t >= 0 && t < classes) sum += weight_of(weight, t);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) *total = sum;
}

// A block a row. total: Σ w_t for the mean, null for the sum and for one loss a row. gradient: null where it is not asked for.
template <typename T, typename I>
__global__ void cross_entropy(const T* __restrict__ x, const long long* __restrict__ target, const T* __restrict__ weight,
                              const T* __restrict__ total, T* __restrict__ losses, T* __restrict__ gradient, I classes, I inner,
                              long long ignore_index, T smoothing, int logits, T minus_infinity, T nan) {
    I row = blockIdx.x, base = row / inner * classes * inner + row % inner;
    long long t = target[row];
    const bool counts = t != ignore_index, bad = counts && (t < 0 || t >= classes);
    T largest = logits ? minus_infinity : T(0);
    for (I c = threadIdx.x; c < classes && logits; c += blockDim.x) {
        T value = x[base + c * inner];
        if (!(largest >= value) && largest == largest) largest = value;
    }
    largest = block_max(largest);
    if (largest == minus_infinity || largest == -minus_infinity) largest = nan;    // e^{inf - inf}: NaN in any case, and so at once
    T sum = T(0);
    for (I c = threadIdx.x; c < classes && logits; c += blockDim.x) sum += exp(x[base + c * inner] - largest);
    __shared__ T denominator;
    sum = block_sum(sum);
    if (threadIdx.x == 0) denominator = logits ? log(sum) : T(0);
    __syncthreads();

    T scale = T(1), hit = T(1) - smoothing;                 // over what the gradient is; what the target's class has of its weight
    if (total) {
        scale = *total == 0 ? T(1) : T(1) / *total;
        if (*total == 0) hit = nan;                         // a mean over no weight: NaN for what counts
    }
    if (bad) hit = nan;
    T loss = T(0), mass = T(0);
    for (I c = threadIdx.x; c < classes && counts; c += blockDim.x) {
        T q = weight_of(weight, c) * ((bad || c == t ? hit : T(0)) + smoothing / T(classes));
        T log_p = x[base + c * inner] - largest - denominator;
        mass += q;
        if (q != 0) loss -= q * log_p;                      // what counts nothing adds nothing, even where log p is -inf
    }
    __shared__ T shared_mass;
    mass = block_sum(mass);
    loss = block_sum(loss);
    if (threadIdx.x == 0) {
        losses[row] = loss;
        shared_mass = mass;
    }
    __syncthreads();
    if (!gradient) return;
    for (I c = threadIdx.x; c < classes; c += blockDim.x) {
        T p = logits ? exp(x[base + c * inner] - largest - denominator) : T(0);
        T q = counts ? weight_of(weight, c) * ((bad || c == t ? hit : T(0)) + smoothing / T(classes)) : T(0);
        gradient[base + c * inner] = ((logits ? p * shared_mass : T(0)) - q) * scale;
    }
}

// Σ over rows, by one block, in a fixed order; over `total` for the mean (0 / 0 is NaN, the mean of nothing).
template <typename T, typename I>
__global__ void sum_losses(const T* __restrict__ losses, const T* __restrict__ total, T* __restrict__ value, I rows, T nan) {
    T sum = T(0);
    for (I row = threadIdx.x; row < rows; row += blockDim.x) sum += losses[row];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *value = !total ? sum : *total == 0 ? nan : sum / *total;
}
