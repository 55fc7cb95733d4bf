"""The version of the library. A test keeps it equal to pyproject.toml's; Slicer's copy is not an installed package."""

__all__ = ["__version__"]

__version__ = "0.1.0"
