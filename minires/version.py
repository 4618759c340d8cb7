"""The version: this line is its one source."""

__all__ = ["__version__"]

__version__ = "0.1.0"
