from pfnmap.testing import ArchConformance


class TestConformance(ArchConformance):
    arch = "powerpc64"
    vectors = (
        "data/powerpc64-64k.json.gz",
        "data/powerpc64-64k-7.3.4.json.gz",
        "data/rebuilt/powerpc64-4k-hash.json.gz",
        "data/rebuilt/powerpc64-4k-radix.json.gz",
        "data/rebuilt/powerpc64-64k-hash.json.gz",
    )
    kconfig = ("data/kconfig/resolved.json.gz",)
