"""Every error that MedSAM2Lib raises on purpose.

    MedSAM2Error                  base; a front end catches this one
    ├── UsageError                the request cannot be carried out as it was put (exit status 2)
    │   ├── PromptError           a prompt that does not fit its volume
    │   └── OptionError           an unknown or contradictory option, preset, model or axis
    ├── VolumeError               an image that cannot be read, or cannot be segmented (exit status 1)
    ├── CheckpointError           weights that are missing, damaged, foreign or of another network
    ├── OutputError               a result that cannot be written
    └── TrainingError             a training set or run that cannot go on

Each message is one sentence or two: what was expected, what came, what to do about it.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "MedSAM2Error",
    "OptionError",
    "OutputError",
    "PromptError",
    "TrainingError",
    "UsageError",
    "VolumeError",
]


class MedSAM2Error(Exception):
    """Base of the tree above. `exit_status` is what a command line ends with."""

    exit_status = 1


class UsageError(MedSAM2Error):
    exit_status = 2


class PromptError(UsageError):
    pass


class OptionError(UsageError):
    pass


class VolumeError(MedSAM2Error):
    pass


class CheckpointError(MedSAM2Error):
    pass


class OutputError(MedSAM2Error):
    pass


class TrainingError(MedSAM2Error):
    pass
