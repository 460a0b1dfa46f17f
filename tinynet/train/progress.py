"""What a training shows while it runs: a bar at a terminal, and a line for each epoch anywhere."""

from __future__ import annotations

import sys
from typing import Any, Literal

Mode = Literal["bar", "lines", "none"]


class Progress:
    """A bar on stderr ("bar"), a line an epoch on stdout ("bar" and "lines"), or nothing ("none").

    mode None: "bar" if stderr is a terminal, "lines" if not. The bar counts the batches of the whole run, so that the
    time it gives as left is the time until the end of the training.
    """

    def __init__(self, mode: Mode | None, total: int, done: int, epochs: int) -> None:
        self.mode = mode or ("bar" if sys.stderr.isatty() else "lines")
        self.epochs = epochs
        self._bar: Any = None
        if self.mode == "bar":
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=done, unit="batch", dynamic_ncols=True, file=sys.stderr,
                bar_format="{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} "
                "[{elapsed}, {remaining} left] {postfix}",
            )  # fmt: skip

    def batch(self, epoch: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """One more batch is done. epoch: from 0. loss, accuracy: means of this epoch so far."""
        if self._bar is not None:
            self._bar.set_description_str(f"epoch {epoch + 1}/{self.epochs}", refresh=False)
            right = "" if accuracy != accuracy else f"accuracy {100 * accuracy:.1f} %, "
            self._bar.set_postfix_str(f"loss {loss:.4f}, {right}{images_per_second:.0f} images/s", refresh=False)
            self._bar.update()

    def line(self, text: str) -> None:
        """A line on stdout."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        elif self.mode == "lines":
            print(text, flush=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
