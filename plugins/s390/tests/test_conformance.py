from pfnmap.testing import ArchConformance


class TestConformance(ArchConformance):
    arch = "s390"
    vectors = ("data/s390x-4k.json.gz", "data/s390x-4k-7.3.4.json.gz")
    kconfig = ("data/kconfig/resolved.json.gz",)
