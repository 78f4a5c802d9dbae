"""All errors that a user can cause, as one small tree.

Each error composes its message from typed arguments: what happened, to which file or value, and what to do next. Each
leaf is also a subclass of a builtin, so ``except ValueError`` works without knowing this module. The command line
prints the message and ends with ``exit_code``; a traceback means a bug in this program.

    NanoError
    ├── UsageError            2   ValueError          the request cannot be met as asked
    │   ├── PromptError · NoPromptError · LongPromptError
    │   ├── UnknownSchedulerError · UnknownOptionError (TypeError) · HabitError (AttributeError)
    │   ├── StepsError · SeedError · GuidanceError · IntervalError · SizeError · LatentsError · OptionError
    │   ├── ListLengthError
    │   ├── ImageError · MaskSizeError · StrengthError · VariationError
    │   ├── MissingArgumentError · ConflictError · KeyFileError
    │   ├── CommandLineError · UnknownFlagError
    │   ├── NoPictureError · OtherTaskError · ImageGuidanceError
    │   ├── BackendNotInBundleError · NoShortcutError · PrecisionError
    │   ├── OutputNameError · OutputExistsError · TerminalError · NoPreviewError · NoCardError
    │   ├── NoParametersError · OtherBundleError · NoOriginalError · PictureFileError
    │   └── RowsError · RowsFileError
    ├── BundleError           3   ValueError          the bundle is not one, is damaged, or computes nonsense
    │   ├── NotABundleError · ManifestError · TamperedFileError · ExtraFileError
    │   ├── DigestError · SignatureError · UnsafeGraphError · LoaderDiedError
    │   ├── UnsupportedScheduleError
    │   │   └── NoNumbersError
    │   └── EngineError · EngineDiedError · OutputShapeError · NonFiniteError
    ├── MachineError          4                       the machine lacks something
    │   ├── BackendMissingError · SigningMissingError · ParquetMissingError   ImportError
    │   ├── NotEnoughMemoryError · OutOfMemoryError   MemoryError
    │   ├── DiskSpaceError · OutputError   OSError
    │   └── WorkerDiedError · KilledError · NoProcessError   ChildProcessError
    └── NetworkError          5   ConnectionError     the network or the far end failed
"""

from __future__ import annotations

from nano_runtime.errors.branches import (
    BundleError,
    MachineError,
    NanoError,
    NetworkError,
    UsageError,
)
from nano_runtime.errors.environment import (
    BackendMissingError,
    DiskSpaceError,
    KilledError,
    NoProcessError,
    NotEnoughMemoryError,
    OutOfMemoryError,
    OutputError,
    SigningMissingError,
    WorkerDiedError,
)
from nano_runtime.errors.habits import HabitError
from nano_runtime.errors.invalid_bundle import (
    DigestError,
    EngineDiedError,
    EngineError,
    ExtraFileError,
    LoaderDiedError,
    ManifestError,
    NonFiniteError,
    NoNumbersError,
    NotABundleError,
    OutputShapeError,
    SignatureError,
    TamperedFileError,
    UnsafeGraphError,
    UnsupportedScheduleError,
)
from nano_runtime.errors.pictures import (
    ImageError,
    MaskSizeError,
    NoOriginalError,
    NoParametersError,
    OtherBundleError,
    PictureFileError,
)
from nano_runtime.errors.rows import ParquetMissingError, RowsError, RowsFileError
from nano_runtime.errors.usage import (
    BackendNotInBundleError,
    CommandLineError,
    ConflictError,
    GuidanceError,
    ImageGuidanceError,
    IntervalError,
    KeyFileError,
    LatentsError,
    ListLengthError,
    LongPromptError,
    MissingArgumentError,
    NoCardError,
    NoPictureError,
    NoPreviewError,
    NoPromptError,
    NoShortcutError,
    OptionError,
    OtherTaskError,
    OutputExistsError,
    OutputNameError,
    PrecisionError,
    PromptError,
    SeedError,
    SizeError,
    StepsError,
    StrengthError,
    TerminalError,
    UnknownFlagError,
    UnknownOptionError,
    UnknownSchedulerError,
    VariationError,
)

__all__ = [
    "BackendMissingError",
    "BackendNotInBundleError",
    "BundleError",
    "CommandLineError",
    "ConflictError",
    "DigestError",
    "DiskSpaceError",
    "EngineDiedError",
    "EngineError",
    "ExtraFileError",
    "GuidanceError",
    "HabitError",
    "ImageError",
    "ImageGuidanceError",
    "IntervalError",
    "KeyFileError",
    "KilledError",
    "LatentsError",
    "ListLengthError",
    "LoaderDiedError",
    "LongPromptError",
    "MachineError",
    "ManifestError",
    "MaskSizeError",
    "MissingArgumentError",
    "NanoError",
    "NetworkError",
    "NoCardError",
    "NoNumbersError",
    "NoOriginalError",
    "NoParametersError",
    "NoPictureError",
    "NoPreviewError",
    "NoProcessError",
    "NoPromptError",
    "NoShortcutError",
    "NonFiniteError",
    "NotABundleError",
    "NotEnoughMemoryError",
    "OptionError",
    "OtherBundleError",
    "OtherTaskError",
    "OutOfMemoryError",
    "OutputError",
    "OutputExistsError",
    "OutputNameError",
    "OutputShapeError",
    "ParquetMissingError",
    "PictureFileError",
    "PrecisionError",
    "PromptError",
    "RowsError",
    "RowsFileError",
    "SeedError",
    "SignatureError",
    "SigningMissingError",
    "SizeError",
    "StepsError",
    "StrengthError",
    "TamperedFileError",
    "TerminalError",
    "UnknownFlagError",
    "UnknownOptionError",
    "UnknownSchedulerError",
    "UnsafeGraphError",
    "UnsupportedScheduleError",
    "UsageError",
    "VariationError",
    "WorkerDiedError",
]
