"""A small host for the real panel: `qt`, `ctk` and `slicer` over PySide6 and slicer-core. See ../README.md."""
