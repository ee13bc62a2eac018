"""Dropout at stated places of any model, without touching the model's code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn

from weightaug.method import Criterion, Method, backpropagate
from weightaug.random import RandomSource
from weightaug.wrappers import PREFIX

OUTPUT, INPUT = "output", "input"


def dropout_places(model: nn.Module, places: str = "auto") -> dict[str, str]:
    """Where dropout goes: module name -> "input" or "output" of that module.

    Args:
        places: a regular expression that must match a whole module name (then its output), or "auto":

            - Transformers: after every dense layer except the query/key/value projections (in the MLP after
              the activation) and after adding the position embedding, as the vision transformer paper states
              (Dosovitskiy et al. 2021, appendix B.1). The latter is known by its module: ``pos_drop``, or
              ``dropout`` beside a tensor ``pos_embedding``.
            - Residual CNNs: between the convolutions of each block, on the input of every convolution but the
              first, as in Wide ResNets (Zagoruyko and Komodakis 2016, section 3). A block is a module other
              than the model itself with children ``conv1``, ``conv2``, ...
            - Everything else: before every fully connected layer, as in VGG (Simonyan and Zisserman 2015,
              section 3.1).

    The linear layers inside ``nn.MultiheadAttention`` are never called as modules; their place is the
    attention's output.

    Raises:
        ValueError: nothing matches, or the expression is malformed.
    """
    modules = dict(model.named_modules())
    if places == "auto":
        for find in (_transformer_places, _block_places, _linear_places):
            if found := dict(find(modules)):
                return found
        raise ValueError(
            "the model has no usual place for dropout; name modules by a regular expression in places="
        )
    try:
        pattern = re.compile(places)
    except re.error as error:
        raise ValueError(f"places={places!r} is not a regular expression ({error})") from error
    chosen = [name for name in modules if name and pattern.fullmatch(PREFIX.sub("", name))]
    if not chosen:
        some = ", ".join([PREFIX.sub("", name) for name in modules if name][:4])
        raise ValueError(f"places={places!r} matches no module; names look like {some}")
    return {_called(name, modules): OUTPUT for name in chosen}


def _called(name: str, modules: dict[str, nn.Module]) -> str:
    parent = name.rpartition(".")[0]
    return parent if isinstance(modules[parent], nn.MultiheadAttention) else name


def _transformer_places(modules: dict[str, nn.Module]) -> Iterator[tuple[str, str]]:
    attentions = [name for name, module in modules.items() if "attention" in type(module).__name__.lower()]
    for name in attentions:
        if isinstance(modules[name], nn.MultiheadAttention):
            yield name, OUTPUT
        else:
            yield from (
                (f"{name}.{child}", OUTPUT) for child in ("proj", "out_proj") if f"{name}.{child}" in modules
            )
    for name, module in modules.items() if attentions else ():
        if "mlp" in (type(module).__name__ + name.rpartition(".")[2]).lower():
            yield from _mlp_places(name, list(module.named_children()))
        elif isinstance(module, nn.TransformerEncoderLayer):
            yield from ((f"{name}.{child}".lstrip("."), OUTPUT) for child in ("linear1", "linear2"))
        if "pos_drop" in module._modules:
            yield f"{name}.pos_drop".lstrip("."), OUTPUT
        elif hasattr(module, "pos_embedding") and "dropout" in module._modules:
            yield f"{name}.dropout".lstrip("."), OUTPUT


def _mlp_places(name: str, children: list[tuple[str, nn.Module]]) -> Iterator[tuple[str, str]]:
    """After each linear layer, or after the activation that follows it."""
    for (child, module), (following, activation) in zip(
        children, [*children[1:], ("", nn.Identity())], strict=True
    ):
        if isinstance(module, nn.Linear):
            is_activation = type(activation).__module__ == nn.ReLU.__module__
            yield f"{name}.{following if is_activation else child}", OUTPUT


def _block_places(modules: dict[str, nn.Module]) -> Iterator[tuple[str, str]]:
    for name, module in modules.items():
        convolutions = [child for child in module._modules if re.fullmatch(r"conv\d+", child)]
        if name and "conv2" in convolutions:
            yield from ((f"{name}.{child}", INPUT) for child in convolutions[1:])


def _linear_places(modules: dict[str, nn.Module]) -> Iterator[tuple[str, str]]:
    yield from ((name, INPUT) for name, module in modules.items() if name and isinstance(module, nn.Linear))


class Dropout(Method):
    """The gradient with random activations set to zero with probability p, the others divided by 1 - p.

    Active in :meth:`backward` only; the model's own dropout layers work as they do. The masks are a function
    of (seed, step, place), drawn for the whole mini-batch whatever part of it is given. One forward and one
    backward pass. With ``p=0`` this is SGD bit for bit.

    The DAMP paper uses it as a baseline (section 5) with p = 0.05 (ResNet-50) and 0.1 (ViT) and states
    neither the places nor the p of its CIFAR and TinyImageNet runs; the authors' code has no dropout. Hence
    the default places, see :func:`dropout_places`, follow the papers of the architectures.

    Args:
        p: probability of setting an activation to zero, 0 <= p < 1.
        places: "auto" or a regular expression on module names, see :func:`dropout_places`.

    Raises:
        ValueError: p outside its range, or no place found.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        p: float = 0.1,
        places: str = "auto",
        seed: int = 0,
        random: RandomSource | None = None,
    ) -> None:
        super().__init__(model, seed=seed, random=random)
        if not 0 <= p < 1:
            raise ValueError(f"p is {p}; it is a probability from 0 to below 1")
        self.p = p
        self.places = dropout_places(model, places)
        self._active = False
        self._calls: Counter[int] = Counter()
        modules = dict(model.named_modules())
        self.handles = [
            modules[name].register_forward_hook(partial(self._output_hook, number))
            if side == OUTPUT
            else modules[name].register_forward_pre_hook(partial(self._input_hook, number))
            for number, (name, side) in enumerate(self.places.items())
        ]

    def remove(self) -> None:
        """Take the hooks out of the model again; afterwards this method is plain SGD."""
        for handle in self.handles:
            handle.remove()

    def _backward(self, criterion: Criterion, x: Tensor, y: Tensor) -> Tensor:
        self._active = True
        self._calls.clear()
        try:
            loss = criterion(self.model(x), y)
        finally:
            self._active = False
        backpropagate(loss, self.model)
        return loss.detach()

    def _output_hook(self, place: int, module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # nn.MultiheadAttention returns (output, weights)
            return (self._drop(place, output[0]), *output[1:])
        return self._drop(place, output)

    def _input_hook(self, place: int, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._drop(place, args[0]), *args[1:])

    def _drop(self, place: int, x: Tensor) -> Tensor:
        if not self._active or self.p == 0:
            return x
        generator = self.random.generator(x.device, self.step, "mask", place, self._calls[place], 0)
        self._calls[place] += 1  # a module that is called twice gets two masks
        kept = self.part.draw(x, lambda whole: whole.bernoulli_(1 - self.p, generator=generator))
        return x * kept.div_(1 - self.p)
