"""Every error that MedSAM2Lib raises on purpose.

    MedSAM2Error                  base; a front end catches this one
    ├── UsageError                the request cannot be carried out as it was put (exit status 2)
    │   ├── PromptError           a prompt that does not fit its volume
    │   └── OptionError           an unknown or contradictory option, preset, model or axis
    ├── VolumeError               an image that cannot be read, or cannot be segmented (exit status 1)
    ├── CheckpointError           weights that are missing, damaged, foreign or of another network
    ├── DownloadError             weights that did not arrive; what arrived of them is kept where it may be continued
    │   └── DownloadCancelledError   because somebody stopped it
    ├── OutputError               a result that cannot be written
    ├── StateError                a saved session that is damaged, or of another volume or model
    ├── TrainingError             a training set or run that cannot go on
    └── EngineError               the engine's process does not start, died, hangs, or has no memory left
        └── ProtocolError         what came through the pipe is not a message, or not one that is understood

Each message is one sentence or two: what was expected, what came, what to do about it.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "DownloadCancelledError",
    "DownloadError",
    "EngineError",
    "MedSAM2Error",
    "OptionError",
    "OutputError",
    "PromptError",
    "ProtocolError",
    "StateError",
    "TrainingError",
    "UsageError",
    "VolumeError",
    "is_out_of_memory",
]

# What torch says where a memory is full: its CPU allocator, CUDA and MPS, cuBLAS and cuDNN. All are RuntimeErrors.
_FULL = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


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


class DownloadError(MedSAM2Error):
    pass


class DownloadCancelledError(DownloadError):
    pass


class OutputError(MedSAM2Error):
    pass


class StateError(MedSAM2Error):
    pass


class TrainingError(MedSAM2Error):
    pass


class EngineError(MedSAM2Error):
    pass


class ProtocolError(EngineError):
    pass


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or torch means that a memory is full, the machine's or a GPU's. Told by text, without torch."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(text in str(error) for text in _FULL))
