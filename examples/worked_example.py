"""One number through a whole network, forward, back, one step of learning, and the way back to pixels: by hand.

The net: a 2×2 convolution, a 2×2 max-pooling with stride 1, a linear layer with two outputs, softmax with cross-entropy.
Every number that is printed is held by a test (tests/test_worked_example.py). Run: python examples/worked_example.py
"""

from typing import NamedTuple

import numpy as np

from tinynet import functional as F

IMAGE = [
    [0.10, 0.15, 0.20, 0.25, 0.30],
    [0.35, 0.40, 0.45, 0.55, 0.60],
    [0.65, 0.70, 0.75, 0.80, 0.85],
    [0.90, 0.95, 0.10, 0.15, 0.20],
    [0.25, 0.30, 0.35, 0.40, 0.45],
]
KERNEL = [[0.10, 0.20], [0.30, 0.40]]
WEIGHT = [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]]
TARGET = 1
LEARNING_RATE = 0.01


class Step(NamedTuple):
    """One step: what it is called, its formula, and its result."""

    name: str
    formula: str
    value: np.ndarray


def steps() -> list[Step]:
    """All steps in order, computed in float64 with tinynet.functional."""
    image = np.array(IMAGE)[None, None]                      # (1, 1, 5, 5): a batch of one image with one channel
    kernel = np.array(KERNEL)[None, None]                    # (1, 1, 2, 2): one filter over one channel
    weight = np.array(WEIGHT)                                # (2, 9)
    target = np.array([TARGET])                              # (1,)

    # Forward.
    maps = F.conv2d(image, kernel)                           # (1, 1, 4, 4)
    pooled, switches = F.max_pool2d(maps, 2, stride=1, return_indices=True)   # (1, 1, 3, 3)
    flat = pooled.reshape(1, 9)
    logits = F.linear(flat, weight)                          # (1, 2)
    probabilities = F.softmax(logits, 1)
    loss = F.cross_entropy(logits, target)

    # Back: each line takes the gradient of the line above it, and what the forward pass kept.
    dlogits = F.cross_entropy_input_gradient(logits, target)             # (1, 2)
    dweight = F.linear_weight_gradient(dlogits, flat)                    # (2, 9)
    dflat = F.linear_input_gradient(dlogits, weight)                     # (1, 9)
    dpooled = dflat.reshape(pooled.shape)
    dmaps = F.max_pool2d_input_gradient(dpooled, switches, maps.shape)   # (1, 1, 4, 4)
    dkernel = F.conv2d_weight_gradient(image, kernel.shape, dmaps)       # (1, 1, 2, 2)

    # One step of learning, and the same image again.
    new_kernel = kernel - LEARNING_RATE * dkernel
    new_weight = weight - LEARNING_RATE * dweight
    new_pooled = F.max_pool2d(F.conv2d(image, new_kernel), 2, stride=1)
    new_logits = F.linear(new_pooled.reshape(1, 9), new_weight)

    # The way back to pixels (Zeiler & Fergus 2014): unpool by the switches, rectify, filter with the transposed kernel.
    # The windows overlap: what they send to one switch adds up, as in interpret.deconvnet. F.max_unpool2d would keep the last.
    unpooled = F.max_pool2d_input_gradient(pooled, switches, maps.shape)  # (1, 1, 4, 4)
    picture = F.conv_transpose2d(F.relu(unpooled), kernel)               # (1, 1, 5, 5)

    return [
        Step("input", "x", image[0, 0]),
        Step("kernel", "w", kernel[0, 0]),
        Step("weight", "W, of the linear layer: a row for each class", weight),
        Step("target", f"t, 1 for the class that the image is of, class {TARGET}", np.eye(2, dtype=int)[TARGET]),
        Step("convolution", "z[i, j] = Σ_ab w[a, b] · x[i + a, j + b]", maps[0, 0]),
        Step("max-pooling", "p[i, j] = max of z[i … i+1, j … j+1]", pooled[0, 0]),
        Step("switches", "where that maximum stood, as 4 · row + column", switches[0, 0]),
        Step("flatten", "p_i, i = 3 · row + column: the rows one after the other", flat[0]),
        Step("logits", "o_k = Σ_i W[k, i] · p_i", logits[0]),
        Step("softmax", "y_k = e^o_k / Σ_j e^o_j", probabilities[0]),
        Step("cross-entropy", f"ℓ = −ln y_{TARGET}", loss),
        Step("dlogits", "∂ℓ/∂o_k = y_k − t_k", dlogits[0]),
        Step("dW", "∂ℓ/∂W[k, i] = ∂ℓ/∂o_k · p_i", dweight),
        Step("dp", "∂ℓ/∂p_i = Σ_k ∂ℓ/∂o_k · W[k, i]", dflat[0]),
        Step("pool backward", "∂ℓ/∂z: each ∂ℓ/∂p_i goes to the switch of p_i; where windows share one they add", dmaps[0, 0]),
        Step("dkernel", "∂ℓ/∂w[a, b] = Σ_ij ∂ℓ/∂z[i, j] · x[i + a, j + b]", dkernel[0, 0]),
        Step("new kernel", f"w − {LEARNING_RATE} · ∂ℓ/∂w", new_kernel[0, 0]),
        Step("new W", f"W − {LEARNING_RATE} · ∂ℓ/∂W", new_weight),
        Step("second softmax", "y, of the same image through the new kernel and the new W", F.softmax(new_logits, 1)[0]),
        Step("second cross-entropy", f"−ln y_{TARGET}, smaller: it has learned", F.cross_entropy(new_logits, target)),
        Step("unpool", "u: every p_i goes back to its switch, 0 elsewhere; where windows share one they add", unpooled[0, 0]),
        Step("picture", "x̂[i + a, j + b] += w[a, b] · max(u[i, j], 0), with the kernel of before", picture[0, 0]),
    ]


def main() -> None:
    print("Rows, columns and classes count from 0.\n")
    for number, step in enumerate(steps(), 1):
        print(f"{number:2}. {step.name}: {step.formula}")
        rows = np.atleast_2d(step.value)
        for row in rows:
            print("    " + "  ".join(f"{v:8d}" if rows.dtype.kind == "i" else f"{v:8.4f}" for v in row))
        print()


if __name__ == "__main__":
    main()
