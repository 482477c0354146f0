"""What a detector says."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The answer of a detector.

    Attributes:
        caught: whether the mistake was found.
        sentence: what was measured, and what it means.
    """

    caught: bool
    sentence: str

    def __str__(self) -> str:
        return f"{'CAUGHT' if self.caught else 'nothing found'}: {self.sentence}"
