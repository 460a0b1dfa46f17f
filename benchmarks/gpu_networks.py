"""A network on a GPU: a step of training, inference, and the projections of its units."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from benchmarks.gpu_bench import Bench
from benchmarks.gpu_figures import Row, network_work, training_work
from tinynet import backend, interpret, nn, optim
from tinynet.distributed import Shards
from tinynet.interpret.patches import unit_walk
from tinynet.interpret.unit_walks import Photo, UnitWalks
from tinynet.interpret.units import record
from tinynet.nn.receptive_field import receptive_field


def network(
    bench: Bench, name: str, model: nn.Sequential, n: int, size: int, classes: int, precisions: Iterable[str]
) -> Iterable[Row]:
    """A step of training, inference, and the projection of a unit for each image (Captum's, for PyTorch)."""
    import torch
    from captum.attr import NeuronDeconvolution

    from benchmarks.twin import twin

    theirs = twin(model).to(bench.device)
    model.to(dtype=np.float32)
    for _, layer, attribute in model._state():
        setattr(layer, attribute, bench.move(np.asarray(backend.to_host(getattr(layer, attribute)))))
    x, tx = bench.inputs(n, 3, size, size)
    target = bench.rng.integers(0, classes, n)
    ours_target, torch_target = bench.move(target), torch.from_numpy(target).to(bench.device)
    optimizer = optim.SGD(model.named_parameters(), lr=1e-4, momentum=0.9)
    torch_optimizer = torch.optim.SGD(theirs.parameters(), lr=1e-4, momentum=0.9, foreach=True)
    loss, rng = nn.CrossEntropyLoss(), np.random.default_rng(0)

    def step(i: int) -> None:
        logits, saved = model.forward(x[i], train=True, rng=rng)
        _, gradients = nn.backward(model, saved, loss(logits, ours_target)[1], input_gradient=False)
        optimizer.step(gradients)

    def torch_step(i: int) -> None:
        theirs.train()
        torch_optimizer.zero_grad()
        torch.nn.functional.cross_entropy(theirs(tx[i]), torch_target).backward()
        torch_optimizer.step()

    def torch_infer(i: int) -> None:
        theirs.eval()
        with torch.no_grad():
            theirs(tx[i])

    inference, training = network_work(model, n, (3, size, size)), training_work(model, n, (3, size, size))
    rows = [("train", step, torch_step, training), ("inference", lambda i: model(x[i]), torch_infer, inference)]
    layer = [path for path, child in model.layers() if isinstance(child, nn.Conv2d)][-1]
    place = [path for path, child in model.layers() if path and not list(child.children())].index(layer)
    convolution = [m for m in theirs.modules() if not list(m.children())][place]
    project, captum = interpret.deconvnet(model), NeuronDeconvolution(theirs, convolution)

    def torch_project(i: int) -> None:
        theirs.eval()
        captum.attribute(tx[i].detach().requires_grad_(), lambda y: y[:, 0].amax(dim=(1, 2)))

    rows.append(("projection", lambda i: project.attribute(x[i], layer=layer, unit=(0, "max")), torch_project, None))

    # What an atlas does with a photo: to the GPU and up once, down from the strongest place of some maps, and the pictures
    # back to the host. Captum goes up every time, from a photo that is there, and leaves the pictures there.
    field, photos = receptive_field(model, layer), []
    for photo in (backend.to_host(some[:1]) for some in x):
        maps = backend.to_host(record(model, bench.move(photo), layer).output)[0]
        places = [np.unravel_index(int(map.argmax()), map.shape) for map in maps[:4]]
        walks = [unit_walk(k, [int(p) for p in place], field, photo) for k, place in enumerate(places)]
        photos.append(Photo(0, photo, walks))

    def atlas(i: int) -> None:
        list(UnitWalks([project], layer).run([photos[i : i + 1]], Shards(1), lambda found: None))

    def torch_atlas(i: int) -> None:
        for channel in range(4):
            captum.attribute(tx[i][:1].detach().requires_grad_(), lambda y, channel=channel: y[:, channel].amax(dim=(1, 2)))

    rows.append(("atlas", atlas, torch_atlas, None))
    for what, mine, its, work in rows:
        group = "networks" if what in ("train", "inference") else "projections"
        for precision in precisions:
            yield bench.row(group, name, what, precision, n if what != "atlas" else 1, work, mine, its)
