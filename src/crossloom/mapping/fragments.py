"""Rows in runs of one sign, for arrays that store magnitudes and keep one sign for the rows of a read.

With `polarised` encoding (FORMS, Yuan et al., ISCA 2021) the weights of an output in rows that are driven together, a
fragment, must share a sign. `packed` sees to it for any core: rows keep their order, and a row that would mix signs in
some output opens the next fragment; what is left of the one before stays idle, fed by no input. Any part of a fragment
of one sign has one sign, so that taking rows as long as they fit makes the fewest fragments that this order allows:
where training has made fragments (`crossloom.methods.Polarised`) never more than those, whatever rows have left since.
A core that was not trained for it takes many.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int8, Integer

from crossloom.weave import InputTransform, Program, WovenLayer


def packed(layer: WovenLayer, fragment: int | None) -> WovenLayer:
    """The same function with rows of one sign an output in every run of `fragment` rows; itself where they are.

    Args:
        layer: any woven layer; weights of one bit have a code of their own and stay.
        fragment: rows of a run (`Array.fragment`); None: no runs are asked for.
    """
    if fragment is None or layer.weight_bits == 1:
        return layer
    groups, rows, columns = layer.core.shape
    places = [places_of(np.sign(core).astype(np.int8), fragment) for core in layer.core]
    height = max(int(place[-1]) + 1 for place in places) if rows else 0
    if groups > 1:  # groups share arrays: each starts a fragment
        height = -(-height // fragment) * fragment
    if height == rows:
        return layer
    core = np.zeros((groups, height, columns), np.int32)
    for made, place, given in zip(core, places, layer.core, strict=True):
        made[place] = given
    targets = np.concatenate([place + g * height for g, place in enumerate(places)])
    return layer.with_rows(InputTransform.sum(targets, groups * height), core)


def places_of(signs: Int8[np.ndarray, "rows outputs"], fragment: int) -> Integer[np.ndarray, " rows"]:
    """Where every row goes, in order.

    Args:
        signs: −1, 0 or 1 of every weight.
        fragment: rows of a run.
    """
    places = np.zeros(len(signs), np.int64)
    held, at = np.zeros(signs.shape[1], np.int8), 0
    for row, sign in enumerate(signs):
        if at % fragment == 0:
            held = np.zeros_like(held)
        elif np.any(held * sign < 0):
            at, held = at + -at % fragment, np.zeros_like(held)
        held = np.where(held, held, sign)
        places[row] = at
        at += 1
    return places


def packed_program(program: Program, fragment: int | None) -> Program:
    """A program with every layer `packed`."""
    made = {layer.name: packed(layer, fragment) for layer in program.layers}
    changed = {layer.name: made[layer.name] for layer in program.layers if made[layer.name] is not layer}
    return program.replace_layers(changed) if changed else program
