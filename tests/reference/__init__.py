"""What PyTorch computed, stored small, and the scripts (the only files that need torch)."""

__all__: list[str] = []
