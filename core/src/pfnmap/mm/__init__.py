"""The memory-management core. File and function names are the kernel's."""

from pfnmap.contract.entry import Has

__all__ = ["in_release"]

_SINCE = {
    "follow_pfnmap": "huge-pfnmap",
    "follow_pfnmap_start": "huge-pfnmap",
    "follow_pfnmap_end": "huge-pfnmap",
    "register_pfn_address_space": "memory-failure-no-struct-page",
}
"""The change that brought a function."""

_UNTIL = {"follow_pte": "huge-pfnmap"}
"""The change that took a function away."""


def in_release(function: str, has: Has) -> bool:
    """Tell whether a release has one of `pfnmap.mm.functions`, as far as that depends on the changes that are known."""
    since, until = _SINCE.get(function), _UNTIL.get(function)
    return (since is None or has(since)) and not (until is not None and has(until))
