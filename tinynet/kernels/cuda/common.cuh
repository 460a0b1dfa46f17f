// What every source here shares; launch.py puts this page before each of them.
//
// T is float or double. I, the type of an index, is int where every array has fewer than 2^31 elements, and long long otherwise:
// a division of 32-bit integers is several times faster. A line, a plane and a volume are one case: one and two dimensions have
// leading axes of size one.

// Windows over three spatial axes: output position p sees the input positions p * stride + k * dilation - low.
struct Window {
    int size[3], kernel[3], stride[3], low[3], dilation[3], out[3];
};

template <typename I>
__device__ I thread_number() {
    return I(blockIdx.x) * I(blockDim.x) + I(threadIdx.x);
}

__device__ inline int volume(const int (&sizes)[3]) { return sizes[0] * sizes[1] * sizes[2]; }

// A flat position as three coordinates.
__device__ inline void coordinates(int flat, const int (&sizes)[3], int (&at)[3]) {
    at[2] = flat % sizes[2];
    at[1] = flat / sizes[2] % sizes[1];
    at[0] = flat / sizes[2] / sizes[1];
}

// The output positions first ... last along one axis whose windows may hold input position q (which of them do, dilation decides).
__device__ inline void windows_around(int q, const Window& w, int axis, int& first, int& last) {
    int reach = w.dilation[axis] * (w.kernel[axis] - 1), high = q + w.low[axis], low = high - reach;
    first = low <= 0 ? 0 : (low + w.stride[axis] - 1) / w.stride[axis];
    last = high / w.stride[axis];
    if (last > w.out[axis] - 1) last = w.out[axis] - 1;
}

// The sum of one value from every thread of a block, in thread 0, always in the same order. blockDim.x: a power of two up to 256.
template <typename T>
__device__ T block_sum(T value) {
    __shared__ T shared[256];
    int t = threadIdx.x;
    shared[t] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) shared[t] += shared[t + half];
        __syncthreads();
    }
    T total = shared[0];
    __syncthreads();                                   // the next sum may write now
    return total;
}

// The largest value of a block's threads, in all of them; a NaN is larger than everything.
template <typename T>
__device__ T block_max(T value) {
    __shared__ T shared[256];
    int t = threadIdx.x;
    shared[t] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half && !(shared[t] >= shared[t + half]) && shared[t] == shared[t]) shared[t] = shared[t + half];
        __syncthreads();
    }
    T largest = shared[0];
    __syncthreads();
    return largest;
}
