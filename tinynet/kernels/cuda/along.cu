// The adjoint of taking cells along an axis, dx[b, j, a] = Σ_{i : places[i] = j} dy[b, i, a], as a gather: a thread owns a cell of
// dx, and its order is that of i, every time. order: the numbers i sorted by their places, stably; those of place j are the
// positions begins[j] … begins[j + 1] − 1 of it.
template <typename T, typename I>
__global__ void add_along(const T* __restrict__ dy, const long long* __restrict__ order, const long long* __restrict__ begins,
                          T* __restrict__ dx, I count, I size, I after, I total) {
    I number = thread_number<I>();
    if (number >= total) return;
    I j = number / after % size;
    const T* line = dy + number / after / size * count * after + number % after;
    T sum = T(0);
    for (long long at = begins[j]; at < begins[j + 1]; at++) sum += line[I(order[at]) * after];
    dx[number] = sum;
}
