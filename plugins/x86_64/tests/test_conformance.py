from pfnmap.testing import ArchConformance


class TestConformance(ArchConformance):
    arch = "x86_64"
    vectors = ("data/x86_64-4k.json.gz", "data/x86_64-4k-sme.json.gz", "data/x86_64-4k-7.3.4.json.gz")
    kconfig = ("data/kconfig/resolved.json.gz",)
