// One step of an optimiser over many parameters in one launch. blockIdx.y is the parameter; its blocks share out its numbers.
// Where `ok` points to 0, nothing is changed: so a gradient that is not finite costs no look by the host before the update.

struct Tensors {                                            // 64 of them: 3 KiB of the 4 KiB that a launch can carry
    unsigned long long parameter[64], gradient[64], first[64], second[64], third[64];
    long long size[64];
};

// g <- ∂ℓ/∂p + λ p;   b <- μ b + (1 - τ) g (b <- g where fresh);   p <- p - η (nesterov ? g + μ b : b), and η g without momentum
template <typename T>
__global__ void sgd(Tensors tensors, const unsigned char* __restrict__ ok, T lr, T momentum, T dampening, T decay, int nesterov, int maximize,
                    int fresh) {
    if (ok && !*ok) return;
    T* p = (T*)tensors.parameter[blockIdx.y];
    const T* gradient = (const T*)tensors.gradient[blockIdx.y];
    T* b = (T*)tensors.first[blockIdx.y];
    for (long long i = thread_number<long long>(); i < tensors.size[blockIdx.y]; i += (long long)gridDim.x * blockDim.x) {
        T g = maximize ? -gradient[i] : gradient[i];
        if (decay != 0) g += decay * p[i];
        if (momentum != 0) {
            b[i] = fresh ? g : momentum * b[i] + (T(1) - dampening) * g;
            g = nesterov ? g + momentum * b[i] : b[i];
        }
        p[i] -= lr * g;
    }
}

// m <- m + (1 - β₁)(g - m);   v <- β₂ v + (1 - β₂) g²;   p <- p - step · m / (√v / root + ε)
// with step = η / (1 - β₁ᵗ) and root = √(1 - β₂ᵗ). shrink: 1 - η λ where the weight decay is decoupled (AdamW), 1 otherwise.
// third: the largest v so far (a NaN is larger), which amsgrad puts in v's place in the last formula; null without.
template <typename T>
__global__ void adam(Tensors tensors, const unsigned char* __restrict__ ok, T beta1, T beta2, T step, T root, T epsilon, T decay, T shrink,
                     int maximize) {
    if (ok && !*ok) return;
    T* p = (T*)tensors.parameter[blockIdx.y];
    const T* gradient = (const T*)tensors.gradient[blockIdx.y];
    T* m = (T*)tensors.first[blockIdx.y];
    T* v = (T*)tensors.second[blockIdx.y];
    T* largest = (T*)tensors.third[blockIdx.y];
    for (long long i = thread_number<long long>(); i < tensors.size[blockIdx.y]; i += (long long)gridDim.x * blockDim.x) {
        T old = p[i] * shrink, g = maximize ? -gradient[i] : gradient[i];
        if (decay != 0) g += decay * old;
        m[i] += (T(1) - beta1) * (g - m[i]);
        v[i] = beta2 * v[i] + (T(1) - beta2) * g * g;
        T square = v[i];
        if (largest) {
            if (square > largest[i] || square != square) largest[i] = square;
            square = largest[i];
        }
        p[i] = old - step * (m[i] / (sqrt(square) / root + epsilon));
    }
}
