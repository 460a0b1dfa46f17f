// 3×3 convolution with stride 1 by Winograd's F(4×4, 3×3), what kernels/winograd.py derives: tiles d of 6 × 6 cells, which overlap
// by two, give 4 × 4 outputs each,
//
//     y = Aᵀ [ Σ_c (G g Gᵀ) ⊙ (Bᵀ d B) ] A,
//
// and the sum over the channels is 36 matrix products, one for each place k of a tile, which cuBLAS does between these kernels:
//
//     U[k, o, c] = (G g Gᵀ)_k     V[k, c, j] = (Bᵀ d B)_k     M_k = U_k V_k     y = Aᵀ M A
//
// A chunk is a run of `count` tiles from tile `start` on, whichever images they are of; the tiles of an image go row by row. A thread
// owns one tile of one channel in its registers: it reads it once and writes it once, neighbours beside each other.

constexpr int M = 4, A = 6;                            // cells of a tile's output and input, along either axis

// One line of each transform. (A zero of the matrices is no product: 0 times an infinity would be a NaN.)
template <typename T>
__device__ void of_input(const T (&d)[A], T (&v)[A]) {                       // Bᵀ d
    T even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1], inner = d[4] - d[2], outer = 2 * (d[3] - d[1]);
    v[0] = 4 * d[0] - 5 * d[2] + d[4];
    v[1] = even + odd;
    v[2] = even - odd;
    v[3] = inner + outer;
    v[4] = inner - outer;
    v[5] = 4 * d[1] - 5 * d[3] + d[5];
}

template <typename T>
__device__ void of_product(const T (&m)[A], T (&y)[M]) {                     // Aᵀ m
    T one = m[1] + m[2], minus = m[1] - m[2], two = m[3] + m[4], twice = m[3] - m[4];
    y[0] = m[0] + one + two;
    y[1] = minus + 2 * twice;
    y[2] = one + 4 * two;
    y[3] = minus + 8 * twice + m[5];
}

template <typename T>
__device__ void of_signal(const T (&y)[M], T (&e)[A]) {                      // A y
    T even = y[0] + y[2], odd = y[1] + y[3], even2 = y[0] + 4 * y[2], odd2 = 2 * y[1] + 8 * y[3];
    e[0] = y[0];
    e[1] = even + odd;
    e[2] = even - odd;
    e[3] = even2 + odd2;
    e[4] = even2 - odd2;
    e[5] = y[3];
}

template <typename T>
__device__ void of_filter(const T (&g)[3], T (&u)[A]) {                      // G g
    T even = (g[0] + g[2]) / -6, odd = g[1] / -6, even2 = g[0] / 24 + g[2] / 6, odd2 = g[1] / 12;
    u[0] = g[0] / 4;
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = even2 + odd2;
    u[4] = even2 - odd2;
    u[5] = g[2];
}

template <typename T>
__device__ void of_filter_gradient(const T (&u)[A], T (&g)[3]) {             // Gᵀ u
    T one = (u[1] + u[2]) / -6, two = u[3] + u[4];
    g[0] = u[0] / 4 + one + two / 24;
    g[1] = (u[2] - u[1]) / 6 + (u[3] - u[4]) / 12;
    g[2] = one + two / 6 + u[5];
}

// Where tile `number` of all images lies: its image, and its first output cell.
template <typename I>
__device__ void tile_at(I number, const Window& w, I& n, int& top, int& side) {
    int columns = (w.out[2] + M - 1) / M, each = (w.out[1] + M - 1) / M * columns, at = int(number % each);
    n = number / each;
    top = at / columns * M;
    side = at % columns * M;
}

// U[k, o, c] of filters w (O, C, 3, 3); total: how many of 3 × 3 there are.
template <typename T, typename I>
__global__ void winograd_filters(const T* __restrict__ weight, T* __restrict__ u, I total) {
    I number = thread_number<I>();
    if (number >= total) return;
    T half[A][3];
#pragma unroll
    for (int l = 0; l < 3; l++) {
        T g[3], line[A];
#pragma unroll
        for (int i = 0; i < 3; i++) g[i] = weight[9 * number + 3 * i + l];
        of_filter(g, line);
#pragma unroll
        for (int i = 0; i < A; i++) half[i][l] = line[i];
    }
#pragma unroll
    for (int i = 0; i < A; i++) {
        T line[A];
        of_filter(half[i], line);
#pragma unroll
        for (int l = 0; l < A; l++) u[(i * A + l) * total + number] = line[l];
    }
}

