"""The scripts need torch, which no test does: keep pytest's doctest collector away from them."""

__all__ = ["collect_ignore_glob"]

collect_ignore_glob = ["make_*.py", "torch_*.py"]
