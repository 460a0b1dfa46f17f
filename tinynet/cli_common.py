"""What all commands share: the application, the arguments that mean the same everywhere, and how a mistake is told."""

from __future__ import annotations

import difflib
import functools
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__, backend
from .errors import ArgumentError, TinynetError

app = typer.Typer(
    help="Convolutional networks from scratch in NumPy: train them, and see what they have learned.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)



def _version(asked: bool) -> None:
    if asked:
        print(f"tinynet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option(
        "--version", help="Print the version and exit.", callback=_version, is_eager=True)] = False,
) -> None:
    """Takes what stands before the command."""


Model = Annotated[Path, typer.Argument(
    help="A model: a file that `tinynet train` wrote, runs/cat/model.safetensors; PyTorch's weights of a known network; ONNX; "
    "or squeezenet1_1, which is in the box.")]
Photos = Annotated[list[Path], typer.Argument(
    metavar="[MODEL] PHOTO...", help="Photos: JPEG, PNG, WebP; of any size. Before them a model, a file of weights "
    "(.safetensors, .pth, .npz, .onnx), unless it is to be the ImageNet network in the box.")]
Data = Annotated[Path | None, typer.Option(
    help="A folder of class folders (or of train/ and test/ with these, to train and to test on). Default: the embedded photos.")]
Device = Annotated[str, typer.Option(help='Where to compute: "cpu", "cuda" (the first GPU), or "cuda:1" and so on.')]
Workers = Annotated[int | None, typer.Option(help="Threads that share a batch. Default: one a core.")]


def plainly(command: Callable[..., None]) -> Callable[..., None]:
    """A user's mistake is one line on stderr and exit code 2; Ctrl-C is one line and 130."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with backend.on(kwargs.get("device", "cpu")):
                command(*args, **kwargs)
        except TinynetError as error:
            print(f"tinynet: {error}", file=sys.stderr)
            raise typer.Exit(2) from None
        except MemoryError as error:
            print(f"tinynet: out of memory{f': {error}' if str(error) else ''}", file=sys.stderr)
            raise typer.Exit(2) from None
        except KeyboardInterrupt as interrupt:
            print(f"\ntinynet: {str(interrupt) or 'interrupted'}", file=sys.stderr)
            raise typer.Exit(130) from None
        except BrokenPipeError:                                 # the reader, head say, has had enough
            sys.stderr.close()
            raise typer.Exit(1) from None

    return run


def model_and(words: list[Path], needed: str = "", device: str = "cpu") -> tuple[Any, list[Path]]:
    """The model that the first word names, or the one in the box, and the other words. needed: what must be among these."""
    from .models import boxed, load_model, names, names_model

    given = bool(words) and names_model(words[0])
    if words and not given and not os.path.exists(words[0]):
        meant = difflib.get_close_matches(str(words[0]), names(), 1, cutoff=0.7)
        if meant:
            raise ArgumentError(f"{words[0]}: no such photo, folder or network; did you mean {meant[0]}?")
    alone = not needed and given and len(words) == 2            # a folder of photos, which may hold a model, too
    for word in words[1:]:
        if names_model(word) and not (alone and os.path.isdir(word)):
            raise ArgumentError(f"{word}: a model, where a photo or folder is expected; a model goes before the photos")
    trained = load_model(words[0], device) if given else boxed(device=device)
    if len(words) == given and needed:
        raise ArgumentError(f"expected {needed} after the model {words[0]}")
    return trained, words[given:]


def command_line() -> str:
    """The command as it was given, but for what it says of an earlier run: what made a result, to be kept beside it."""
    return shlex.join(["tinynet", *(word for word in sys.argv[1:] if word not in ("--resume", "--overwrite"))])


def at_least(**options: tuple[int | None, int]) -> None:
    """Options that must be at least a number."""
    for name, (value, low) in options.items():
        if value is not None and value < low:
            raise ArgumentError(f"--{name.replace('_', '-')}: expected at least {low}, got {value}")
