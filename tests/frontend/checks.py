"""One node of an integer program against the fake-quantised module's own codes."""

import torch
from torch import Tensor, fx

from crossloom.frontend import fake_quantised_codes
from crossloom.simulate import Executor
from crossloom.simulate.digital import apply_output, evaluate, stored
from crossloom.weave import AveragePool, Input, Node, Program, Woven


def node_alone(program: Program, node: Node, x: Tensor, codes: dict[str, Tensor]) -> Tensor:
    """What one node of the integer program makes of the module's own codes of its inputs."""
    keep: list[Node] = [program.input]
    for name in node.inputs:
        if name != program.input.name:
            source = program.by_name[name]
            keep.append(Input(name=name, inputs=(), format=source.format, shape=source.shape))
    if node is not program.input:
        keep.append(node)
    executor = Executor(Program("alone", tuple(keep)))
    if node is program.input:
        return executor.run(x).long()
    given = [codes[name] for name in node.inputs]
    if isinstance(node, Woven):
        accumulators = executor.kernels[node.name](given[0].to(stored(program.by_name[node.inputs[0]])))
        axis = -1 if node.layer.convolution is None else 1
        return apply_output(node.layer.output, accumulators, axis, stored(node)).long()
    sources = program.sources(node)
    given = [g.to(stored(s)) for g, s in zip(given, sources, strict=True)]
    return evaluate(node, given, [s.format for s in sources]).long()


def assert_equal_within_one_step(module: fx.GraphModule, program: Program, x: Tensor) -> None:
    """Every node within one step of the module, given the module's inputs; the answers close end to end."""
    expected = fake_quantised_codes(module, program, x)
    assert set(expected) >= {n.name for n in program.nodes if not n.name.endswith("_pool")}
    for node in program.nodes:
        if node.name not in expected or not all(name in expected for name in node.inputs):
            continue
        difference = (node_alone(program, node, x, expected) - expected[node.name]).abs()
        assert difference.max() <= 1, f"{node.name} ({type(node).__name__}) differs by {difference.max()} steps"
        allowed = 0.02 if node.format.bits <= 8 else 0.3
        if isinstance(node, AveragePool):
            allowed = 0.1  # means of few codes often lie half-way, where a 16-bit factor may fall to either side
        assert difference.double().mean() <= allowed, node.name
    form = program.output.format
    answer = (expected[program.output.name] - form.zero_point) * form.scale
    difference = (Executor(program).logits(x) - answer).abs()
    assert torch.median(difference) <= 0.03 * answer.abs().max()
