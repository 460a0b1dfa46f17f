"""The commands that look inside a trained network: explain, atlas, study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .cli_common import Device, Model, Photos, Workers, app, at_least, command_line, model_and, plainly
from .errors import ArgumentError


@app.command(short_help="What a model sees in a photo, and what it goes by.")
@plainly
def explain(
    photos: Photos,
    layers: Annotated[list[str] | None, typer.Option(
        help="A layer, or LAYER:CHANNEL for one unit, or several with commas; may be given again. Default: the rectified maps of "
        "up to five convolutions.")] = None,
    units: Annotated[int, typer.Option(help="Units of a layer to show: those that the photo excites most.")] = 3,
    target: Annotated[str | None, typer.Option(help="The class to ask about. Default: what the model says.")] = None,
    mask: Annotated[Path | None, typer.Option(
        help="A picture of the photo's size, not black where the object is; or a folder of these, named as the photos.")] = None,
    box: Annotated[str | None, typer.Option(
        help="Instead of a mask, where the object is in one photo: TOP,LEFT,BOTTOM,RIGHT in its pixels.")] = None,
    output: Annotated[Path, typer.Option(help="The folder for the sheets and figures.")] = Path("runs/explain"),
    device: Device = "cpu",
) -> None:
    """Show what a model's units see in photos, and which pixels a class depends on, each beside its control: the same picture
    with redrawn weights. A photo that cannot be read is named, and the exit code is 1.
    """
    from .interpret.explain_photos import explain_photos

    at_least(units=(units, 1))
    trained, paths = model_and(photos, "a photo", device)
    made = explain_photos(
        trained, paths, output, layers=[name for given in layers or [] for name in given.split(",") if name] or None,
        units=units, target=target, mask=mask, box=None if box is None else _box(box),
        command=command_line(),
    )
    for line in (*made.failed, *made.left_out, *([made.warning] if made.warning else [])):
        print(f"tinynet: {line}", file=sys.stderr)
    for path in made.files:
        print(path)
    if made.failed:
        raise typer.Exit(1)


def _box(text: str) -> tuple[int, ...]:
    numbers = text.split(",")
    if len(numbers) != 4 or not all(number.strip().isdecimal() for number in numbers):
        raise ArgumentError(f"--box: expected TOP,LEFT,BOTTOM,RIGHT in pixels, such as 20,30,120,160, got {text!r}")
    return tuple(map(int, numbers))


@app.command(short_help="What excites each unit of a model most.")
@plainly
def atlas(
    folder: Annotated[list[Path] | None, typer.Argument(
        metavar="[MODEL] [FOLDER]", help="A folder of photos, or of class folders. Default: the embedded test photos. Before it "
        "a model, a file of weights (.safetensors, .pth, .npz), unless it is to be the ImageNet network in the box.")] = None,
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

    at_least(units=(units, 0), workers=(workers, 1))
    trained, rest = model_and(folder or [], device=device)
    if len(rest) > 1:
        raise ArgumentError(f"expected one folder of photos, got {' and '.join(map(str, rest))}")
    photos: Any = any_photos(rest[0]) if rest else embedded("test")
    made = make_atlas(
        trained, photos, output, layers=[name for given in layers or [] for name in given.split(",") if name] or None,
        units=units or None, workers=workers, resume=resume,
        photos=f"{len(photos):,} {f'photos of {rest[0].resolve().name}' if rest else 'embedded photos'}",
        command=command_line(),
    )
    if made.warning:
        print(f"tinynet: {made.warning}", file=sys.stderr)
    print("\n".join(str(path) for path in (made.report, *made.sheets)))


@app.command(short_help="The experiments of Zeiler & Fergus (2014).")
@plainly
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
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
    overwrite: Annotated[bool, typer.Option(
        "--overwrite", help="Begin anew also where the output folder holds a study that was interrupted.")] = False,
    device: Device = "cpu",
) -> None:
    """Do the experiments of Zeiler & Fergus (2014) on a model: occlusion, invariance, filters, transfer and the rest."""
    from .data import ImageFolder, any_photos, embedded
    from .models import load_model
    from .study import read_boxes, run_study

    at_least(train=(train, 0), seed=(seed, 0), workers=(workers, 1))
    trained = load_model(model, device)
    photos: Any = embedded("test") if folder is None else any_photos(folder)
    made = run_study(
        trained, photos, output, epochs=train, quick=quick, boxes=None if boxes is None else read_boxes(boxes), seed=seed,
        others=None if transfer is None else ImageFolder(transfer), workers=workers, resume=resume,
        overwrite=overwrite, command=command_line(),
    )
    print("\n" + "\n\n".join(made.findings))
    print(f"\n{made.output / 'figures.json'}\n{made.output / 'findings.txt'}")
