from pfnmap.testing import ArchConformance

VARIANTS = ("4k", "4k-lpa2", "16k", "64k", "4k-7.3.4")


class TestConformance(ArchConformance):
    arch = "arm64"
    vectors = tuple(f"data/arm64-{variant}.json.gz" for variant in VARIANTS)
    kconfig = ("data/kconfig/resolved.json.gz",)
