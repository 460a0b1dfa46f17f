"""The command line: thin, every command is one call or two of the library."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from . import backend
from .errors import ArgumentError, TinynetError

app = typer.Typer(
    help="Convolutional networks from scratch in NumPy: train them, and see what they have learned.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)

Model = Annotated[Path, typer.Argument(help="A model file, as `tinynet train` writes it: runs/cat/model.safetensors.")]
Data = Annotated[Path | None, typer.Option(
    help="A folder of class folders (or of train/ and test/ with these). Default: the embedded photos.")]
Device = Annotated[str, typer.Option(help='Where to compute: "cpu", "cuda" (the first GPU), or "cuda:1" and so on.')]
Workers = Annotated[int | None, typer.Option(help="Threads that share a batch. Default: one a core.")]


def _plainly(command: Callable[..., None]) -> Callable[..., None]:
    """A user's mistake is one line on stderr and exit code 2; Ctrl-C is one line and 130."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except TinynetError as error:
            print(f"tinynet: {error}", file=sys.stderr)
            raise typer.Exit(2) from None
        except MemoryError as error:
            print(f"tinynet: out of memory{f': {error}' if str(error) else ''}", file=sys.stderr)
            raise typer.Exit(2) from None
        except KeyboardInterrupt as interrupt:
            print(f"\ntinynet: {interrupt or 'interrupted'}", file=sys.stderr)
            raise typer.Exit(130) from None
        except BrokenPipeError:                                 # the reader, head say, has had enough
            sys.stderr.close()
            raise typer.Exit(1) from None

    return run


@app.command()
@_plainly
def train(
    data: Data = None,
    test: Annotated[Path | None, typer.Option(help="A folder of class folders to test on.")] = None,
    size: Annotated[int | None, typer.Option(
        help="Side of the input in pixels. Default: 32 for the embedded photos, 224 for a folder.")] = None,
    per_class: Annotated[int | None, typer.Option(
        help="Draw that many photos of each class; 0: all. Default: 600 if --size 224 is given (the protocol of the original "
        "system), otherwise all.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times through the photos. Default: the recipe's.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    output: Annotated[Path, typer.Option(help="The folder for the model, curves, figures and checkpoints.")] = Path("runs/cat"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the output folder.")] = False,
    workers: Workers = None,
    device: Device = "cpu",
    precision: Annotated[str, typer.Option(
        help="Of the matrix products on a GPU: float32, tf32 or float16; sums and results are float32.")] = "float32",
) -> None:
    """Train a classifier of photos; by default cat or not, on the embedded photos, in a few minutes."""
    from .train.classifier import recipe_for, train_classifier
    from .train.photos import check_size, embedded_parts, folder_parts

    _at_least(epochs=(epochs, 1), seed=(seed, 0), per_class=(per_class, 0), workers=(workers, 1))
    if backend.device(device).kind == "cpu" and precision != "float32":
        raise ArgumentError(f"--precision {precision} is a GPU's: give --device cuda, too")
    protocol = size == 224
    size = size or (32 if data is None else 224)
    check_size(size, data is not None)
    recipe = recipe_for(size)
    if data is None:
        if test is not None or per_class is not None:
            raise ArgumentError("--test and --per-class go with --data DIR")
        parts = embedded_parts(seed)
    else:
        draw = (600 if protocol else None) if per_class is None else (per_class or None)
        parts = folder_parts(data, test, per_class=draw, cache=recipe.cache, seed=seed, progress=True)
    print(parts.description)
    words = ["tinynet", *sys.argv[1:]]
    with backend.gpu_options(precision=precision):
        train_classifier(
            parts, recipe, output, seed=seed, epochs=epochs, workers=workers, resume=resume, device=device,
            positive="cat" if "cat" in parts.train.classes else None,
            command=shlex.join(word for word in words if word != "--resume"),
        )


