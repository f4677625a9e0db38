"""The architecture."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pfnmap import Has, hookimpl
from pfnmap.contract.plan import HUGE_LEVELS
from pfnmap.kconfig import fragment
from pfnmap.testing.plain import Plain

PORT = "outside-huge-pfnmap"


class OutsideArch(Plain):
    """Every bit where the kit's own architecture has it; the symbols and the change are this package's."""

    name = "outside"
    leaf_changes = dict.fromkeys(HUGE_LEVELS, (PORT,))
    machines: ClassVar[Mapping[str, Mapping[str, Any]]] = {"the port": {"release": "outside-port"}}

    @hookimpl
    def kconfig(self, has: Has) -> str:
        return fragment(__package__, has)

    def setup_arch(self, config: Mapping[str, str], cpu: Mapping[str, Any], has: Has) -> None:
        super().setup_arch(config, cpu, has)
        if not has(PORT):
            self.undefined = frozenset({"pmd_special", "pmd_mkspecial", "pud_special", "pud_mkspecial"})
