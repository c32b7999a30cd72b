"""One matrix layer of a program as a program of its own, fed with the codes that it reads."""

from __future__ import annotations

from dataclasses import replace

from crossloom.weave import Input, Program, WovenLayer


def single_layer(program: Program, layer: WovenLayer) -> Program:
    """The program (input codes of `layer`) → (its output), on the formats and shapes that the layer has in `program`.

    Real inputs of the result are code · scale of the layer's input format.

    Args:
        program: which the layer, or one that it was changed from, belongs to by name.
        layer: a linear layer or a convolution; perhaps with other rows than in the program.
    """
    node = next(n for n in program.woven() if n.layer.name == layer.name)
    source = program.by_name[node.inputs[0]]
    given = Input(name="input", inputs=(), format=source.format, shape=source.shape)
    return Program(
        name=f"{program.name}.{layer.name}", nodes=(given, replace(node, inputs=("input",), layer=layer)),
        classes=program.classes,
    )  # fmt: skip
