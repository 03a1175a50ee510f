"""The processor's CPUID as the state keeps it (format specification, 6.8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..snapshot import CpuidLeaf


class Cpuid(Mapping[tuple[int, int], CpuidLeaf]):
    """The saved leaves by (leaf, subleaf), and what the best known of them say; empty where none were saved."""

    def __init__(self, leaves: Sequence[CpuidLeaf]) -> None:
        self._leaves = {(item.leaf, item.subleaf): item for item in leaves}

    def __getitem__(self, key: tuple[int, int]) -> CpuidLeaf:
        """One leaf; KeyError where it was not saved."""
        return self._leaves[key]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The saved (leaf, subleaf) pairs."""
        return iter(self._leaves)

    def __len__(self) -> int:
        """How many leaves were saved."""
        return len(self._leaves)

    @property
    def vendor(self) -> str | None:
        """The vendor string of leaf 0, such as GenuineIntel; None where the leaf was not saved."""
        leaf = self._leaves.get((0, 0))
        if leaf is None:
            return None
        return _text((leaf.ebx, leaf.edx, leaf.ecx))

    @property
    def brand(self) -> str | None:
        """The brand string of leaves 0x80000002 to 4, blanks trimmed; None where one of them was not saved."""
        leaves = [self._leaves.get((0x80000002 + number, 0)) for number in range(3)]
        words: list[int] = []
        for leaf in leaves:
            if leaf is None:
                return None
            words += (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx)
        return " ".join(_text(words).split()) or None

    @property
    def signature(self) -> int | None:
        """Family, model and stepping as leaf 1 has them in EAX; None where the leaf was not saved."""
        leaf = self._leaves.get((1, 0))
        return leaf.eax if leaf is not None else None


def _text(words: Sequence[int]) -> str:
    raw = b"".join(word.to_bytes(4, "little") for word in words)
    return raw.rstrip(b"\0").decode("latin-1")
