// Depthwise convolution, where every filter sees one channel (groups = channels), without columns: there is no product to feed.
//
//     y[n, o, p] = b[o] + Σ_k w[o, k] · x[n, c, p * stride + k * dilation - low],     c = o / m,   m filters a channel

template <typename T, typename I>
__global__ void depthwise(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias, T* __restrict__ y, Window w,
                          I channels, I multiplier, I total) {
    I number = thread_number<I>();
    if (number >= total) return;
    int P = volume(w.out), p[3];
    coordinates(int(number % P), w.out, p);
    I map = number / P, o = map % (channels * multiplier), n = map / (channels * multiplier);
    const T* plane = x + (n * channels + o / multiplier) * volume(w.size);
    const T* filter = weight + o * volume(w.kernel);
    T sum = bias ? bias[o] : T(0);
    for (int i = 0; i < w.kernel[0]; i++) {
        int z = p[0] * w.stride[0] + i * w.dilation[0] - w.low[0];
        for (int k = 0; k < w.kernel[1]; k++) {
            int r = p[1] * w.stride[1] + k * w.dilation[1] - w.low[1];
            for (int l = 0; l < w.kernel[2]; l++, filter++) {
                int v = p[2] * w.stride[2] + l * w.dilation[2] - w.low[2];
                if (z >= 0 && z < w.size[0] && r >= 0 && r < w.size[1] && v >= 0 && v < w.size[2])
                    sum += *filter * plane[(z * w.size[1] + r) * w.size[2] + v];
            }
        }
    }
    y[number] = sum;
}

// dx[n, c, q] = Σ_{o of c} Σ_{k, p : p * stride + k * dilation - low = q} w[o, k] · dy[n, o, p]: a gather, as col2im.
template <typename T, typename I>
__global__ void depthwise_input_gradient(const T* __restrict__ dy, const T* __restrict__ weight, T* __restrict__ dx, Window w,
                                         I channels, I multiplier, I total) {
    I number = thread_number<I>();
    if (number >= total) return;
    int Q = volume(w.size), P = volume(w.out), K = volume(w.kernel), q[3];
    coordinates(int(number % Q), w.size, q);
    I c = number / Q % channels, n = number / Q / channels;
    T sum = T(0);
    for (I m = 0; m < multiplier; m++) {
        I o = c * multiplier + m;
        const T* signal = dy + (n * channels * multiplier + o) * P;
        const T* filter = weight + o * K;
        for (int i = 0; i < w.kernel[0]; i++) {
            int z = q[0] + w.low[0] - i * w.dilation[0];
            if (z < 0 || z % w.stride[0] || z / w.stride[0] >= w.out[0]) continue;
            for (int k = 0; k < w.kernel[1]; k++) {
                int r = q[1] + w.low[1] - k * w.dilation[1];
                if (r < 0 || r % w.stride[1] || r / w.stride[1] >= w.out[1]) continue;
                for (int l = 0; l < w.kernel[2]; l++) {
                    int v = q[2] + w.low[2] - l * w.dilation[2];
                    if (v < 0 || v % w.stride[2] || v / w.stride[2] >= w.out[2]) continue;
                    sum += filter[(i * w.kernel[1] + k) * w.kernel[2] + l]
                         * signal[((z / w.stride[0]) * w.out[1] + r / w.stride[1]) * w.out[2] + v / w.stride[2]];
                }
            }
        }
    }
    dx[number] = sum;
}

// dw[o, k] = Σ_n Σ_p dy[n, o, p] · x[n, c, p * stride + k * dilation - low]: a block a number, summed in a fixed order.
template <typename T, typename I>
__global__ void depthwise_weight_gradient(const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ dw, Window w, I channels,
                                          I multiplier, I images) {
    int P = volume(w.out), K = volume(w.kernel), k[3];
    I o = I(blockIdx.x) / K, c = o / multiplier;
    coordinates(int(blockIdx.x % K), w.kernel, k);
    T sum = T(0);
    for (I at = threadIdx.x; at < images * P; at += blockDim.x) {
        I n = at / P;
        int p[3];
        coordinates(int(at % P), w.out, p);
        int z = p[0] * w.stride[0] + k[0] * w.dilation[0] - w.low[0];
        int r = p[1] * w.stride[1] + k[1] * w.dilation[1] - w.low[1];
        int v = p[2] * w.stride[2] + k[2] * w.dilation[2] - w.low[2];
        if (z >= 0 && z < w.size[0] && r >= 0 && r < w.size[1] && v >= 0 && v < w.size[2])
            sum += dy[(n * channels * multiplier + o) * P + at % P]
                 * x[(n * channels + c) * volume(w.size) + (z * w.size[1] + r) * w.size[2] + v];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) dw[blockIdx.x] = sum;
}
