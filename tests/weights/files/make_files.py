"""Makes the small files beside it with PyTorch, which the tests do not need."""

from collections import OrderedDict
from pathlib import Path

__all__: list[str] = []


def main() -> None:
    """Save one state in both formats of `torch.save`."""
    import torch

    here = Path(__file__).parent
    grid = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    state = OrderedDict()
    state["module.grid"] = grid
    state["module.transposed"] = grid.T  # shares the storage
    state["module.corner"] = grid[1:, 2:]
    state["module.scalar"] = torch.tensor(7)
    state["module.half"] = torch.tensor([0.5, -2.0], dtype=torch.float16)
    state["module.bfloat"] = torch.tensor([0.5, -2.0], dtype=torch.bfloat16)
    state["module.double"] = torch.tensor([0.1], dtype=torch.float64)
    state["module.flags"] = torch.tensor([True, False])
    state["module.learned"] = torch.nn.Parameter(torch.ones(2, 1))
    saved = {"epoch": 3, "best": 0.5, "size": grid.shape, "dtype": grid.dtype, "state_dict": state}
    torch.save(saved, here / "zip.pth")
    torch.save(saved, here / "legacy.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
