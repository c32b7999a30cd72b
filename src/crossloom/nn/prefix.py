"""What a network gives when one layer after another is changed: what lies before the layer is computed once.

A search that tries many settings of every layer, all others left alone, would run the whole network for each. The
values before the changed layer do not depend on the setting, so they are kept, and only the rest runs: half of the
work where layers cost alike. The results are those of whole passes, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

Values = dict[fx.Node, object]


class Prefix:
    """A network on some batches, computed up to a layer.

    The caller may change the layer that it moved to, and layers behind it, and put them back before it moves on.

    Args:
        network: captured (a `torch.fx.GraphModule` with one input); any other module is run whole every time.
        batches: inputs.
    """

    def __init__(self, network: nn.Module, batches: Sequence[Float[Tensor, "B ..."]]) -> None:
        self.network, self.batches = network, batches
        self._reset()

    def _reset(self) -> None:
        self._done, self._kept = 0, [Values() for _ in self.batches]

    @torch.no_grad()
    def move_to(self, layer: str) -> None:
        """Compute all that lies before the first use of a layer's weight; layers in the graph's order cost least.

        Args:
            layer: its name.
        """
        if not isinstance(self.network, fx.GraphModule):
            return
        weight = self.network.get_submodule(layer).weight
        sharing = {name for name, m in self.network.named_modules() if getattr(m, "weight", None) is weight}
        nodes = list(self.network.graph.nodes)
        at = next((i for i, node in enumerate(nodes) if node.op == "call_module" and node.target in sharing), 0)
        if at < self._done:
            self._reset()
        for values, x in zip(self._kept, self.batches, strict=True):
            self._run(values, x, at)
        self._done = at

    @torch.no_grad()
    def outputs(self) -> Iterator[Tensor]:
        """The network's output for every batch, from the layer on."""
        for values, x in zip(self._kept, self.batches, strict=True):
            yield cast(Tensor, self._run(dict(values), x, None))

    def _run(self, values: Values, x: Tensor, stop: int | None) -> object:
        """Compute the nodes from where `values` ends to `stop` into it; a value goes with its last use."""
        if not isinstance(self.network, fx.GraphModule):
            return self.network(x)
        interpreter = fx.Interpreter(self.network)
        interpreter.env, interpreter.args_iter = values, iter([x])
        result: object = None
        for node in list(self.network.graph.nodes)[self._done : stop]:
            result = values[node] = interpreter.run_node(node)
            for dead in interpreter.user_to_last_uses.get(node, ()):
                values.pop(dead, None)
        return result
