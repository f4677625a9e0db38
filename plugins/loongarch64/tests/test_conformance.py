from pfnmap.testing import ArchConformance


class TestConformance(ArchConformance):
    arch = "loongarch64"
    vectors = (
        "data/loongarch64-16k.json.gz",
        "data/loongarch64-16k-7.3.4.json.gz",
        "data/loongarch64-16k-2level.json.gz",
        "data/loongarch64-16k-nothp.json.gz",
        "data/loongarch64-4k-4level.json.gz",
    )
    kconfig = ("data/kconfig/resolved.json.gz",)
