// Max-pooling with its switches, and everything that puts values back to where a maximum stood.
//
//     y[p] = max_k x[p * stride + k * dilation - low],     switch[p] = where that was, a flat index into the input's plane

// The first maximum of a window counts; a NaN is larger than everything, and the last NaN counts; a window of nothing but -inf
// points to its first cell behind the low padding. (PyTorch's rules.) switches: null where nobody asks for them.
template <typename T, typename I>
__global__ void max_pool(const T* __restrict__ x, T* __restrict__ y, long long* __restrict__ switches, Window w, T minus_infinity, I total) {
    I number = thread_number<I>();
    if (number >= total) return;
    int P = volume(w.out), begin[3];
    coordinates(int(number % P), w.out, begin);
    const T* plane = x + number / P * volume(w.size);
    for (int axis = 0; axis < 3; axis++) {
        begin[axis] = begin[axis] * w.stride[axis] - w.low[axis];
        if (begin[axis] < 0) begin[axis] += (-begin[axis] + w.dilation[axis] - 1) / w.dilation[axis] * w.dilation[axis];
    }
    T best = minus_infinity;
    int where = (begin[0] * w.size[1] + begin[1]) * w.size[2] + begin[2], end[3];
    coordinates(int(number % P), w.out, end);
    for (int axis = 0; axis < 3; axis++) {
        end[axis] = end[axis] * w.stride[axis] - w.low[axis] + (w.kernel[axis] - 1) * w.dilation[axis] + 1;
        if (end[axis] > w.size[axis]) end[axis] = w.size[axis];
    }
    for (int z = begin[0]; z < end[0]; z += w.dilation[0])
        for (int r = begin[1]; r < end[1]; r += w.dilation[1])
            for (int v = begin[2]; v < end[2]; v += w.dilation[2]) {
                int at = (z * w.size[1] + r) * w.size[2] + v;
                T value = plane[at];
                if (value > best || value != value) {
                    best = value;
                    where = at;
                }
            }
    y[number] = best;
    if (switches) switches[number] = where;
}

// Where the windows are known, a thread owns a cell q of the plane and looks through the windows that may hold it:
//
//     sum:        out[q] = Σ_{p : switch[p] = q} v[p]      the gradient of max-pooling, the adjoint of reading at the switches
//     overwrite:  the v[p] of the last such p              max-unpooling
//     largest:    the largest such v[p]                    unpooling with the greatest of the values that meet
//
// and 0 where no switch points. No atomics; the order is that of p, every time.
enum Meeting { sum = 0, overwrite = 1, largest = 2 };

template <typename T>
__device__ void meet(T value, int meeting, T& result, bool& any) {
    if (!any || meeting == overwrite) result = value;
    else if (meeting == sum) result += value;
    else if (value > result || value != value) result = value;
    any = true;
}

template <typename T, typename I>
__global__ void unpool_windows(const T* __restrict__ values, const long long* __restrict__ switches, T* __restrict__ out, Window w,
                               int meeting, I total) {
    I number = thread_number<I>();
    if (number >= total) return;
    int Q = volume(w.size), q = int(number % Q), at[3], first[3], last[3];
    coordinates(q, w.size, at);
    for (int axis = 0; axis < 3; axis++) windows_around(at[axis], w, axis, first[axis], last[axis]);
    I plane = number / Q * volume(w.out);
    T result = T(0);
    bool any = false;
    for (int z = first[0]; z <= last[0]; z++)
        for (int r = first[1]; r <= last[1]; r++)
            for (int v = first[2]; v <= last[2]; v++) {
                I p = plane + (z * w.out[1] + r) * w.out[2] + v;
                if (switches[p] != q) continue;
                // A window of nothing but padding has a switch in a cell that its dilation steps over.
                const int place[3] = {z, r, v};
                bool own = true;
                for (int axis = 0; axis < 3; axis++)
                    own = own && (at[axis] + w.low[axis] - place[axis] * w.stride[axis]) % w.dilation[axis] == 0;
                if (own) meet(values[p], meeting, result, any);
            }
    out[number] = result;
}

// Whether switches are those of these windows: strays[0] becomes 1 where one lies outside its plane, strays[1] where one lies in
// no cell of its own window. All who write write the same.
template <typename I>
__global__ void stray_switches(const long long* __restrict__ switches, int* __restrict__ strays, Window w, I total) {
    I number = thread_number<I>();
    if (number >= total) return;
    long long q = switches[number];
    bool inside = q >= 0 && q < volume(w.size), own = inside;
    if (inside) {
        int at[3], p[3];
        coordinates(int(q), w.size, at);
        coordinates(int(number % volume(w.out)), w.out, p);
        for (int axis = 0; axis < 3; axis++) {
            int k = at[axis] - (p[axis] * w.stride[axis] - w.low[axis]);
            own = own && k >= 0 && k < w.kernel[axis] * w.dilation[axis] && k % w.dilation[axis] == 0;
        }
    }
    if (!inside) strays[0] = 1;
    if (!own) strays[1] = 1;
}

// Where they are not, the switches are sorted first, stably. Then the thread of the first of a run of equal places owns that cell.
// order: positions in the order of their places; places: sorted, flat into all planes. out: zeros before.
template <typename T, typename I>
__global__ void unpool_sorted(const T* __restrict__ values, const long long* __restrict__ order, const long long* __restrict__ places,
                              T* __restrict__ out, int meeting, I total) {
    I number = thread_number<I>();
    if (number >= total || (number > 0 && places[number - 1] == places[number])) return;
    T result = T(0);
    bool any = false;
    for (I i = number; i < total && places[i] == places[number]; i++) meet(values[order[i]], meeting, result, any);
    out[places[number]] = result;
}
