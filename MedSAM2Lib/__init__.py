"""MedSAM2: promptable segmentation of CT and MR volumes with SAM 2-derived networks.

Import what you need from the module that holds it, for example ``from MedSAM2Lib.inference.session import
Session``. Importing the package itself imports nothing heavy; docs/architecture.md draws the layers.
"""
