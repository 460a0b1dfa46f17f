// Two-dimensional convolution as one matrix product whose columns are never written: implicit GEMM.
//
//     Y[o, j] = Σ_r W[o, r] · X[r, j],     r = (c, kh, kw),   j = (n, ph, pw)
//
// A block of 256 threads makes a tile of BM filters × BN positions. Step by step along r it brings BK columns of W and BK rows of X
// into shared memory, X straight from the image; each thread multiplies out TM × TN numbers in its registers, while the next step's
// numbers are already on their way (Volkov & Demmel, "Benchmarking GPUs to tune dense linear algebra", SC 2008, for the blocking;
// Chetlur et al., "cuDNN: efficient primitives for deep learning", 2014, for the columns that are not stored). KH, KW: the size of
// the kernel where it is known when this is compiled, so that the divisions by it are multiplications; 0: it is in the Window.
//
// Groups are blockIdx.z: W (G, O/G, R), x (N, G, C/G, H, W), y (N, G, O/G, P).

template <typename T, int BM, int BN, int BK, int TM, int TN, int KH, int KW>
__global__ void __launch_bounds__((BM / TM) * (BN / TN))
direct_conv2d(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias, T* __restrict__ y, Window w, int channels,
              int filters, int positions, int relu) {
    constexpr int THREADS = (BM / TM) * (BN / TN), A = BM * BK / THREADS, B = BN * BK / THREADS, STEP = THREADS / BN;
    static_assert(BM * BK % THREADS == 0 && BN * BK % THREADS == 0 && THREADS % BN == 0, "the tiles are shared out evenly");
    __shared__ T left[2][BK][BM + 4], right[2][BK][BN];                      // + 4: a column of W lands in several banks
    const int kh = KH ? KH : w.kernel[1], kw = KW ? KW : w.kernel[2], K = kh * kw;
    const int height = w.size[1], width = w.size[2], P = w.out[1] * w.out[2], R = channels * K;
    const int group = blockIdx.z, groups = gridDim.z, t = threadIdx.x;
    const int o0 = blockIdx.y * BM, j0 = blockIdx.x * BN;
    weight += group * filters * R;

    // What this thread brings: column `column` of X, rows row, row + STEP, …; where its window begins never changes.
    const int column = t % BN, row = t / BN, j = j0 + column;
    const bool inside = j < positions;
    const int n = inside ? j / P : 0, p = inside ? j % P : 0;
    const int top = p / w.out[2] * w.stride[1] - w.low[1], side = p % w.out[2] * w.stride[2] - w.low[2];
    const T* image = x + (n * groups + group) * channels * height * width;

    T a[A], b[B], sum[TM][TN] = {};
    auto fetch = [&](int r0) {                                               // the numbers of step r0, into registers
#pragma unroll
        for (int i = 0; i < A; i++) {
            int at = i * THREADS + t, o = o0 + at / BK, r = r0 + at % BK;
            a[i] = o < filters && r < R ? weight[o * R + r] : T(0);
        }
#pragma unroll
        for (int i = 0; i < B; i++) {
            int r = r0 + row + i * STEP, c = r / K, k = r % K;
            int v = top + k / kw * w.dilation[1], u = side + k % kw * w.dilation[2];
            bool there = inside && r < R && v >= 0 && v < height && u >= 0 && u < width;
            b[i] = there ? image[(c * height + v) * width + u] : T(0);
        }
    };
    auto store = [&](int buffer) {
#pragma unroll
        for (int i = 0; i < A; i++) left[buffer][(i * THREADS + t) % BK][(i * THREADS + t) / BK] = a[i];
#pragma unroll
        for (int i = 0; i < B; i++) right[buffer][row + i * STEP][column] = b[i];
    };

    // What this thread makes: filters m + i * (BM / TM), positions l + i * (BN / TN), so that neighbours read neighbouring cells.
    const int l = t % (BN / TN), m = t / (BN / TN);
    fetch(0);
    store(0);
    __syncthreads();
    for (int r0 = 0, buffer = 0; r0 < R; r0 += BK, buffer ^= 1) {
        const bool more = r0 + BK < R;
        if (more) fetch(r0 + BK);
#pragma unroll
        for (int r = 0; r < BK; r++) {
            T u[TM], v[TN];
#pragma unroll
            for (int i = 0; i < TM; i++) u[i] = left[buffer][r][m + i * (BM / TM)];
#pragma unroll
            for (int i = 0; i < TN; i++) v[i] = right[buffer][r][l + i * (BN / TN)];
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int k = 0; k < TN; k++) sum[i][k] += u[i] * v[k];
        }
        if (more) store(buffer ^ 1);                                         // nobody reads that one before the barrier
        __syncthreads();
    }

#pragma unroll
    for (int k = 0; k < TN; k++) {
        int at = j0 + l + k * (BN / TN);
        if (at >= positions) continue;
        T* map = y + ((at / P) * groups + group) * filters * P + at % P;
#pragma unroll
        for (int i = 0; i < TM; i++) {
            int o = o0 + m + i * (BM / TM);
            if (o >= filters) continue;
            T value = sum[i][k] + (bias ? bias[group * filters + o] : T(0));
            map[o * P] = relu && value <= 0 ? T(0) : value;
        }
    }
}