// V[k, c, j] of an image x (N, C, H, W), zero in the padding.
template <typename T, typename I>
__global__ void winograd_input(const T* __restrict__ x, T* __restrict__ v, Window w, I channels, I start, I count) {
    I number = thread_number<I>(), n;
    if (number >= channels * count) return;
    int top, side;
    tile_at(start + number % count, w, n, top, side);
    top -= w.low[1];
    side -= w.low[2];
    const T* plane = x + (n * channels + number / count) * volume(w.size);
    T half[A][A];
#pragma unroll
    for (int l = 0; l < A; l++) {
        T d[A], line[A];
        bool inside = side + l >= 0 && side + l < w.size[2];
#pragma unroll
        for (int i = 0; i < A; i++)
            d[i] = inside && top + i >= 0 && top + i < w.size[1] ? plane[(top + i) * w.size[2] + side + l] : T(0);
        of_input(d, line);
#pragma unroll
        for (int i = 0; i < A; i++) half[i][l] = line[i];
    }
#pragma unroll
    for (int i = 0; i < A; i++) {
        T line[A];
        of_input(half[i], line);
#pragma unroll
        for (int l = 0; l < A; l++) v[(i * A + l) * channels * count + number] = line[l];
    }
}

// y = Aᵀ M A + b of the products M[k, o, j], and max(y, 0) where the convolution ends in a ReLU. bias: null for none.
template <typename T, typename I>
__global__ void winograd_output(const T* __restrict__ products, const T* __restrict__ bias, T* __restrict__ y, Window w, I filters,
                                I start, I count, int relu) {
    I number = thread_number<I>(), n, o = number / count;
    if (number >= filters * count) return;
    int top, side;
    tile_at(start + number % count, w, n, top, side);
    T half[M][A];
#pragma unroll
    for (int l = 0; l < A; l++) {
        T m[A], line[M];
#pragma unroll
        for (int i = 0; i < A; i++) m[i] = products[(i * A + l) * filters * count + number];
        of_product(m, line);
#pragma unroll
        for (int i = 0; i < M; i++) half[i][l] = line[i];
    }
    T* map = y + (n * filters + o) * volume(w.out);
    T shift = bias ? bias[o] : T(0);
#pragma unroll
    for (int i = 0; i < M; i++) {
        T line[M];
        of_product(half[i], line);
#pragma unroll
        for (int l = 0; l < M; l++) {
            T value = line[l] + shift;
            if (top + i < w.out[1] && side + l < w.out[2])
                map[(top + i) * w.out[2] + side + l] = relu && value <= 0 ? T(0) : value;     // a NaN stays one
        }
    }
}

// For the weight gradient, the adjoint: E[k, o, j] = (A dy Aᵀ)_k, then dU_k = E_k V_kᵀ by cuBLAS, then dg = Gᵀ dU G.
template <typename T, typename I>
__global__ void winograd_signal(const T* __restrict__ dy, T* __restrict__ e, Window w, I filters, I start, I count) {
    I number = thread_number<I>(), n;
    if (number >= filters * count) return;
    int top, side;
    tile_at(start + number % count, w, n, top, side);
    const T* map = dy + (n * filters + number / count) * volume(w.out);
    T half[A][M];
#pragma unroll
    for (int l = 0; l < M; l++) {
        T d[M], line[A];
#pragma unroll
        for (int i = 0; i < M; i++)
            d[i] = top + i < w.out[1] && side + l < w.out[2] ? map[(top + i) * w.out[2] + side + l] : T(0);
        of_signal(d, line);
#pragma unroll
        for (int i = 0; i < A; i++) half[i][l] = line[i];
    }
#pragma unroll
    for (int i = 0; i < A; i++) {
        T line[A];
        of_signal(half[i], line);
#pragma unroll
        for (int l = 0; l < A; l++) e[(i * A + l) * filters * count + number] = line[l];
    }
}

template <typename T, typename I>
__global__ void winograd_weight_gradient(const T* __restrict__ du, T* __restrict__ dw, I total) {
    I number = thread_number<I>();
    if (number >= total) return;
    T half[3][A];
#pragma unroll
    for (int l = 0; l < A; l++) {
        T u[A], line[3];
#pragma unroll
        for (int i = 0; i < A; i++) u[i] = du[(i * A + l) * total + number];
        of_filter_gradient(u, line);
#pragma unroll
        for (int i = 0; i < 3; i++) half[i][l] = line[i];
    }
#pragma unroll
    for (int i = 0; i < 3; i++) {
        T line[3];
        of_filter_gradient(half[i], line);
#pragma unroll
        for (int l = 0; l < 3; l++) dw[9 * number + 3 * i + l] = line[l];
    }
}
