// CUDA's words on a CPU, for the tests: a block's threads run as fibers that stand still at a barrier until all have come to it.
//
// In each stretch between two barriers the threads run one after the other, now forwards, now backwards: what one of them reads
// before the barrier that it should have waited for is then wrong in one direction or the other. A thread that ends while others
// wait, or waits at another line, is an error (on a GPU: undefined). __shared__ is memory that is never cleared, as there.

#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using std::exp;
using std::log;
using std::sqrt;

[[maybe_unused]] static unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}

struct Numbers { unsigned x, y, z; };
static Numbers threadIdx, blockIdx, blockDim, gridDim;

namespace shim {
constexpr std::size_t STACK = 128 << 10;
struct Fiber { ucontext_t context; char* stack; Numbers index; int line; bool done; };
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static Fiber* running;
static std::function<void()> body;

static void start() {
    body();
    running->done = true;
    swapcontext(&running->context, &scheduler);
}

static void wait(int line) {
    running->line = line;
    swapcontext(&running->context, &scheduler);
    threadIdx = running->index;
}

static void make_fibers(std::size_t count) {
    while (fibers.size() < count) fibers.push_back({{}, (char*)std::malloc(STACK), {}, 0, false});
    for (std::size_t i = 0; i < count; i++) {
        Fiber& f = fibers[i];
        f.index = {unsigned(i % blockDim.x), unsigned(i / blockDim.x % blockDim.y), unsigned(i / blockDim.x / blockDim.y)};
        f.done = false;
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack;
        f.context.uc_stack.ss_size = STACK;
        f.context.uc_link = nullptr;
        makecontext(&f.context, start, 0);
    }
}

static const char* run_block(bool backwards) {
    const std::size_t count = std::size_t(blockDim.x) * blockDim.y * blockDim.z;
    make_fibers(count);
    for (;; backwards = !backwards) {
        for (std::size_t i = 0; i < count; i++) {
            running = &fibers[backwards ? count - 1 - i : i];
            threadIdx = running->index;
            running->line = 0;
            swapcontext(&scheduler, &running->context);
        }
        for (std::size_t i = 0; i < count; i++) {
            if (fibers[i].done != fibers[0].done) return "a thread ended while others waited at a barrier";
            if (fibers[i].line != fibers[0].line) return "threads of one block waited at different barriers";
        }
        if (fibers[0].done) return nullptr;
    }
}

static const char* run(const unsigned* grid, const unsigned* block, bool barriers, int order) {
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                blockIdx = {x, y, z};
                if (barriers) {
                    if (const char* error = run_block(order & 1)) return error;
                } else {
                    for (unsigned i = 0; i < block[0]; i++) {
                        threadIdx = {order & 1 ? block[0] - 1 - i : i, 0, 0};
                        body();
                    }
                }
            }
    return nullptr;
}

// The C types of a kernel's parameters in one letter each, pointers in two: "pf" is float*, "Pf" const float*; a struct is s<bytes>.
template <typename A>
std::string letter() {
    if constexpr (std::is_pointer_v<A>) {
        using To = std::remove_pointer_t<A>;
        return (std::is_const_v<To> ? "P" : "p") + letter<std::remove_const_t<To>>();
    } else if constexpr (std::is_same_v<A, float>) return "f";
    else if constexpr (std::is_same_v<A, double>) return "d";
    else if constexpr (std::is_same_v<A, int>) return "i";
    else if constexpr (std::is_same_v<A, long long>) return "q";
    else if constexpr (std::is_same_v<A, unsigned short>) return "H";
    else if constexpr (std::is_same_v<A, unsigned char>) return "B";
    else return "s" + std::to_string(sizeof(A));
}

template <typename... A>
std::string signature(void (*)(A...)) {
    std::string all;
    ((all += letter<A>() + " "), ...);
    return all;
}

template <typename... A, std::size_t... S>
void prepare(void (*kernel)(A...), void** arguments, std::index_sequence<S...>) {
    body = [=] { kernel(*(A*)arguments[S]...); };
}

template <typename... A>
void prepare(void (*kernel)(A...), void** arguments) {
    prepare(kernel, arguments, std::index_sequence_for<A...>{});
}
}  // namespace shim

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)
#define __syncthreads() shim::wait(__LINE__)
#define KERNEL(number, barriers, ...)                                                                                   \
    extern "C" const char* signature_##number() {                                                                        \
        static std::string text = shim::signature(__VA_ARGS__);                                                          \
        return text.c_str();                                                                                             \
    }                                                                                                                    \
    extern "C" const char* run_##number(const unsigned* grid, const unsigned* block, void** arguments, int order) {      \
        shim::prepare(__VA_ARGS__, arguments);                                                                              \
        return shim::run(grid, block, barriers, order);                                                                  \
    }
