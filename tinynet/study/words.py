"""What a study found, in words that are computed from its figures; each says what it rests on and claims no more."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from ..interpret.pictures import digits


def findings(figures: Mapping[str, Any]) -> list[str]:
    """A sentence or two for each experiment that was done."""
    said = []
    for name, words in _WORDS.items():
        if name in figures:
            said.append(words(figures[name]))
    return said


def _activations(f: Mapping[str, Any]) -> str:
    rows = f["rows"]
    text = f"Top activations over {f['photos']} photos, {sum(row['shown'] for row in rows)} units looked at: "
    likeness = ", ".join(f"{row['layer']} {row['likeness']:.2f}" for row in rows)
    text += f"structural similarity of the projections and those through redrawn weights (1: the same pictures): {likeness}. "
    gone = ", ".join(f"{row['layer']} {row['deletion']:.2f} ({row['random_deletion']:.2f})" for row in rows)
    text += (
        f"While the pixels that a projection marks are taken away first, the activation is on average at this share of its value "
        f"(in random order): {gone}."
    )
    if f["classes"] > 1:
        kinds = ", ".join(f"{row['layer']} {_percent(row['one_class'])}" for row in rows)
        text += (
            f" Of a unit's {f['k']} strongest photos the commonest class has {kinds}; by chance it would be "
            f"{_percent(f['one_class_by_chance'])}."
        )
    return text


def _filters(f: Mapping[str, Any]) -> str:
    dead = sum(f["dead"].values())
    units = sum(f["units"].values())
    where = ", ".join(f"{count} in {layer}" for layer, count in f["dead"].items() if count) or "none"
    text = (
        f"Filters: {f['count']} in {f['layer']}; {f['duplicates']} near-duplicate pairs. {_percent(f['high_frequency'])} of "
        f"their energy (of random ones of that size {_percent(f['random_high_frequency'])}) is above a quarter of a cycle a pixel"
    )
    if f["aliased"] >= 0.05:
        text += (
            f", and {_percent(f['aliased'])} (of random ones {_percent(f['random_aliased'])}) is at frequencies that the stride "
            "aliases, which a smaller stride would keep"
        )
    text += f". Of {units} units in all {dead} never fired on {f['photos']} photos ({where})."
    if f["high_frequency"] > f["random_high_frequency"] - 2 * f["random_error"]:
        text += " Random filters have no more high frequency: it may be noise that was not trained away."
    return text


def _occlusion(f: Mapping[str, Any]) -> str:
    each = f["photos"]
    drop = _mean(p["whole"] - p["lowest"] for p in each)
    flips = _mean(p["flipped"] for p in each)
    high, wide = each[0]["patch"]
    where = "on average over " + str(len(each)) + " photos" if len(each) > 1 else "on one photo"
    text = (
        f"Occlusion: {where}, the worst place for a grey square of {high}×{wide} pixels costs {100 * drop:.0f} points of "
        f"probability; the answer changes at {_percent(flips)} of the places."
    )
    agree = _mean(p["agreement"] for p in each)
    if agree > 0.3:
        text += " Where the strongest map loses most, the class tends to lose too"
    elif agree < -0.3:
        text += " Where the strongest map loses most, the class tends to gain"
    else:
        text += " The strongest map and the class do not lose at the same places"
    return text + f" (correlation {agree:+.2f}). Grey squares are no natural photos; part of the effect may be the square itself."


def _invariance(f: Mapping[str, Any]) -> str:
    parts, asked = [], "the true class" if f["known"] else "what the model says of the plain photo"
    for curve in f["curves"]:
        first, last, unit = curve["half_first"], curve["half_last"], curve["unit"]
        relation = "as soon as" if first == last else "later than" if last > first else "sooner than"
        low, high = f["layers"]
        parts.append(
            f"{curve['kind']}: {high} is halfway to its largest distance at {last:.3g} {unit}, {relation} {low} ({first:.3g}); "
            f"the probability of {asked} goes from {_percent(curve['plain'])} to {_percent(curve['mean'])} on average"
        )
    return f"Invariance, {_photos(f)}: " + "; ".join(parts) + "."


def _correspondence(f: Mapping[str, Any]) -> str:
    rows = f["rows"]
    text = []
    for layer in dict.fromkeys(row["layer"] for row in rows):
        random = next(row for row in rows if (row["layer"], row["part"]) == (layer, "random"))
        below = [row["part"] for row in rows if row["layer"] == layer and row is not random and _below(row, random)]
        which = f"{', '.join(below)} {'is' if len(below) == 1 else 'are'}" if below else "no part is"
        text.append(f"at {layer} {which} below random ({random['delta']:.3f}) by more than two standard errors")
    text[0] = text[0][0].upper() + text[0][1:]
    ending = "" if f["given"] else " No parts were given, so these are places in the picture, not parts of things: give boxes."
    return f"Correspondence, {_photos(f)}: " + "; ".join(text) + "." + ending


def _below(row: Mapping[str, Any], random: Mapping[str, Any]) -> bool:
    error = (row["error"] ** 2 + random["error"] ** 2) ** 0.5
    return bool(row["delta"] + 2 * error < random["delta"])


def _transfer(f: Mapping[str, Any]) -> str:
    size = max(row["per_class"] for row in f["trained"])
    rows = [row for row in f["trained"] if row["per_class"] == size]
    control = {row["layer"]: row for row in f["random"] if row["per_class"] == size}
    best = max(rows, key=lambda row: row["accuracy"])
    gain = best["accuracy"] - control[best["layer"]]["accuracy"]
    error = (best["error"] ** 2 + control[best["layer"]]["error"] ** 2) ** 0.5
    rising = all(b["accuracy"] >= a["accuracy"] - a["error"] - b["error"] for a, b in pairwise(rows))
    text = (
        f"Transfer to {f['classes']} classes, {size} photos each: {best['layer']} is best with {_percent(best['accuracy'])}, "
        f"{100 * gain:+.1f} ± {100 * error:.1f} points against the same layer with random weights "
        f"(chance {_percent(1 / f['classes'])}). "
    )
    text += "Deeper layers do at least as well as shallower ones." if rising else "Accuracy does not rise with every layer."
    if f["same_classes"]:
        text += " These are the classes the network was trained on, so this is how well its layers separate them, not transfer."
    return text


def _ablation(f: Mapping[str, Any]) -> str:
    whole, *others = f["rows"]
    n = f["validation"]
    text = []
    for row in others:
        change = row["validation_error"] - whole["validation_error"]
        error = sum(p * (1 - p) / n for p in (row["validation_error"], whole["validation_error"])) ** 0.5
        verdict = "worse" if change > 2 * error else "better" if change < -2 * error else "no different beyond chance"
        text.append(f"{row['name']} {100 * change:+.1f} ± {100 * error:.1f} points of error ({verdict})")
    return (
        f"Ablation, {f['epochs']} epoch{'s' if f['epochs'] != 1 else ''} each, "
        f"against {_percent(whole['validation_error'])} as it is on {n} validation photos: "
        + "; ".join(text) + ". One seed each; what another seed would change is not in these standard errors."
    )


def _evolution(f: Mapping[str, Any]) -> str:
    if len(f["epochs"]) < 2:
        return "Evolution: one epoch shows no development; train for more."
    parts = [f"{layer} {_percent(share)}" for layer, share in f["same_photo"].items()]
    return (
        f"Evolution over epochs {', '.join(map(str, f['epochs']))}: at the first of them the strongest photo is already the "
        f"final one for this share of the maps followed: {', '.join(parts)}. The higher it is, the sooner a layer had settled; "
        "few maps were followed."
    )


def _maximisation(f: Mapping[str, Any]) -> str:
    parts = [f"{row['layer']} {digits(row['median'])}" for row in f["layers"]]
    return f"Activation maximisation: median activation that was reached, from near 0: {', '.join(parts)}."


_WORDS = {
    "activations": _activations,
    "filters": _filters, "maximisation": _maximisation, "occlusion": _occlusion, "invariance": _invariance,
    "correspondence": _correspondence, "transfer": _transfer, "evolution": _evolution, "ablation": _ablation,
}


def _photos(f: Mapping[str, Any]) -> str:
    return "1 photo" if f["photos"] == 1 else f"{f['photos']} photos"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _mean(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values)


__all__ = ["findings"]