@app.command()
@_plainly
def evaluate(
    model: Model,
    data: Data = None,
    output: Annotated[Path | None, typer.Option(help="A folder for the confusion matrix and the sheet of predictions.")] = None,
    workers: Workers = None,
    device: Device = "cpu",
) -> None:
    """Say how well a model does on the photos of a folder; by default on the embedded test photos."""
    from .data import ImageFolder, Loader, cached, embedded
    from .distributed import Shards
    from .files import make_folder
    from .models import check_classes, load_model
    from .nn import CrossEntropyLoss
    from .train import evaluate as run
    from .train.classifier import figures_table
    from .train.plots import plot_confusion_matrix, plot_predictions

    _at_least(workers=(workers, 1))
    trained = load_model(model, device)
    photos: Any = embedded("test") if data is None else ImageFolder(data)
    check_classes(photos.classes, trained.classes, str(data or "the embedded photos"))
    if data is not None:                                        # decoded at once: a broken photo is left out
        photos = cached(photos, trained.preprocessing.resize, progress=True)
    with Shards(workers) as shards:
        loader = Loader(photos, 64, trained.preprocessing.transform())
        result = run(trained.model, loader, CrossEntropyLoss(), shards, views=trained.preprocessing.views)
    positive = "cat" if "cat" in trained.classes else None
    which = None if positive is None else trained.classes.index(positive)
    print(figures_table({"photos": result.metrics(which)}, {"photos": len(result.labels)}, positive))
    print(confusion_text(result.confusion_matrix, trained.classes))
    if output is not None:
        make_folder(output)
        plot_confusion_matrix(result.confusion_matrix, trained.classes, output / "confusion.png")
        plot_predictions(photos, result.labels, result.probabilities, trained.classes, output / "predictions.png")
        print(f"{output / 'confusion.png'}\n{output / 'predictions.png'}")


@app.command()
@_plainly
def predict(
    model: Model,
    photos: Annotated[list[Path], typer.Argument(help="Photos: JPEG, PNG, WebP.")],
    device: Device = "cpu",
) -> None:
    """Say what is on photos: class and probability, a line a photo. A photo that cannot be read is named, and the
    exit code is 1.
    """
    import numpy as np

    from .data import read_photo
    from .models import load_model
    from .train import predict as run

    trained = load_model(model, device)
    transform, failed, width = trained.preprocessing.transform(), False, max(len(str(path)) for path in photos)
    for path in photos:
        try:
            x = transform(read_photo(path, size=None), np.random.default_rng(0))
        except TinynetError as error:
            failed = True
            print(f"tinynet: {error}", file=sys.stderr)
            continue
        probabilities = run(trained.model, x[None], views=trained.preprocessing.views)[0]
        best = int(probabilities.argmax())
        print(f"{path!s:<{width}}  {trained.classes[best]}  {100 * probabilities[best]:.1f} %")
    if failed:
        raise typer.Exit(1)


@app.command()
@_plainly
def summary(
    model: Annotated[str, typer.Argument(help="A model file, or the name of a model.")] = "catnet",
    size: Annotated[int | None, typer.Option(help="Side of the input in pixels. Default: that of the training.")] = None,
) -> None:
    """Print a model as a table: output shapes, parameters, memory, multiply-adds, receptive fields."""
    from . import nn
    from .models import create, load_model, names

    _at_least(size=(size, 1))
    if model in names():
        network, side = create(model), {"catnet": 32}.get(model, 224)
    elif "/" not in model and not model.endswith(".safetensors") and not Path(model).exists():
        raise ArgumentError(f"no model file and no model named {model!r}; there is {', '.join(names())}")
    else:
        trained = load_model(model)
        network, side = trained.model, trained.preprocessing.crop
        print(f"classes: {', '.join(trained.classes)}")
    print(nn.summary(network, (3, size or side, size or side)))


@app.command()
@_plainly
def data(
    folder: Annotated[Path | None, typer.Argument(help="A folder of class folders. Default: the embedded photos.")] = None,
    get: Annotated[str | None, typer.Option(help="Download a known set instead; --get list names them.")] = None,
) -> None:
    """Say what is in a folder of photos: classes, counts, sizes, broken files. Or download a known set."""
    from .data import ImageFolder, describe, embedded, known, known_names

    if get == "list":
        print("\n".join(known_names()))
        return
    if get is not None and folder is not None:
        raise ArgumentError("give a folder or --get NAME, not both")
    if get is not None:
        photos: Any = known(get)
    else:
        photos = embedded("train") if folder is None else ImageFolder(folder)
    record = describe(photos)
    print(f"{record['photos']:,} photos, {len(record['classes'])} classes")
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


@app.command()
@_plainly
def explain(
    model: Model,
    photos: Annotated[list[Path], typer.Argument(help="Photos: JPEG, PNG, WebP; of any size.")],
    layers: Annotated[list[str] | None, typer.Option(
        help="A layer, or LAYER:CHANNEL for one unit, or several with commas; may be given again. Default: the rectified maps of "
        "up to five convolutions.")] = None,
    units: Annotated[int, typer.Option(help="Units of a layer to show: those that the photo excites most.")] = 3,
    target: Annotated[str | None, typer.Option(help="The class to ask about. Default: what the model says.")] = None,
    mask: Annotated[Path | None, typer.Option(
        help="A picture of the photo's size, not black where the object is; or a folder of these, named as the photos.")] = None,
    output: Annotated[Path, typer.Option(help="The folder for the sheets and figures.")] = Path("runs/explain"),
    device: Device = "cpu",
) -> None:
    """Show what a model's units see in photos, and which pixels a class depends on, each beside its control: the same picture
    with redrawn weights. A photo that cannot be read is named, and the exit code is 1.
    """
    from .interpret.explain_photos import explain_photos
    from .models import load_model

    _at_least(units=(units, 1))
    made = explain_photos(
        load_model(model, device), photos, output,
        layers=[name for given in layers or [] for name in given.split(",") if name] or None,
        units=units, target=target, mask=mask, command=shlex.join(["tinynet", *sys.argv[1:]]),
    )
    for line in (*made.failed, *([made.warning] if made.warning else [])):
        print(f"tinynet: {line}", file=sys.stderr)
    print("\n".join(map(str, made.files)))
    if made.failed:
        raise typer.Exit(1)


