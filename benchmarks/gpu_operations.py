"""The operations that are timed on a GPU: convolutions in every way, the other kernels, a step of an optimiser."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.gpu_bench import Bench
from benchmarks.gpu_figures import Conv, Row, Work, conv_work, elementwise, loss_work, pool_work, ways
from tinynet import functional as F
from tinynet import nn, optim
from tinynet.kernels.cuda import here


def convolutions(bench: Bench, grid: Iterable[Conv], precisions: Sequence[str]) -> Iterable[Row]:
    """Each convolution as it is chosen, and in each way that it can be done."""
    for conv in grid:
        for what, ours, theirs in convolution(bench, conv):
            for precision in precisions:
                yield bench.row("convolutions", conv.name, what, precision, conv.n, conv_work(conv), ours, theirs)
                for way in ways(conv, what, precision, here(bench.move(np.zeros(1)))):
                    yield bench.row("ways", conv.name, what, precision, conv.n, conv_work(conv), partial(ours, algorithm=way),
                                    theirs, way)


def convolution(bench: Bench, conv: Conv) -> list[tuple[str, Any, Any]]:
    """(pass, ours, PyTorch's) of the three passes."""
    import torch

    x, tx = bench.inputs(conv.n, conv.c, conv.size, conv.size)
    w, tw = bench.inputs(conv.o, conv.c // conv.groups, conv.kernel, conv.kernel)
    dy, tdy = bench.inputs(conv.n, conv.o, conv.out, conv.out)
    how: Any = {"stride": conv.stride, "padding": conv.padding, "groups": conv.groups}
    x_size, w_size = tuple(x[0].shape), tuple(w[0].shape)

    def gradient(which: int, i: int) -> Any:
        return torch.ops.aten.convolution_backward(
            tdy[i], tx[i], tw[i], None, [conv.stride] * 2, [conv.padding] * 2, [1, 1], False, [0, 0], conv.groups,
            [which == 0, which == 1, False],
        )[which]

    return [
        ("forward", lambda i, **way: F.conv2d(x[i], w[i], **how, **way),
         lambda i: torch.nn.functional.conv2d(tx[i], tw[i], **how)),
        ("input gradient", lambda i, **way: F.conv2d_input_gradient(x_size, w[i], dy[i], **how, **way),
         partial(gradient, 0)),
        ("weight gradient", lambda i, **way: F.conv2d_weight_gradient(x[i], w_size, dy[i], **how, **way),
         partial(gradient, 1)),
    ]


def others(bench: Bench, n: int, c: int, size: int, classes: int) -> Iterable[Row]:
    """The kernels beside convolutions: pooling and its ways back, normalisation, bias + ReLU, dropout, the loss."""
    import torch

    torch_f, aten, group = torch.nn.functional, torch.ops.aten, "pooling and loss"
    x, tx = bench.inputs(n, c, size, size)
    work = pool_work(n, c, size, 2, 2)

    def one(name: str, what: str, work: Work, ours: Any, theirs: Any, group: str = "other kernels") -> Row:
        return bench.row(group, name, what, "float32", n, work, ours, theirs)

    yield one(f"max-pool 2x2 of {size}²", "with switches", work, lambda i: F.max_pool2d(x[i], 2, return_indices=True),
              lambda i: torch_f.max_pool2d(tx[i], 2, return_indices=True), group)
    layer = nn.MaxPool2d(2)
    pooled, saved = layer.forward(x[0])
    theirs = torch_f.max_pool2d(tx[0], 2, return_indices=True)
    windows = [2, 2], [2, 2], [0, 0], [1, 1], False
    yield one(f"max-pool 2x2 of {size}²", "gradient", work, lambda i: layer.input_gradient(saved, pooled),
              lambda i: aten.max_pool2d_with_indices_backward(theirs[0], tx[0], *windows, theirs[1]), group)
    yield one(f"unpool 2x2 to {size}²", "overwrite", work,
              lambda i: F.max_unpool2d(pooled, saved.indices, 2, output_size=(size, size)),
              lambda i: torch_f.max_unpool2d(*theirs, 2, output_size=(size, size)), group)
    logits, tl = bench.inputs(n, classes)
    target = bench.rng.integers(0, classes, n)
    ours_target, torch_target = bench.move(target), torch.from_numpy(target).to(bench.device)
    loss = nn.CrossEntropyLoss()

    def both(i: int) -> Any:
        leaf = tl[i].detach().requires_grad_()
        value = torch_f.cross_entropy(leaf, torch_target)
        return value, torch.autograd.grad(value, leaf)

    yield one(f"cross-entropy of {classes}", "with gradient", loss_work(n, classes),
              lambda i: loss(logits[i], ours_target), both, group)

    dy, tdy = bench.inputs(n, c, size, size)
    bias, torch_bias = (side[0] for side in bench.inputs(c))
    numbers = n * c * size**2
    norm = nn.BatchNorm2d(c)
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(norm, name, bench.move(np.asarray(getattr(norm, name))))
    torch_norm = torch.nn.BatchNorm2d(c).to(bench.device)

    def norm_ours(i: int) -> None:
        kept = norm.forward(x[i], train=True)[1]
        norm.input_gradient(kept, dy[i])
        norm.parameter_gradients(kept, dy[i])

    def norm_theirs(i: int) -> None:
        leaf = tx[i].detach().requires_grad_()
        torch.autograd.grad(torch_norm(leaf), (leaf, torch_norm.weight, torch_norm.bias), tdy[i])

    yield one(f"batch norm of {size}²", "forward", elementwise(numbers, 8, 2), lambda i: norm.forward(x[i], train=True),
              lambda i: torch_norm(tx[i]))
    yield one(f"batch norm of {size}²", "forward and gradients", elementwise(numbers, 20, 5), norm_ours, norm_theirs)
    dropout, rng = nn.Dropout(0.5), np.random.default_rng(0)
    yield one(f"dropout of {size}²", "forward", elementwise(numbers, 2, 2), lambda i: dropout.forward(x[i], True, rng),
              lambda i: torch_f.dropout(tx[i], 0.5, True))
    w, torch_w = bench.inputs(c, c, 1, 1)
    product = conv_work(Conv("", n, c, size, c, 1))
    yield one(f"1x1, bias, ReLU of {size}²", "inference", product, lambda i: F.conv_relu(2, x[i], w[i], bias),
              lambda i: torch_f.relu(torch_f.conv2d(tx[i], torch_w[i], torch_bias)))


def optimisers(bench: Bench, sizes: Sequence[tuple[int, ...]]) -> Iterable[Row]:
    """One step over many parameters, against PyTorch's fused step where the device has one."""
    import torch

    count = sum(int(np.prod(size)) for size in sizes)
    for name, ours, theirs, operations, arrays in (
        ("SGD, momentum", partial(optim.SGD, momentum=0.9), partial(torch.optim.SGD, momentum=0.9), 4, 5),
        ("AdamW", optim.AdamW, torch.optim.AdamW, 12, 7),
        ("Adam, amsgrad", partial(optim.Adam, amsgrad=True), partial(torch.optim.Adam, amsgrad=True), 13, 9),
    ):
        pairs = [bench.inputs(*size) for size in sizes]
        parameters = {str(k): mine[0] for k, (mine, _) in enumerate(pairs)}
        gradients = {str(k): mine[-1] for k, (mine, _) in enumerate(pairs)}
        tensors = [its[0].requires_grad_() for _, its in pairs]
        for tensor, (_, its) in zip(tensors, pairs, strict=True):
            tensor.grad = its[-1]
        mine, other = ours(parameters, lr=1e-6), theirs(tensors, lr=1e-6, fused=True)
        yield bench.row("other kernels", name, f"step of {count / 1e6:,.1f} M numbers", "float32", 0,
                        elementwise(count, operations, arrays), partial(_step, mine, gradients), partial(_step, other))


def _step(optimizer: Any, *gradients: Any) -> Any:
    """One step of either library's optimiser; the last argument is the number of an input set, which plays no part."""
    return optimizer.step(*gradients[:-1])
