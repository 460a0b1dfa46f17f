"""Train a cat / not-cat classifier from scratch on photos, and look at what it does.

    python examples/cat_classifier.py                          the embedded photos, 32×32, a few minutes on two cores
    python examples/cat_classifier.py --data DIR --size 224    your own: DIR/cat/*.jpg, DIR/notcat/*.jpg (600 of each are drawn)

Writes the model, learning curves, the confusion matrix, a sheet of predictions and an atlas of what its units see to runs/cat (or
--output). The commands `tinynet train` and `tinynet atlas` do the same and more; this file shows the parts.
"""

import argparse
import sys

from tinynet.errors import TinynetError
from tinynet.interpret.report import make_atlas
from tinynet.train.classifier import recipe_for, train_classifier
from tinynet.train.photos import check_size, embedded_parts, folder_parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="a folder of class folders, or of train/ and test/ with these (default: embedded photos)")
    parser.add_argument("--test", help="a folder of class folders to test on")
    parser.add_argument("--size", type=int, help="side of the input in pixels (default: 32, or 224 with --data)")
    parser.add_argument("--epochs", type=int, help="times through the photos (default: the recipe's)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: 0)")
    parser.add_argument("--output", default="runs/cat", help="folder for what is written (default: runs/cat)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the output folder")
    parser.add_argument("--overwrite", action="store_true", help="begin anew also where an unfinished or another training is")
    options = parser.parse_args()

    # What to train on, and how.
    size = options.size or (224 if options.data else 32)
    check_size(size, from_folder=options.data is not None)
    recipe = recipe_for(size)
    if options.data is None:
        parts = embedded_parts(options.seed)
    else:
        per_class = 600 if options.size == 224 else None       # the protocol of the original system
        parts = folder_parts(
            options.data, options.test, per_class=per_class, cache=recipe.cache, seed=options.seed, progress=True
        )
    print(parts.description)

    # Train, evaluate, write the files. tinynet/train/trainer.py has the loop, tinynet/models/catnet.py the network.
    command = " ".join(["python", sys.argv[0], *(word for word in sys.argv[1:] if word not in ("--resume", "--overwrite"))])
    result = train_classifier(
        parts, recipe, options.output, seed=options.seed, epochs=options.epochs, command=command,
        resume=options.resume, overwrite=options.overwrite, positive="cat" if "cat" in parts.train.classes else None,
    )

    # What its units have learned to see: the photos that excite them most, each with its way back to pixels.
    atlas = make_atlas(result.trained, parts.test or parts.validation, f"{options.output}/atlas", units=8, command=command)
    print(f"{'what units see':<16}  {atlas.report}")
    print(f"\nTry it on a photo of your own:  tinynet predict {options.output}/model.safetensors photo.jpg")


if __name__ == "__main__":
    try:
        main()
    except TinynetError as error:
        sys.exit(f"cat_classifier: {error}")
    except KeyboardInterrupt as interrupt:
        print(f"\n{interrupt}", file=sys.stderr)
        sys.exit(130)
