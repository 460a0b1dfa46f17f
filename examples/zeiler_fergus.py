"""The study of Zeiler & Fergus (2014) on a cat classifier that is trained from scratch on the way.

    python examples/zeiler_fergus.py                    the embedded photos; about half an hour on two cores
    python examples/zeiler_fergus.py --quick            a first look, in a few minutes; the network has hardly learned by then
    python examples/zeiler_fergus.py --model runs/cat/model.safetensors     a network that is trained already

Ctrl-C keeps what is done, and --resume goes on from it; --overwrite begins anew.

While it trains, the strongest activations of some maps are followed (figure 4). Then come filters (figure 6), occlusion
(figure 7), invariance (figure 5), correspondence (table 1), ablation (table 3) and transfer (table 4), to what the not-cats
are. Pictures, figures.json and what was found, in words, go to runs/study (or --output). The
command `tinynet study` does all but the training of the network itself.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from tinynet import data, interpret
from tinynet.errors import TinynetError
from tinynet.interpret.evolution import EPOCHS
from tinynet.models import load_model
from tinynet.study.study import STATE, run_study
from tinynet.study.workbench import check_unused
from tinynet.train.classifier import recipe_for, train_classifier
from tinynet.train.keeping import kept_epochs
from tinynet.train.photos import embedded_parts

FOLLOWED = {"relu1": range(3), "relu3": range(3), "relu5": range(3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="a model file to study (default: train one on the embedded photos)")
    parser.add_argument("--epochs", type=int, help="of the training (default: the recipe's, or 2 with --quick)")
    parser.add_argument("--variants", type=int, help="epochs of each variant of the ablation (default: 8, or 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="fewer epochs, photos, positions and steps")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: 0)")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    parser.add_argument("--overwrite", action="store_true", help="begin anew also where an unfinished run is, or another one")
    parser.add_argument("--output", type=Path, default=Path("runs/study"), help="folder for the results (default: runs/study)")
    options = parser.parse_args()
    command = " ".join(word for word in ["python", *sys.argv] if word not in ("--resume", "--overwrite"))

    if not options.resume and not options.overwrite:            # before minutes of training
        check_unused(options.output / STATE, "--{}")

    # The network, and how its features arise.
    if options.model is not None:
        trained = load_model(options.model)
    else:
        trained = train(options, command)

    # Everything else, on photos that the network was not trained on.
    study = run_study(
        trained, data.embedded("test"), options.output, quick=options.quick, seed=options.seed, command=command,
        epochs=options.variants or (1 if options.quick else 8), others=data.embedded("test", kinds=True), resume=options.resume,
        overwrite=options.overwrite,
    )
    print("\nWhat was found\n")
    for sentence in study.findings:
        print(f"* {sentence}")
    print(f"\nPictures, figures.json and findings.txt are in {options.output}")


def train(options: argparse.Namespace, command: str):
    recipe = recipe_for(32)
    network = options.output / "network"
    before = kept_epochs(network) if options.resume else None   # of the run that goes on, unless told otherwise
    epochs = options.epochs or before or (2 if options.quick else recipe.epochs)
    photos = data.embedded("test")
    watched = data.Subset(photos, np.arange(0, len(photos), 5))
    evolution = interpret.Evolution(
        data.Loader(watched, 64, recipe.preprocessing.transform()), FOLLOWED,
        sorted({0, epochs, *(epoch for epoch in EPOCHS if epoch < epochs)}),
    )
    classifier = train_classifier(
        embedded_parts(options.seed), recipe, network, seed=options.seed, epochs=epochs, positive="cat",
        command=command, callbacks=[evolution], resume=options.resume, overwrite=options.overwrite,
    )
    path = interpret.plot_evolution(evolution, options.output / "evolution-of-the-network.png", command=command)
    print(f"evolution: {path}")
    return classifier.trained


if __name__ == "__main__":
    try:
        main()
    except TinynetError as error:
        sys.exit(f"zeiler_fergus: {error}")
    except KeyboardInterrupt as interrupt:
        print(f"\n{interrupt}", file=sys.stderr)
        sys.exit(130)
