"""The worker's pipe to the orchestrator, kept out of the engine's reach.

Engine code prints, logs and starts processes of its own. One such byte on the protocol's pipe would break it, so the
two real descriptors are moved away: file descriptor 1 then leads to stderr, and 0 to nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator


class Channel:
    """Lines in, lines out. Every line written is on its way when ``write`` returns: there is no buffer to lose."""

    def __init__(self, input_fd: int, output_fd: int) -> None:
        self._input = open(input_fd, "rb")
        self._output_fd = output_fd

    @classmethod
    def claim(cls) -> Channel:
        """Takes stdin and stdout for the protocol and gives the engine harmless ones instead.

        Text that was printed before and still sits in ``sys.stdout``'s buffer goes to stderr with the rest. The copies
        are not inherited by child processes (PEP 446), so a child can neither write here nor keep the pipe open.
        """
        input_fd, output_fd = os.dup(0), os.dup(1)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        try:
            os.dup2(2, 1)
        except OSError:  # stderr is closed: there is nowhere to print to.
            os.dup2(nothing, 1)
        os.close(nothing)
        sys.stdout = sys.stderr if sys.stderr is not None else open(os.devnull, "w", encoding="utf-8")
        return cls(input_fd, output_fd)

    def lines(self) -> Iterator[bytes]:
        """Yields the lines as they come, of any length, without their line end, until the sender closes the pipe."""
        while line := self._input.readline():
            line = line.rstrip(b"\r\n")
            if line:
                yield line

    def write(self, line: bytes) -> None:
        """Writes all of ``line``, however little the pipe takes at once."""
        left = memoryview(line)
        while left:
            left = left[os.write(self._output_fd, left) :]
