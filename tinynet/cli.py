"""The command line: thin, every command is one call or two of the library."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from . import backend
from .cli_common import Data, Device, Model, Photos, Workers, app, at_least, command_line, model_and, plainly
from .errors import ArgumentError, TinynetError, escaped, some


@app.command(short_help="Train a classifier of photos: cat or not, or your own.")
@plainly
def train(
    data: Data = None,
    start: Annotated[str | None, typer.Option(
        "--from", help="Go on from a trained network: squeezenet1_1, in the box, or a file of weights. Needs --data.")] = None,
    freeze: Annotated[str | None, typer.Option(
        help="Leave the network as it is up to this layer, itself included, and train what comes behind: --from squeezenet1_1 "
        "--freeze features.")] = None,
    test: Annotated[Path | None, typer.Option(help="A folder of class folders to test on.")] = None,
    size: Annotated[int | None, typer.Option(
        help="Side of the input in pixels. Default: 32 for the embedded photos, 224 for a folder.")] = None,
    per_class: Annotated[int | None, typer.Option(
        help="Draw that many photos of each class; 0: all. Default: 600 if --size 224 is given (the protocol of the original "
        "system), otherwise all.")] = None,
    epochs: Annotated[int | None, typer.Option(
        help="Times through the photos. Default: the recipe's, or with --resume those that the run was to have.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    output: Annotated[Path, typer.Option(help="The folder for the model, curves, figures and checkpoints.")] = Path("runs/cat"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the output folder.")] = False,
    overwrite: Annotated[bool, typer.Option(
        "--overwrite", help="Begin anew also where the output folder holds an unfinished or another training.")] = False,
    workers: Workers = None,
    device: Device = "cpu",
    precision: Annotated[str, typer.Option(
        help="Of the matrix products on a GPU: float32, tf32 or float16; sums and results are float32.")] = "float32",
) -> None:
    """Train a classifier of photos; by default cat or not, on the embedded photos, in a few minutes."""
    from .models import load_model
    from .train.classifier import fine_tuning, recipe_for, train_classifier
    from .train.photos import check_size, embedded_parts, folder_parts

    at_least(epochs=(epochs, 1), seed=(seed, 0), per_class=(per_class, 0), workers=(workers, 1))
    if backend.device(device).kind == "cpu" and precision != "float32":
        raise ArgumentError(f"--precision {precision} is a GPU's: give --device cuda, too")
    if start is not None and (data is None or size is not None):
        raise ArgumentError("--from goes with --data DIR, and without --size: the size is that of the trained network")
    if start is None and freeze is not None:
        raise ArgumentError("--freeze goes with --from: drawn weights are not worth keeping")
    protocol = size == 224
    size = size or (32 if data is None else 224)
    check_size(size, data is not None)
    begun = None if start is None else load_model(start)
    recipe = recipe_for(size) if begun is None else fine_tuning(begun, freeze)
    if data is None:
        if test is not None or per_class is not None:
            raise ArgumentError("--test and --per-class go with --data DIR")
        parts = embedded_parts(seed)
    else:
        draw = (600 if protocol else None) if per_class is None else (per_class or None)
        parts = folder_parts(data, test, per_class=draw, cache=recipe.cache, seed=seed, progress=True)
    print(parts.description)
    with backend.gpu_options(precision=precision):
        train_classifier(
            parts, recipe, output, seed=seed, epochs=epochs, workers=workers, resume=resume, overwrite=overwrite, device=device,
            positive="cat" if "cat" in parts.train.classes else None, command=command_line(), start=begun, freeze=freeze,
        )


@app.command(short_help="How well a model does on a folder of photos.")
@plainly
def evaluate(
    model: Model,
    data: Data = None,
    output: Annotated[Path | None, typer.Option(help="A folder for the confusion matrix and the sheet of predictions.")] = None,
    workers: Workers = None,
    device: Device = "cpu",
) -> None:
    """Say how well a model does on the photos of a folder, those in its test/ where it has train/ and test/; by default on the
    embedded test photos.
    """
    from .data import ImageFolder, Loader, cached, embedded
    from .distributed import Shards
    from .files import make_folder
    from .models import check_classes, load_model
    from .nn import CrossEntropyLoss, without_softmax
    from .train import evaluate as run
    from .train.classifier import figures_table
    from .train.photos import train_and_test
    from .train.plots import plot_confusion_matrix, plot_predictions

    at_least(workers=(workers, 1))
    trained = load_model(model, device)
    root = data
    if data is not None:
        alone, test = train_and_test(data)
        root = test or alone
    photos: Any = embedded("test") if root is None else ImageFolder(root)
    check_classes(photos.classes, trained.classes, str(root or "the embedded photos"))
    if data is not None:                                        # decoded at once: a broken photo is left out
        photos = cached(photos, trained.preprocessing.resize, progress=True)
    views = trained.preprocessing.views
    with Shards(workers) as shards:
        loader = Loader(photos, 64, trained.preprocessing.transform())
        result = run(without_softmax(trained.model), loader, CrossEntropyLoss(), shards, views=views)
    trained.check_outputs(result.logits.shape[1])
    positive = "cat" if "cat" in trained.classes else None
    which = None if positive is None else trained.classes.index(positive)
    print(figures_table({"photos": result.metrics(which)}, {"photos": len(result.labels)}, {"photos": views}, positive))
    print(confusion_text(result.confusion_matrix, trained.classes))
    if output is not None:
        make_folder(output)
        plot_confusion_matrix(result.confusion_matrix, trained.classes, output / "confusion.png")
        of = f"{len(photos):,} {'embedded test photos' if data is None else f'photos of {data.resolve().name}'}"
        plot_predictions(photos, result.labels, result.probabilities, trained.classes, output / "predictions.png", of=of)
        print(f"{output / 'confusion.png'}\n{output / 'predictions.png'}")


@app.command(short_help="What is on photos, a line a photo.")
@plainly
def predict(
    photos: Photos,
    top: Annotated[int, typer.Option(help="Classes to name for each photo, the most probable first.")] = 1,
    device: Device = "cpu",
) -> None:
    """Say what is on photos: class and probability, a line a photo. A photo that cannot be read is named, and the
    exit code is 1.
    """
    import numpy as np

    from .data import read_photo
    from .train import predict as run

    at_least(top=(top, 1))
    trained, paths = model_and(photos, "a photo", device)
    transform, failed, width = trained.preprocessing.transform(), False, max(len(str(path)) for path in paths)
    for path in paths:
        try:
            x = transform(read_photo(path, size=None), np.random.default_rng(0))
        except TinynetError as error:
            failed = True
            print(f"tinynet: {error}", file=sys.stderr)
            continue
        probabilities = run(trained.model, x[None], views=trained.preprocessing.views)[0]
        trained.check_outputs(len(probabilities))
        best = np.argsort(-probabilities, kind="stable")[:top]
        print(f"{path!s:<{width}}  " + "   ".join(f"{escaped(trained.classes[i])}  {100 * probabilities[i]:.1f} %" for i in best))
    if failed:
        raise typer.Exit(1)


@app.command(short_help="The layers of a model, as a table.")
@plainly
def summary(
    model: Annotated[str, typer.Argument(help="A model file, or the name of a model.")] = "catnet",
    size: Annotated[int | None, typer.Option(help="Side of the input in pixels. Default: that of the training.")] = None,
) -> None:
    """Print a model as a table: output shapes, parameters, memory, multiply-adds, receptive fields."""
    from . import nn
    from .models import create, entry, load_model, names, names_model, nearest

    at_least(size=(size, 1))
    if model in names():
        network, (channels, side, _) = create(model, rng=nn.init.no_draws), entry(model).input_size
    elif "/" not in model and not names_model(model) and not os.path.exists(model):
        raise ArgumentError(f"no model file and no model named {model!r}; nearest: {nearest(model)}")
    else:
        trained = load_model(model)
        network, channels, side = trained.model, trained.preprocessing.channels, trained.preprocessing.crop
        print(f"classes: {escaped(some(trained.classes, 12))}")
    print(nn.summary(network, (channels, size or side, size or side)))


@app.command(short_help="The networks that have a name.")
@plainly
def models(
    name: Annotated[str | None, typer.Argument(help="One of them: its paper, what it wants to see, its layers.")] = None,
) -> None:
    """List the networks that have a name: parameters, multiply-adds, receptive field of the last convolution, paper."""
    from . import nn
    from .models import create, entry, models_table

    if name is None:
        print(models_table())
        return
    known = entry(name)
    print(*(f"{line}\n" for line in (known.paper, known.preprocessing and known.preprocessing.words) if line), sep="")
    print(nn.summary(create(name, rng=nn.init.no_draws), known.input_size))


@app.command(short_help="PyTorch's weights as a file for all commands.")
@plainly
def convert(
    source: Annotated[Path, typer.Argument(
        help="Weights: .safetensors, .npz, .onnx, or what torch.save wrote (nothing is run); or squeezenet1_1, of the box.")],
    target: Annotated[Path, typer.Argument(help="The file to write: .safetensors, which PyTorch reads, too, or .npz.")],
    model: Annotated[str | None, typer.Option(
        help="The network that the weights are of (tinynet models lists them). Default: what names and shapes tell.")] = None,
    key: Annotated[str | None, typer.Option(help="The entry of a checkpoint that holds the weights.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Write float16: half the size, rounded.")] = False,
) -> None:
    """Convert weights to safetensors or .npz. Where the network is known, a .safetensors is a model file for all commands."""
    from .models import TrainedModel
    from .models import convert as run

    kept, written = run(source, target, model, key=key, half=half)
    if isinstance(kept, TrainedModel):
        print(f"{written}: {kept.name}, {len(kept.classes):,} classes")
    else:
        count = sum(x.size for x in kept.values())
        unknown = "; of no network that is known here" if written.suffix == ".safetensors" else ""
        print(f"{written}: {len(kept):,} arrays, {count:,} numbers{unknown}")


@app.command(short_help="What is in a folder of photos.")
@plainly
def data(
    folder: Annotated[Path | None, typer.Argument(
        help="A folder of class folders, or of train/ and test/ with these. Default: the embedded photos.")] = None,
    get: Annotated[str | None, typer.Option(help="Download a known set instead; --get list names them.")] = None,
) -> None:
    """Say what is in a folder of photos: classes, counts, sizes, broken files; in its train/ and its test/, where it has these.
    Or download a known set.
    """
    from .data import ImageFolder, embedded, known, known_names
    from .train.photos import train_and_test

    if get == "list":
        print("\n".join(known_names()))
        return
    if get is not None and folder is not None:
        raise ArgumentError("give a folder or --get NAME, not both")
    if get is not None:
        _describe(known(get))
    elif folder is None:
        _describe(embedded("train"))
    else:
        train, test = train_and_test(folder)
        _describe(ImageFolder(train), "" if test is None else f"{train}: ")
        if test is not None:
            _describe(ImageFolder(test), f"{test}: ")


def _describe(photos: Any, where: str = "") -> None:
    from .data import describe

    record = describe(photos)
    print(f"{where}{record['photos']:,} photos, {len(record['classes'])} classes")
    width = max(len(row["class"]) for row in record["classes"])
    for row in record["classes"]:
        print(f"  {row['class']:<{width}}  {row['photos']:>7,}  {100 * row['share']:5.1f} %")
    for side in ("height", "width"):
        if record[side] is not None:
            values = record[side]
            print(f"{side}: {values['smallest']:,} to {values['largest']:,} pixels, median {values['median']:,}")
    for what in ("broken", "ignored"):
        if record[what]:
            print(f"{what}: {len(record[what])}")


@app.command(short_help="A model as an ONNX file.")
@plainly
def export(
    model: Model,
    output: Annotated[Path, typer.Argument(help="The ONNX file to write: model.onnx.")],
) -> None:
    """Write a model as an ONNX file, which other tools and runtimes read (needs the package onnx)."""
    from .models import load_model, to_onnx

    if output.suffix != ".onnx":
        raise ArgumentError(f"{output}: expected a name that ends with .onnx")
    to_onnx(load_model(model), output)
    print(output)


def confusion_text(matrix: Any, classes: list[str]) -> str:
    """The confusion matrix as lines; of more than 12 classes only the largest confusions."""
    if len(classes) > 12:
        pairs = [(int(matrix[i, j]), i, j) for i in range(len(classes)) for j in range(len(classes)) if i != j and matrix[i, j]]
        lines = [f"{count:>6}  {classes[i]} taken for {classes[j]}" for count, i, j in sorted(pairs, reverse=True)[:10]]
        return "\n".join(["largest confusions:", *lines])
    width = max(8, *(len(name) for name in classes))
    head = " " * (width + 5) + "  ".join(f"{name:>{width}}" for name in classes) + "   (predicted)"
    rows = ["  ".join(f"{int(v):>{width}}" for v in row) for row in matrix]
    return "\n".join([head, *(f"is {name:>{width}}  {row}" for name, row in zip(classes, rows, strict=True))])


from . import cli_inside  # noqa: E402, F401 - its commands, behind those above in the help


def main() -> None:
    """The command `tinynet`."""
    app()
