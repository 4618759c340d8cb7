"""Training on the device: the CPU's losses, the CPU's random bits, and no transfers by accident."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import models, optim
from minires.backend import device_of, to_device
from minires.data import Augment, Dataset, Loader
from minires.kernels.augment import augment_batch, pixel_table
from minires.kernels.dispatch import reference
from minires.kernels.dropout import drop
from minires.kernels.random import Key, random_bits
from tests.tolerances import GPU_STEP32, GPU_STEPS64

__all__: list[str] = []

pytestmark = pytest.mark.gpu

STEPS = 10


def batches(dtype: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Augmented batches of 4 random images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4 * STEPS, 12, 12, 3), np.uint8)
    labels = rng.integers(0, 10, 4 * STEPS)
    data = Dataset(images, labels, [str(i) for i in range(10)], "noise")
    augment = Augment(crop=2, cutout=3)
    return list(Loader(data, 4, shuffle=True, augment=augment, seed=3, threads=0, dtype=dtype))


class Run:
    """ResNet-20 on a device: every step's loss, and the weights."""

    def __init__(self, device: str, dtype: str, kind: str = "sgd") -> None:
        mr.manual_seed(0)
        self.device = device
        self.model = models.build("resnet20", 10).to(dtype).to(device)
        params = self.model.parameters()
        if kind == "sgd":
            self.optimizer: Any = optim.SGD(params, 0.05, momentum=0.9, weight_decay=5e-4)
        elif kind == "muon":
            params = [{"params": [p], "orthogonal": p.ndim > 2} for p in params]
            self.optimizer = optim.Muon(params, 0.05, weight_decay=5e-4)
        else:
            self.optimizer = optim.AdamW(params, 1e-3, weight_decay=1e-2)

    def step(self, x: Any, target: Any) -> Any:
        """One step; the loss stays where it was computed."""
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), target, label_smoothing=0.1)
        loss.backward()
        self.optimizer.step()
        return loss

    def steps(self, given: list[tuple[Any, Any]]) -> list[float]:
        """The losses of one step a batch."""
        moved = [tuple(to_device(a, self.device) for a in batch) for batch in given]
        return [self.step(*batch).item() for batch in moved]


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon"])
def test_float64_steps_follow_the_cpu(cupy: Any, kind: str):
    given = batches(np.float64)
    with reference():
        expected = Run("cpu", "float64", kind).steps(given)
    found = Run("cuda", "float64", kind).steps(given)
    np.testing.assert_allclose(found, expected, rtol=GPU_STEPS64)
    assert expected[0] != expected[-1]


def test_float32_steps_from_the_same_state(cupy: Any):
    given = batches(np.float32)
    cpu, gpu = Run("cpu", "float32"), Run("cuda", "float32")
    for batch in given[:3]:
        gpu.model.load_state_dict(cpu.model.state_dict())
        gpu.optimizer.load_state_dict(cpu.optimizer.state_dict())
        np.testing.assert_allclose(gpu.steps([batch]), cpu.steps([batch]), rtol=GPU_STEP32)


def test_the_same_random_bits(cupy: Any):
    words = random_bits(cupy.empty(4099, np.uint32), seed=2**40 + 1, stream=5, step=2**33)
    with reference():
        same = random_bits(np.empty(4099, np.uint32), seed=2**40 + 1, stream=5, step=2**33)
    np.testing.assert_array_equal(words.get(), same)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_dropout(cupy: Any, rng: np.random.Generator, dtype: Any):
    x = rng.standard_normal((37, 53)).astype(dtype)
    y = drop(cupy.asarray(x), p=0.3, key=Key(11, 2, 3))
    np.testing.assert_array_equal(y.get(), drop(x, p=0.3, key=Key(11, 2, 3)))


def test_the_same_augmentation(cupy: Any, rng: np.random.Generator):
    images = rng.integers(0, 256, (20, 11, 13, 3), np.uint8)
    indices, table = rng.integers(0, 20, 9), pixel_table([0.5] * 3, [0.25] * 3)
    how: dict[str, Any] = {"pad": 3, "flip": True, "cutout": 5, "seed": 7, "stream": 2, "step": 4}
    on_device = augment_batch(*map(cupy.asarray, (images, indices, table)), **how)
    np.testing.assert_array_equal(on_device.get(), augment_batch(images, indices, table, **how))


def test_initial_weights_and_dropout_keys_do_not_depend_on_the_device(cupy: Any):
    outputs = []
    for device in ("cpu", "cuda"):
        mr.manual_seed(4)
        x = mr.tensor(np.ones((50, 40), np.float32), device=device)
        y = F.dropout(mr.nn.Linear(40, 30).to(device)(x), p=0.5)
        assert y.device == device
        outputs.append(y.numpy())
    np.testing.assert_array_equal(outputs[0] == 0, outputs[1] == 0)
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)


# No transfers by accident


def test_a_step_copies_nothing_to_the_host(cupy: Any, standin: Any):
    run = Run("cuda", "float32")
    x, target = (to_device(a, "cuda") for a in batches(np.float32)[0])
    run.step(x, target)
    with standin.forbidden("copy_to_host"):
        loss = run.step(x, target)
        with pytest.raises(RuntimeError, match="copy from the device to the host"):
            loss.item()
    assert loss.item() > 0


def test_evaluation_copies_nothing_to_the_host(cupy: Any, standin: Any):
    model = Run("cuda", "float32").model.eval()
    x = to_device(batches(np.float32)[0][0], "cuda")
    with standin.forbidden("copy_to_host"), mr.no_grad():
        logits = model(x)
    assert logits.numpy().shape == (4, 10)


def test_a_wrong_label_makes_the_loss_nan(cupy: Any):
    logits = mr.tensor(np.zeros((3, 4), np.float32), device="cuda")
    for label in (-1, 4):
        labels = cupy.asarray([0, label, 3])
        losses = F.cross_entropy(logits, labels, reduction="none").numpy()
        np.testing.assert_array_equal(np.isnan(losses), [False, True, False])


def test_moving_there_and_back(cupy: Any):
    x = mr.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True, device="cuda")
    assert (x.device, device_of(x.array), x.dtype) == ("cuda", "cuda", np.float32)
    (x * x).sum().backward()
    assert device_of(x.grad) == "cuda"
    np.testing.assert_array_equal(x.grad.get(), [[2, 4], [6, 8]])
    back = x.to("cpu")
    assert back.device == "cpu"
    np.testing.assert_array_equal(back.numpy(), x.numpy())
    assert "device='cuda'" in repr(x)
    with pytest.raises(TypeError, match="call .numpy"):
        np.asarray(x)
    model = models.build("resnet20", 10).to("cuda")
    assert {device_of(p.array) for p in model.parameters()} == {"cuda"}
    assert {device_of(b) for _, b in model.named_buffers()} == {"cuda"}
    state = model.state_dict()  # on the device, as `load_state_dict` takes it too
    model.load_state_dict(state)
    assert {device_of(p.array) for p in model.to("cpu").parameters()} == {"cpu"}
    model.load_state_dict(state)