@app.command()
@_plainly
def atlas(
    model: Model,
    folder: Annotated[Path | None, typer.Argument(help="A folder of photos, or of class folders. Default: the embedded "
                                                  "test photos.")] = None,
    layers: Annotated[list[str] | None, typer.Option(
        help="A layer, or several with commas; may be given again. Default: the rectified maps of every convolution.")] = None,
    units: Annotated[int, typer.Option(help="Units of a layer to show, evenly spread over the active ones; 0: all.")] = 32,
    output: Annotated[Path, typer.Option(help="The folder for the report, its sheets and the findings.")] = Path("runs/atlas"),
    workers: Workers = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
    device: Device = "cpu",
) -> None:
    """Show what excites each unit of a model most: its nine strongest photos and their projections, as one HTML file."""
    from .data import any_photos, embedded
    from .interpret.report import make_atlas
    from .models import load_model

    _at_least(units=(units, 0), workers=(workers, 1))
    trained = load_model(model, device)
    photos: Any = embedded("test") if folder is None else any_photos(folder)
    made = make_atlas(
        trained, photos, output, layers=[name for given in layers or [] for name in given.split(",") if name] or None,
        units=units or None, workers=workers, resume=resume,
        photos=f"{len(photos):,} {'embedded photos' if folder is None else f'photos of {folder.resolve().name}'}",
        command=shlex.join(word for word in ["tinynet", *sys.argv[1:]] if word != "--resume"),
    )
    if made.warning:
        print(f"tinynet: {made.warning}", file=sys.stderr)
    print("\n".join(str(path) for path in (made.report, *made.sheets)))


@app.command()
@_plainly
def study(
    model: Model,
    folder: Annotated[Path | None, typer.Argument(help="A folder of class folders, or of photos. Default: the embedded "
                                                  "test photos.")] = None,
    output: Annotated[Path, typer.Option(help="The folder for pictures, figures.json and findings.txt.")] = Path("runs/study"),
    train: Annotated[int, typer.Option(help="Epochs for which variants of the model are trained on the photos (evolution, "
                                       "ablation); 0: leave these out.")] = 0,
    boxes: Annotated[Path | None, typer.Option(
        help="A JSON file with boxes of the same parts in some photos (correspondence).")] = None,
    transfer: Annotated[Path | None, typer.Option(
        help="Class folders of other things, to which the features are transferred. Default: the same photos.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer photos, positions and steps, for a first look.")] = False,
    seed: Annotated[int, typer.Option(help="Of which photos are taken, and of what is drawn.")] = 0,
    workers: Workers = None,
    device: Device = "cpu",
) -> None:
    """Do the experiments of Zeiler & Fergus (2014) on a model: occlusion, invariance, filters, transfer and the rest."""
    from .data import ImageFolder, any_photos, embedded
    from .models import load_model
    from .study import read_boxes, run_study

    _at_least(train=(train, 0), seed=(seed, 0), workers=(workers, 1))
    trained = load_model(model, device)
    photos: Any = embedded("test") if folder is None else any_photos(folder)
    made = run_study(
        trained, photos, output, epochs=train, quick=quick, boxes=None if boxes is None else read_boxes(boxes), seed=seed,
        others=None if transfer is None else ImageFolder(transfer), workers=workers,
        command=shlex.join(["tinynet", *sys.argv[1:]]),
    )
    print("\n" + "\n\n".join(made.findings))
    print(f"\n{made.output / 'figures.json'}\n{made.output / 'findings.txt'}")


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


def _at_least(**options: tuple[int | None, int]) -> None:
    """Options that must be at least a number."""
    for name, (value, low) in options.items():
        if value is not None and value < low:
            raise ArgumentError(f"--{name.replace('_', '-')}: expected at least {low}, got {value}")


def main() -> None:
    """The command `tinynet`."""
    app()


if __name__ == "__main__":
    main()
