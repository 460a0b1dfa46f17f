// Convolution as a matrix product: the columns of the input, and the way back from columns.
//
//     X[(c, k), j] = x[n, c, p * stride + k * dilation - low]     (0 in the padding),   j + start = n * P + p
//
// A chunk is a run of `count` flat output positions n * P + p that begins at `start`, whichever images it crosses. So a chunk fits
// any workspace, and the product Y = W X of a chunk has as many columns as the workspace allows, also where the maps are small.

// One thread for each (c, j) writes the K entries of its column; neighbours write neighbouring cells.
template <typename T, typename I>
__global__ void im2col(const T* __restrict__ x, T* __restrict__ columns, Window w, I channels, I start, I count) {
    I number = thread_number<I>();
    if (number >= channels * count) return;
    I j = number % count, c = number / count;
    int P = volume(w.out), K = volume(w.kernel);
    I n = (start + j) / P;
    int p[3];
    coordinates(int((start + j) % P), w.out, p);

    const T* plane = x + (n * channels + c) * volume(w.size);
    T* column = columns + c * K * count + j;
    for (int i = 0; i < w.kernel[0]; i++) {
        int z = p[0] * w.stride[0] + i * w.dilation[0] - w.low[0];
        for (int k = 0; k < w.kernel[1]; k++) {
            int y = p[1] * w.stride[1] + k * w.dilation[1] - w.low[1];
            bool row = z >= 0 && z < w.size[0] && y >= 0 && y < w.size[1];
            for (int l = 0; l < w.kernel[2]; l++) {
                int v = p[2] * w.stride[2] + l * w.dilation[2] - w.low[2];
                *column = row && v >= 0 && v < w.size[2] ? plane[(z * w.size[1] + y) * w.size[2] + v] : T(0);
                column += count;
            }
        }
    }
}

// The adjoint as a gather: a thread owns one input cell q and adds up the column entries that were copies of it,
//
//     dx[n, c, q] = Σ_{k, p : p * stride + k * dilation - low = q} dX[(c, k), n * P + p - start],
//
// so that no two threads write to one cell: no atomics, and the same bits every time. An image whose first positions were in an
// earlier chunk goes on from there. `cells` counts those of the images that the chunk touches, from image `first` on.
template <typename T, typename I>
__global__ void col2im(const T* __restrict__ columns, T* __restrict__ dx, Window w, I channels, I start, I count, I first, I cells) {
    I number = thread_number<I>();
    if (number >= cells) return;
    int Q = volume(w.size), P = volume(w.out), K = volume(w.kernel);
    I n = first + number / Q / channels, c = number / Q % channels;
    int q[3];
    coordinates(int(number % Q), w.size, q);

    T* cell = dx + first * channels * Q + number;
    T total = n * P < start ? *cell : T(0);
    for (int i = 0; i < w.kernel[0]; i++) {
        int z = q[0] + w.low[0] - i * w.dilation[0];
        if (z < 0 || z % w.stride[0] || z / w.stride[0] >= w.out[0]) continue;
        for (int k = 0; k < w.kernel[1]; k++) {
            int y = q[1] + w.low[1] - k * w.dilation[1];
            if (y < 0 || y % w.stride[1] || y / w.stride[1] >= w.out[1]) continue;
            for (int l = 0; l < w.kernel[2]; l++) {
                int v = q[2] + w.low[2] - l * w.dilation[2];
                if (v < 0 || v % w.stride[2] || v / w.stride[2] >= w.out[2]) continue;
                I j = n * P + ((z / w.stride[0]) * w.out[1] + y / w.stride[1]) * w.out[2] + v / w.stride[2] - start;
                if (j < 0 || j >= count) continue;
                I kernel = (i * w.kernel[1] + k) * w.kernel[2] + l;
                total += columns[(c * K + kernel) * count + j];
            }
        }
    }
    *cell = total;
}

// Behind the product: y[n, o, p] = Y[o, j] + b[o], and max(…, 0) where the convolution ends in a ReLU. bias: null for none.
template <typename T, typename I>
__global__ void rows_to_maps(const T* __restrict__ rows, const T* __restrict__ bias, T* __restrict__ y, I P, I filters, I start, I count,
                             int relu) {
    I number = thread_number<I>();
    if (number >= filters * count) return;
    I j = number % count, o = number / count, n = (start + j) / P, p = (start + j) % P;
    T value = rows[number] + (bias ? bias[o] : T(0));
    y[(n * filters + o) * P + p] = relu && value <= 0 ? T(0) : value;        // a NaN stays one
}

// Before the products of the gradients: dY[o, j] = dy[n, o, p].
template <typename T, typename I>
__global__ void maps_to_rows(const T* __restrict__ dy, T* __restrict__ rows, I P, I filters, I start, I count) {
    I number = thread_number<I>();
    if (number >= filters * count) return;
    I j = number % count, o = number / count, n = (start + j) / P, p = (start + j) % P;
    rows[number] = dy[(n * filters + o) * P + p];
}
