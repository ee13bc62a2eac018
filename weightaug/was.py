"""WAS: training with shadow weights (Weights Augmentation, arXiv 2405.19590)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

from weightaug.copies import WeightCopies
from weightaug.kernel_draws import LayerDraw, apply, kernel_size
from weightaug.kernel_transforms import KernelTransform, UserFunction, build_transform
from weightaug.method import Criterion, Method, backpropagate
from weightaug.random import RandomSource
from weightaug.wrappers import PREFIX, distributed, unwrap


def shadow_layers(model: nn.Module, layers: str = "auto") -> dict[str, nn.Conv1d | nn.Conv2d]:
    """The convolutions of ``model`` that get shadow weights, by module name.

    Candidates have a kernel larger than one tap (1x1 kernels are never transformed); a convolution that
    shares its weight with an earlier one follows that one.

    Args:
        layers: a regular expression that must match a whole module name, or "auto": the expression that the
            model states as its attribute ``shadow_layers``, or else every candidate except the first
            convolution of the model, unless that is the only candidate (a vision transformer's patch
            embedding).

    Raises:
        ValueError: nothing matches, or the expression is malformed.
    """
    candidates: dict[str, nn.Conv1d | nn.Conv2d] = {}
    convolutions = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
    weights: set[int] = set()
    for name, module in convolutions:
        weight = module._parameters.get("weight")
        if weight is not None and id(weight) not in weights and max(kernel_size(weight)) > 1:
            weights.add(id(weight))
            candidates[name] = module
    if not candidates:
        raise ValueError("WAS needs a convolution with a kernel larger than 1x1, and the model has none")
    if layers == "auto":
        layers = getattr(unwrap(model)[-1], "shadow_layers", layers)
    if layers == "auto":
        first = convolutions[0][0]
        return {name: module for name, module in candidates.items() if name != first} or candidates
    try:
        pattern = re.compile(layers)
    except re.error as error:
        raise ValueError(f"layers={layers!r} is not a regular expression ({error})") from error
    chosen = {name: m for name, m in candidates.items() if pattern.fullmatch(PREFIX.sub("", name))}
    if not chosen:
        some = ", ".join(PREFIX.sub("", name) for name in list(candidates)[:4])
        raise ValueError(f"layers={layers!r} matches no convolution larger than 1x1; names look like {some}")
    return chosen


def shadow_weights(
    weights: Mapping[str, Tensor],
    draws: Mapping[str, LayerDraw],
    coefficients: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """``K T(W)`` for every layer of ``draws``, differentiable in W and K; independent of any method.

    Args:
        weights: W [out, in/groups, (k_h,) k_w] by layer; may be any weight copy, e.g. the one that SAM moved
            uphill.
        draws: T by layer.
        coefficients: K by layer, scalars; none means 1.
    """
    shadows = {layer: apply(weights[layer], draw) for layer, draw in draws.items()}
    if coefficients is None:
        return shadows
    return {layer: coefficients[layer].to(shadow) * shadow for layer, shadow in shadows.items()}


class WAS(Method):
    """The gradient at the shadow weights: ``g = d L(f(x; w with W -> K T(W)), y) / d (w, K)``.

    In every step each chosen convolution gets a fresh random transform T of its kernels (see
    :mod:`weightaug.kernel_transforms`) and is scaled by its learnable coefficient K. The loss sees these
    shadow weights; the exact chain rule through T and K leads the gradient to the stored plain weights, so a
    tap that was shifted out gets none in that step. Biases, normalisation and all other layers are unchanged.
    One forward and one backward pass.

    Inference: ``plain`` runs the stored weights without T and K (the paper's AOM), ``shadow`` runs freshly
    drawn shadow weights, one draw per layer and call, with K (DOM). BatchNorm statistics gathered in training
    are those of shadow weights; see benchmarks/evaluation/batch_norm.py for re-estimating them.

    Source: paper's abstract and the authors' code (vgg_1d.py, vgg_2d.py, resnet_2d.py, googlenet.py,
    mobilenetv2.py, effnetv2.py): K from U[0, 1), one draw per layer and mini-batch, T1 and T2 evenly mixed
    except in VGG.

    Within SAM, ASAM, DAMP or DAAP, ``WAS(model, within=SAM(model))``, the loss is the shadow weights' loss as a
    function of the plain weights, ``w -> L(f(x; K T(w)), y)``, and that method perturbs and differentiates w:
    SAM's step uphill and norm, and DAMP's noise, are of the plain weights, before T. All of its passes and
    weight copies in a step share one draw per layer. K is learned, at the perturbed weights, but is neither
    perturbed nor in SAM's norm. The combination is ours; neither paper has it.

    Args:
        transform: name, :class:`KernelTransform` or function, see :func:`build_transform`.
        translate: "shift": furthest shift as a share of the kernel's size.
        scale_min: "crop": smallest window as a share of the kernel's area.
        scale_max: "crop": largest window as a share of the kernel's area.
        layers: "auto" or a regular expression on module names, see :func:`shadow_layers`.
        coefficient: K at the start: "random" (U[0, 1), official), "one", or "none" (no K at all). Give
            ``method.parameters()`` to the optimizer too, else K stays as it is.
        coefficient_in_aom: multiply by K in ``plain`` inference too (officially not).
        per_kernel: one draw for each output channel's kernel instead of one for all kernels of a layer.
        draws: fixed draws by layer, used in every shadow pass in place of random ones; also an attribute that
            may be set and cleared at any time. Not part of ``state_dict``.
        within: the method of the same model whose gradient is taken, one that runs weight copies. From then
            on it runs with shadow weights only, and its state is part of this method's.

    Raises:
        ValueError: no layer matches, unknown transform or coefficient, parameter outside its range, or
            ``within`` has no weight copies or another model.
    """

    modes: ClassVar[tuple[str, ...]] = ("plain", "shadow")
    drawing_modes: ClassVar[tuple[str, ...]] = ("shadow",)

    def __init__(
        self,
        model: nn.Module,
        *,
        transform: str | KernelTransform | UserFunction = "shift_or_crop",
        translate: float = 0.3,
        scale_min: float = 0.8,
        scale_max: float = 1.0,
        layers: str = "auto",
        coefficient: str = "random",
        coefficient_in_aom: bool = False,
        per_kernel: bool = False,
        draws: Mapping[str, LayerDraw] | None = None,
        within: Method | None = None,
        seed: int = 0,
        random: RandomSource | None = None,
    ) -> None:
        super().__init__(model, seed=seed, random=random)
        self.transform = build_transform(
            transform, translate=translate, scale_min=scale_min, scale_max=scale_max
        )
        self.layers = shadow_layers(model, layers)
        self.coefficient_in_aom = coefficient_in_aom
        self.per_kernel = per_kernel
        self.draws = draws
        self.coefficients = self._initial_coefficients(coefficient)
        if draws is None:
            self.draw("check")  # a transform that some kernel's size does not allow is told here
        self.within = within
        if within is not None:
            copies = getattr(within, "copies", None)
            if not isinstance(copies, WeightCopies) or within.model is not model:
                raise ValueError(
                    "WAS composes with SAM, ASAM, DAMP or DAAP of the same model: build within from it"
                )
            copies.parametrisation = self._shadow_copies

    def _initial_coefficients(self, coefficient: str) -> nn.Parameter | None:
        count = len(self.layers)
        if coefficient == "none":
            return None
        if coefficient == "random":
            values = torch.rand(count, generator=self.random.generator("cpu", "coefficient"))
        elif coefficient == "one":
            values = torch.ones(count)
        else:
            raise ValueError(f"coefficient={coefficient!r} is not one of 'random', 'one', 'none'")
        return nn.Parameter(values.to(next(iter(self.layers.values())).weight))

    def draw(self, *key: int | str) -> dict[str, LayerDraw]:
        """Fresh draws for all layers, a function of the seed and ``key`` (or the fixed ``draws``)."""
        if self.draws is not None:
            return {layer: self.draws[layer] for layer in self.layers}
        draws: dict[str, LayerDraw] = {}
        for number, (layer, module) in enumerate(self.layers.items()):
            generator = self.random.generator("cpu", *key, number)
            count = len(module.weight) if self.per_kernel else 1
            drawn = self.transform.draw(kernel_size(module.weight), generator, count)
            draws[layer] = tuple(drawn) if self.per_kernel else drawn[0]
        return draws

    def shadow(self, draws: Mapping[str, LayerDraw]) -> dict[str, Tensor]:
        """Shadow weights by parameter name, ready for ``torch.func.functional_call``."""
        weights = {layer: module.weight for layer, module in self.layers.items()}
        return {
            f"{layer}.weight": w
            for layer, w in shadow_weights(weights, draws, self.coefficients_by_layer()).items()
        }

    def coefficients_by_layer(self) -> dict[str, Tensor] | None:
        """K of each layer, scalars; None without K."""
        return (
            None
            if self.coefficients is None
            else dict(zip(self.layers, self.coefficients.unbind(), strict=True))
        )

    def _shadow_copies(self, stacks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``stacks`` [M, *shape] by parameter name with K T of every copy; the current step's draw for all."""
        draws, coefficients = self.draw(self.step, "transform"), self.coefficients_by_layer()
        count = len(next(iter(stacks.values())))
        plain = {
            layer: stacks[f"{layer}.weight"].unbind()
            if f"{layer}.weight" in stacks
            else (module.weight,) * count
            for layer, module in self.layers.items()
        }
        copies = [
            shadow_weights({layer: w[m] for layer, w in plain.items()}, draws, coefficients)
            for m in range(count)
        ]
        shadows = {f"{layer}.weight": torch.stack([copy[layer] for copy in copies]) for layer in plain}
        return {**stacks, **shadows}

    def _backward(self, criterion: Criterion, x: Tensor, y: Tensor) -> Tensor:
        parallel = distributed(self.model)
        if self.coefficients is None or parallel is None:
            return self._gradient(criterion, x, y)
        # DistributedDataParallel averages the gradients of the model's own parameters only.
        before, self.coefficients.grad = self.coefficients.grad, None
        try:
            loss = self._gradient(criterion, x, y)
            if (own := self.coefficients.grad) is not None:
                dist.all_reduce(own, group=parallel.process_group)
                own /= dist.get_world_size(parallel.process_group)
                before = own if before is None else before + own
        finally:
            self.coefficients.grad = before
        return loss

    def _gradient(self, criterion: Criterion, x: Tensor, y: Tensor) -> Tensor:
        if self.within is not None:
            self.within.part, self.within.step = self.part, self.step
            loss = self.within._backward(criterion, x, y)
            self.within.step += self.part.last
            return loss
        shadow = self.shadow(self.draw(self.step, "transform"))
        loss = criterion(functional_call(self.model, shadow, (x,)), y)
        backpropagate(loss, self.model)
        return loss.detach()

    def _predict(self, x: Tensor, mode: str) -> Tensor:
        if mode == "shadow":
            draws = self.draw("predict", self.predictions)
            self.predictions += 1
            return functional_call(self.model, self.shadow(draws), (x,))
        coefficients = self.coefficients_by_layer()
        if self.coefficient_in_aom and coefficients is not None:
            scaled = {f"{name}.weight": coefficients[name] * m.weight for name, m in self.layers.items()}
            return functional_call(self.model, scaled, (x,))
        return self.model(x)

    def parameters(self) -> list[nn.Parameter]:
        """K as one vector in the order of ``layers``; empty with ``coefficient="none"``."""
        return [] if self.coefficients is None else [self.coefficients]

    def state_dict(self) -> dict[str, Any]:
        """Seed, step, number of shadow predictions so far, K, and the state of ``within``."""
        state = {**super().state_dict(), "predictions": self.predictions}
        if self.coefficients is not None:
            state["coefficients"] = self.coefficients.detach().clone()
        if self.within is not None:
            state["within"] = self.within.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the run that saved ``state`` stopped; K is loaded in place.

        Raises:
            ValueError: the state belongs to a WAS with other layers or another kind of coefficient.
        """
        saved = state.get("coefficients")
        if getattr(saved, "shape", None) != getattr(self.coefficients, "shape", None):
            raise ValueError(
                "the state's coefficients do not fit; use the model, layers and coefficient of the saved run"
            )
        if ("within" in state) != (self.within is not None):
            raise ValueError(
                "the state is of a WAS within another method, or within none; build it as it was"
            )
        super().load_state_dict(state)
        self.predictions = int(state["predictions"])
        if self.within is not None:
            self.within.load_state_dict(state["within"])
        if self.coefficients is not None:
            with torch.no_grad():
                self.coefficients.copy_(state["coefficients"])
