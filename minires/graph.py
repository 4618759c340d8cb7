"""A training step as a CUDA graph: recorded once, then launched as a whole.

A step is some hundreds of launches, and Python takes longer for each than a GPU for small batches.
A graph is one launch. It repeats what was recorded with the same arguments: whatever changes from
step to step is read from the GPU's memory (learning rates, numbers of steps, random counters) or is
copied to where the graph reads it (the batch).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import random
from .backend import array_module, device_of, to_device
from .kernels.memory import empty
from .kernels.product import WORKSPACE, multiply_into_graph
from .tensor import Tensor

__all__ = ["Graph", "graph"]

WARM_UP = 2  # calls before the one that is recorded: memory is taken, kernels are compiled


def graph(function: Callable[..., Any], *optimizers: Any) -> Graph:
    """`function` as a CUDA graph, to be called in its place with arrays on the GPU.

    The first two calls run it as it is; the third records it, and from then on it is launched as a
    whole: its Python code does not run again. So it must not look at what it computes, and what it
    does to Python objects happens no more, but for the steps of `optimizers` and the keys of
    `minires.random`, which are counted. Change learning rates outside (`schedule.step()`). What it
    returns is overwritten by the next call. Batches of another shape run without the graph, and so
    does everything on the CPU.

    Arrays of the CPU are copied, which waits; `data.prefetch` has a way that does not.

    Of what CUDA does here nothing was run on a GPU: tests record and repeat on a stand-in, and see
    that a step neither waits, allocates nor copies, and has the same arguments each time.

    >>> import minires as mr
    >>> w = mr.tensor([1.0], requires_grad=True)
    >>> optimizer = mr.optim.SGD([w], lr=0.25)
    >>> def train(x):
    ...     optimizer.zero_grad()
    ...     loss = (w * x).sum()
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> step = mr.graph(train, optimizer)
    >>> [step(mr.tensor([2.0])).item() for _ in range(3)]
    [2.0, 1.0, 0.0]
    """
    return Graph(function, optimizers)


class Graph:
    """See `graph`."""

    def __init__(self, function: Callable[..., Any], optimizers: tuple[Any, ...]) -> None:
        self.function, self.optimizers = function, optimizers
        self._calls = 0
        self._graph: Any = None
        self._inputs: list[Any] = []
        self._output: Any = None
        self._seed: int | None = None
        self._keys: Any = None

    def __call__(self, *inputs: Any) -> Any:
        arrays = [x.array if isinstance(x, Tensor) else x for x in inputs]
        if not arrays or (device_of(arrays[0]) == "cpu" and not self._calls):
            return self.function(*inputs)
        if not self._calls:
            self._begin(arrays)
        like = [(a.shape, a.dtype) for a in arrays] == [(a.shape, a.dtype) for a in self._inputs]
        caller = self._cupy.cuda.get_current_stream()
        self._stream.wait_event(caller.record())
        with self._cupy.cuda.using_allocator(self._pool.malloc), self._stream:
            for optimizer in self.optimizers:
                optimizer.prepare()
            if like:
                for static, array in zip(self._inputs, arrays, strict=True):
                    static[...] = to_device(array, "cuda")
                output = self._advance()
            else:
                output = self.function(*map(Tensor, arrays))
        caller.wait_event(self._stream.record())
        return output

    def _begin(self, arrays: list[Any]) -> None:
        self._cupy: Any = array_module(arrays[0])
        self._stream = self._cupy.cuda.Stream(non_blocking=True)
        self._pool = self._cupy.cuda.MemoryPool()  # nobody else writes to what the graph uses
        with self._cupy.cuda.using_allocator(self._pool.malloc), self._stream:
            self._inputs = [empty(a.shape, a.dtype, like=a) for a in arrays]
            self._room = empty((WORKSPACE,), "uint8", like=arrays[0])

    def _advance(self) -> Any:
        """One step, on `_inputs`."""
        state, self._calls = random.get_state(), self._calls + 1
        if self._calls <= WARM_UP:
            output = self.function(*map(Tensor, self._inputs))
            drawn = random.get_state()["position"] - state["position"]
            self._keys = self._cupy.arange(max(drawn, 1), dtype="uint64")
            self._offsets, self._drawn = self._keys.copy(), drawn
            return output
        if self._drawn:
            first = self._keys.dtype.type(state["position"])
            self._cupy.add(self._offsets, first, out=self._keys)
        if self._graph is None or (self._drawn and self._seed != state["seed"]):
            self._record(state["seed"])
        else:
            for optimizer in self.optimizers:
                optimizer.count_step()
            random.set_state({**state, "position": state["position"] + self._drawn})
        recorded: Any = self._graph
        recorded.launch(self._stream)
        return self._output

    def _record(self, seed: int) -> None:
        self._seed = seed
        with multiply_into_graph(self._room, self._stream), random.counted_on_gpu(self._keys):
            self._stream.begin_capture()
            try:
                self._output = self.function(*map(Tensor, self._inputs))
            finally:
                self._graph = self._stream.end_capture()
