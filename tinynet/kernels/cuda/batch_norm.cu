// Batch normalisation, y = γ (x - μ) / √(σ² + ε) + β for each channel. The sums over a channel are taken by `splits` blocks, each in
// a fixed order; the few partial sums are added up afterwards, in order too. The variance is a second pass, Σ (x - μ)²: no
// cancellation. x: (N, C, P); a channel has N * P numbers. sums: (C, splits), or (2, C, splits) for the gradient.

template <typename T, typename I>
__global__ void channel_sums(const T* __restrict__ x, const T* __restrict__ mean, T* __restrict__ sums, I channels, I P, I numbers) {
    I c = blockIdx.x, begin = I(blockIdx.y) * blockDim.x + threadIdx.x;
    T sum = T(0), centre = mean ? mean[c] : T(0);
    for (I i = begin; i < numbers; i += I(gridDim.y) * blockDim.x) {
        T value = x[(i / P * channels + c) * P + i % P] - centre;
        sum += mean ? value * value : value;                // mean null: Σ x, otherwise Σ (x - μ)²
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[c * gridDim.y + blockIdx.y] = sum;
}

// Σ dy and Σ dy (x - μ) in one pass.
template <typename T, typename I>
__global__ void gradient_sums(const T* __restrict__ dy, const T* __restrict__ x, const T* __restrict__ mean, T* __restrict__ sums, I channels,
                              I P, I numbers) {
    I c = blockIdx.x, begin = I(blockIdx.y) * blockDim.x + threadIdx.x;
    T sum = T(0), along = T(0), centre = mean[c];
    for (I i = begin; i < numbers; i += I(gridDim.y) * blockDim.x) {
        I at = (i / P * channels + c) * P + i % P;
        sum += dy[at];
        along += dy[at] * (x[at] - centre);
    }
    sum = block_sum(sum);
    along = block_sum(along);
    if (threadIdx.x == 0) {
        sums[c * gridDim.y + blockIdx.y] = sum;
        sums[(channels + c) * gridDim.y + blockIdx.y] = along;
    }
}

// y = (x - μ) · scale + β, and max(…, 0) where a ReLU follows. bias: null for none.
template <typename T, typename I>
__global__ void normalise(const T* __restrict__ x, const T* __restrict__ mean, const T* __restrict__ scale, const T* __restrict__ bias,
                          T* __restrict__ y, I channels, I P, int relu, I total) {
    I number = thread_number<I>();
    if (number >= total) return;
    I c = number / P % channels;
    T value = (x[number] - mean[c]) * scale[c] + (bias ? bias[c] : T(0));
    y[number] = relu && value <= 0 ? T(0) : value;
}

// dx = gain · (dy - mean(dy) - x̂ · mean(dy · x̂)), x̂ = (x - μ) · scale. sum, along: the two means.
template <typename T, typename I>
__global__ void normalise_gradient(const T* __restrict__ dy, const T* __restrict__ x, const T* __restrict__ mean, const T* __restrict__ scale,
                                   const T* __restrict__ gain, const T* __restrict__ sum, const T* __restrict__ along, T* __restrict__ dx,
                                   I channels, I P, I total) {
    I number = thread_number<I>();
    if (number >= total) return;
    I c = number / P % channels;
    dx[number] = gain[c] * (dy[number] - sum[c] - (x[number] - mean[c]) * scale[c] * along[c]);
}
