from pfnmap.testing import ArchConformance


class TestConformance(ArchConformance):
    arch = "sparc64"
    vectors = (
        "data/sparc64-sun4u.json.gz",
        "data/sparc64-sun4v.json.gz",
        "data/sparc64-sun4v-7.3.4.json.gz",
        "data/sparc64-m7.json.gz",
    )
    kconfig = ("data/kconfig/resolved.json.gz",)
