from pfnmap.testing import ArchConformance


class TestConformance(ArchConformance):
    arch = "riscv64"
    vectors = (
        "data/riscv64-4k.json.gz",
        "data/riscv64-4k-7.3.4.json.gz",
        "data/rebuilt/riscv64-sv39-svpbmt.json.gz",
        "data/rebuilt/riscv64-sv57-svpbmt-svrsw60t59b-7.3.4.json.gz",
    )
    kconfig = ("data/kconfig/resolved.json.gz",)
