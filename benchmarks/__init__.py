"""Programs that check against a reference, then measure, then print a table."""

__all__: list[str] = []
