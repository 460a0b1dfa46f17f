// y[n, c, p] <- max(y[n, c, p] + b[c], 0), in place and in one pass; relu 0: the bias alone. bias: null for none. A NaN stays one.
template <typename T, typename I>
__global__ void bias_relu(T* __restrict__ y, const T* __restrict__ bias, I channels, I P, int relu, I total) {
    I number = thread_number<I>();
    if (number >= total) return;
    T value = y[number] + (bias ? bias[number / P % channels] : T(0));
    y[number] = relu && value <= 0 ? T(0) : value;
}
