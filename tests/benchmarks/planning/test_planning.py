"""What cells ask for, computed before anything is trained, against what they then take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.config import load
from benchmarks.cost.counting import count
from benchmarks.data.batches import epoch_batches
from benchmarks.data.splits import VALIDATION_SHARE
from benchmarks.errors import UserError
from benchmarks.planning.demand import LiveBytes, peak_of
from benchmarks.planning.devices import device_called, known_device
from benchmarks.planning.disk import disk_of
from benchmarks.planning.kinds import Kind, Workload, published_images, work_of
from benchmarks.planning.memory import Memory, held
from benchmarks.planning.need import need_of
from benchmarks.planning.network import network_of
from benchmarks.planning.packing import ROUNDS, NoMoreError, find_packing
from benchmarks.registry import entries
from benchmarks.training.trainer import Trainer


def kind(*overrides: str) -> Kind:
    cell = load(overrides)[0]
    return Kind.of(cell, cell.dataset.build())


def test_a_kind_is_the_same_for_what_costs_the_same() -> None:
    base = kind("method=damp", "dataset=digits")
    assert (
        base.key == kind("method=damp", "dataset=digits", "seed=3", "method.sigma=0.7", "recipe.epochs=2").key
    )
    others = [
        "method.sub_batches=4",
        "recipe.batch_size=32",
        "recipe.precision=bf16",
        "model=vit_tiny",
        "method=sam",
    ]
    keys = {kind("method=damp", "dataset=digits", other).key for other in others}
    assert len(keys) == len(others)
    assert base.key not in keys


def test_declared_numbers_of_images_are_those_that_are_read() -> None:
    for overrides in (
        ["dataset=digits"],
        ["dataset=synthetic", "dataset.train_images=30", "dataset.test_images=7"],
    ):
        source = load(overrides)[0].dataset.build()
        data = source.load(Path())
        assert source.counts == (len(data.train), len(data.test))
        assert held(source) == sum(images.images.nbytes for images in (data.train, data.test))
    files = {
        "imagenet": published_images("imagenet"),
        "tinyimagenet": 110_000,
        "cifar10": 60_000,
        "cifar100": 60_000,
    }
    for name, images in files.items():
        assert sum(load([f"dataset={name}"])[0].dataset.build().counts) == images
        words = entries("dataset")[name].description
        assert all(f"{n:,}" in words for n in load([f"dataset={name}"])[0].dataset.build().counts)
    assert held(load(["dataset=imagenet"])[0].dataset.build()) == 0


def test_the_work_of_a_cell() -> None:
    def work(*overrides: str, devices: int = 1) -> Workload:
        cell = load(["dataset=synthetic", "dataset.train_images=100", "dataset.test_images=10", *overrides])[
            0
        ]
        found = work_of(cell, cell.dataset.build(), devices)
        assert found is not None
        return found

    few = ("recipe.batch_size=30", "recipe.epochs=2", "recipe.epochs_factor=2", "recipe.drop_last=false")
    assert work(*few) == Workload(steps=16, evaluated=10)
    assert work(*few, "method=was", "evaluation.official_was=true").evaluated == 2 * 10 * (1 + 4)
    attacked = work("evaluation.fgsm_epsilon=0.1", "evaluation.pgd_epsilon=0.1", "evaluation.pgd_steps=5")
    assert attacked.evaluated == 10 * (1 + 4 + 16)
    batches = ("evaluation.batch_size=3", "method=was")  # 3, 3, 3, 1 images, of two modes
    official = "evaluation.official_was=true"
    assert [work(*batches, devices=n).evaluated for n in (1, 2, 3, 4, 8)] == [20, 12, 12, 6, 6]
    assert work(*few, *batches, official, devices=2).evaluated == 2 * (
        6 + 4 * 10
    )  # by the first device alone
    corrupted = load(["dataset=digits", "dataset.split=validation"])[0]
    held_out = round(1257 * VALIDATION_SHARE)
    found = work_of(corrupted, corrupted.dataset.build())
    assert found is not None
    assert found.evaluated == held_out * (1 + 5 * 6)


@pytest.mark.parametrize("model", ["model=resnet18_cifar", "model=vit_tiny"])
def test_a_network_counted_on_the_meta_device(model: str) -> None:
    small = kind(model, "dataset=synthetic")
    network = network_of(small)
    built = small.cell.model.build(num_classes=10, in_channels=3, image_size=32)
    counted = count(built, (3, 32, 32))
    assert network.parameters == counted.parameters
    assert network.flops == pytest.approx(counted.flops, rel=0.02)
    assert network.family == ("attention" if model == "model=vit_tiny" else "convolutions")


def test_living_bytes_are_those_of_tensors_not_of_views() -> None:
    with LiveBytes() as counter:
        a = torch.zeros(1000)
        b = a.view(10, 100)
        c = a + 1
        assert (counter.live, counter.peak) == (8000, 8000)
        del a, b
        assert (counter.live, counter.peak) == (4000, 8000)
        c.add_(1)
        del c
    assert (counter.live, counter.peak) == (0, 8000)


@pytest.mark.parametrize("method", ["sgd", "damp", "sam"])
@pytest.mark.parametrize(
    "model",
    [
        ["model=resnet18_cifar", "model.width=16"],
        ["model=vit_tiny", "model.width=64", "model.depth=3", "recipe=vit_smoke"],
    ],
    ids=["resnet", "vit"],
)
def test_the_memory_of_a_step_is_as_computed(method: str, model: list[str]) -> None:
    """Of other networks, images and batches than those that the method's factors were counted with."""
    asked = kind(f"method={method}", *model, "dataset=synthetic", "recipe.batch_size=16")
    source = asked.made_up(16, 1)
    trainer = Trainer(asked.cell, source, source.load(Path()), "cpu")
    trainer.model.train()
    x, y = next(epoch_batches(trainer.data, asked.cell.recipe, 0, 0))
    trainer.step(x, y)
    trainer.optimizer.zero_grad()
    states = [v for state in trainer.optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
    before = sum(t.nbytes for t in [*trainer.model.parameters(), *trainer.model.buffers(), *states])
    computed = need_of(asked).memory
    assert computed.weights + computed.optimizer == pytest.approx(before, rel=0.01)
    taken = (
        before + x.nbytes + peak_of(lambda: trainer.method.backward(torch.nn.functional.cross_entropy, x, y))
    )
    assert 0.8 < computed.total / taken < 1.25


def test_half_precision_takes_less() -> None:
    whole, half = (
        need_of(kind("model=resnet18_cifar", "model.width=16", "dataset=synthetic", *more)).memory
        for more in ([], ["recipe.precision=bf16"])
    )
    assert half.weights == whole.weights
    assert 0.45 < half.batch / whole.batch < 0.6


def test_parts_that_fit() -> None:
    memory = Memory(weights=10, optimizer=10, gradients=10, copies=30, batch=90, images=5)
    assert memory.total == 155
    assert memory.in_parts(4) == 65
    assert memory.parts_that_fit(155, 8) == 1
    assert memory.parts_that_fit(70, 8) == 4
    assert memory.parts_that_fit(70, 2) is None
    assert memory.parts_that_fit(35, 128) is None


def test_disk_space() -> None:
    source = load(["dataset=imagenet", "dataset.stored_side=256"])[0].dataset.build()
    memory = [Memory(weights=n, optimizer=2 * n, gradients=n, copies=0, batch=0) for n in (1, 2, 3)]
    disk = disk_of([(m, source, ["imagenet_a"]) for m in memory], workers=2, keep_weights=True)
    assert (disk.weights, disk.checkpoints) == (6, 2 * 3 * (2 + 3))
    images = source.decoded_bytes()
    assert images == pytest.approx(343e9, rel=0.01)  # about 340 GB, as the data set's page says
    assert disk.decoded == images + 7500 * 3 * 224**2
    assert disk_of([], 2, True).checkpoints == 0


def test_the_packing_stops_where_more_is_not_worth_it() -> None:
    rates = {1: 10.0, 2: 17.0, 4: 20.0, 8: 20.1, 16: 30.0}
    asked: list[int] = []

    def rate(workers: int) -> float:
        asked.append(workers)
        return rates[workers]

    packing = find_packing(rates, rate)
    assert packing.best.workers == 4
    assert packing.best.gain == pytest.approx(2.0)
    assert asked == [1, 2] * ROUNDS + [2, 4] * ROUNDS + [4, 8] * ROUNDS  # alternating with the best so far
    assert "8 at once are not worth it" in packing.stopped
    assert packing.gain(3) == pytest.approx(1.7)
    assert packing.gain(64) == pytest.approx(2.01)


def test_the_packing_stops_at_what_slows_down_and_at_what_does_not_fit() -> None:
    slower = find_packing([1, 2], {1: 10.0, 2: 8.0}.__getitem__)
    assert (slower.best.workers, slower.gain(2)) == (1, pytest.approx(0.8))

    def full(workers: int) -> float:
        if workers > 2:
            raise NoMoreError("90 GB each, 40 GB are free")
        return 10.0 * workers

    packing = find_packing([1, 2, 4, 8], full)
    assert packing.best.workers == 2
    assert packing.stopped == "4 at once: 90 GB each, 40 GB are free"
    alone = find_packing([1, 2], lambda workers: 5.0 if workers == 1 else full(3))
    assert [(level.workers, level.rate) for level in alone.levels] == [(1, 5.0)]


def test_one_slow_round_does_not_decide() -> None:
    """The machine's load changes: the median over rounds of the ratio within a round counts."""
    measured = iter([10.0, 19.0, 5.0, 9.5, 10.0, 2.0])
    assert find_packing([1, 2], lambda workers: next(measured)).best.gain == pytest.approx(1.9)


def test_known_devices_are_bounds_with_a_source() -> None:
    names = list(entries("device"))
    assert {"v100_16gb", "a100_80gb", "h100", "h200"} <= set(names)
    for name in names:
        device = known_device(name)
        assert device.source
        assert device_called(device.gpu) == device
    assert device_called("NVIDIA A100-SXM4-80GB") == known_device("a100_80gb")
    assert device_called("Some GPU") is None
    assert known_device("v100_16gb").peak("tf32") is None
    with pytest.raises(UserError, match="did you mean 'h100'"):
        known_device("h10")
