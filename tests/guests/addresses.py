"""Which virtual addresses to ask QEMU about: edges and insides of what is mapped, registers, and nonsense.

What is mapped is taken from QEMU's own list where there is one; QEMU gives the answers in any case.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from vmsavedstate import VirtualProcessor

from .capture import PAGE, TlbLine
from .programs import Region

TOP = 1 << 64
FIXED = (0, 1, PAGE, 0xA0000, 0xB8000, 0xC0000, 0xFFFFF, 0x100000, 0x10FFEF, 0x9000000, 0x40000000, 0xFEE00000, 0xFFFFFFF0,
         0xFFFFFFFF)  # fmt: skip
EDGES = ((1 << 47) - 1, 1 << 47, TOP - (1 << 47) - 1, TOP - (1 << 47), 1 << 48, TOP - (1 << 48), (1 << 56) - 1, 1 << 56,
         TOP - (1 << 56) - 1, TOP - (1 << 56), 1 << 63, TOP - 1)  # fmt: skip


def choose(
    vp: VirtualProcessor,
    tlb: Sequence[TlbLine],
    registers: Iterable[int],
    where: Sequence[Region],
    *,
    limit: int,
    narrow: bool,
    seed: str,
) -> list[int]:
    """About ``limit`` addresses for one processor; ``narrow`` keeps them below 2**32 (QEMU cuts larger ones off)."""
    chance = random.Random(seed)
    spans = [(line.gva, line.gva + PAGE) for line in tlb] or [(run.gva, run.gva + run.size) for run in vp.mappings()]
    wanted = set(FIXED) | set(EDGES)
    for value in registers:
        wanted |= {value, value + 8, value - 8, value ^ PAGE, value & ~0xFFF, value + 0x200000}
    for start, size, _ in where:
        wanted |= {start - 1, start, start + size - 1, start + size}
        wanted |= {start + chance.randrange(size) for _ in range(24)}
    for _ in range(limit // 8):
        wanted.add(chance.getrandbits(32 if narrow else chance.choice((26, 32, 40, 48, 57, 64))))
    if spans:
        while len(wanted) < limit:
            start, end = chance.choice(spans)
            inside = chance.randrange(start, end)
            further = inside + (chance.choice((-1, 1)) << chance.randrange(12, 32))  # near: other pages, other tables
            wanted |= {inside, chance.choice((start, start - 1, end - 1, end)), further}
    mask = (1 << 32) - 1 if narrow else TOP - 1
    return sorted({address & mask for address in wanted})
