"""Errors a user can cause. Every message reads `<name> must be <rule>, not <value>` or says what is missing."""

from __future__ import annotations


class AccelError(Exception):
    """Base of every error that is the caller's to mend; the command line prints it as one line."""


class ConfigError(AccelError, ValueError):
    """A field of an accelerator configuration breaks its rule."""


class RangeError(AccelError, ValueError):
    """An argument or a value lies outside its stated range, shape or type."""


class NetworkError(AccelError, ValueError):
    """A network file is malformed or holds something that is not supported."""


class ToolError(AccelError, RuntimeError):
    """An outside tool (simulator, compiler) is missing or failed."""


class MismatchError(AccelError, AssertionError):
    """Hardware and model disagree in a bit or in a cycle."""
