"""Which cells of a table of groups are shown, so that none that is too small can be read off or worked out.

A cell that is too small is hidden (primary suppression). Where the rest of a line adds to a total that is shown, what
is hidden on that line can be worked out: so on each line at least two cells are hidden or none, and what they hold
together is not too small either (complementary suppression; Hundepool et al., Statistical Disclosure Control, 2012).
The smallest shown cells are hidden for that. In a table of two groupings a line is also each group of either grouping,
and the cells of a group that is hidden itself are hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

Key = tuple[str, ...]
COMPLEMENTARY = "hides a smaller group, which could be worked out"
OF_HIDDEN = "one of its groups is hidden"


def hidden(
    sizes: Mapping[Key, int],
    too_small: Callable[[Key], str | None],
    least: int,
    margins: Mapping[str, bool] | None = None,
) -> dict[Key, str]:
    """The hidden cells and why, by key.

    `sizes`: rows of each cell; a key has one group, or two of a table of two groupings. `too_small` says why a cell is
    too small for itself. `least`: the fewest rows that cells hidden on one line hold together. `margins`: for two
    groupings, whether each group of either is hidden itself.
    """
    why = {key: reason for key in sizes if (reason := too_small(key)) is not None}
    for key in sizes:
        if key not in why and any((margins or {}).get(group) for group in key):
            why[key] = OF_HIDDEN
    lines = _lines(list(sizes))
    changed = True
    while changed:
        changed = False
        for line in lines:
            covered = [key for key in line if key in why]
            shown = sorted((key for key in line if key not in why), key=lambda key: (sizes[key], key))
            rows = sum(sizes[key] for key in covered)
            if shown and covered and (len(covered) < 2 or rows < least):
                why[shown[0]] = COMPLEMENTARY
                changed = True
    return why


def _lines(keys: list[Key]) -> list[list[Key]]:
    """All cells of one grouping; of two, the cells of each group."""
    if all(len(key) == 1 for key in keys):
        return [keys]
    lines: dict[tuple[int, str], list[Key]] = {}
    for key in keys:
        for side, group in enumerate(key):
            lines.setdefault((side, group), []).append(key)
    return list(lines.values())
