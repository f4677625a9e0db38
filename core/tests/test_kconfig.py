"""The Kconfig engine on small fragments: releases, asking, presuming, forcing, files, explanations, bad input."""

import sys
from subprocess import run

import pytest

from pfnmap.config import Config, Reason
from pfnmap.errors import BadInput, LinkError, Unknown
from pfnmap.kconfig import declared, fragment, page_size_symbols, resolve, settle
from pfnmap.release import parse_release, upstream_changes

CORE = """\
config MODULES
	bool "Modules"

config EXPERT
	bool "Expert"

config ARCH_SUPPORTS_RT
	bool

config PREEMPT_RT
	bool "Real time"
	depends on EXPERT && ARCH_SUPPORTS_RT

config THP
	bool "Huge pages"
	depends on HAVE_THP && !PREEMPT_RT

config HAVE_THP
	bool

config HUGE_PFNMAP
	bool
	depends on THP

config PUD_PFNMAP
	def_bool y
	depends on HUGE_PFNMAP && HAVE_PUD

config HAVE_PUD
	bool
"""
ARCH = """\
config ARCH
	def_bool y
	select ARCH_SUPPORTS_RT
	select HAVE_THP
	select HAVE_PUD
	select HUGE_PFNMAP if THP

choice
	prompt "Page size"

config A_4K_PAGES
	bool "4K"
	select HAVE_PAGE_SIZE_4KB

config A_16K_PAGES
	bool "16K"
	select HAVE_PAGE_SIZE_16KB

endchoice

choice
	prompt "Width"
	default WIDTH_52

config WIDTH_36
	bool "36" if EXPERT
	depends on A_16K_PAGES

config WIDTH_48
	bool "48"

config WIDTH_52
	bool "52"

endchoice

config WIDTH
	int
	default 36 if WIDTH_36
	default 48 if WIDTH_48
	default 52 if WIDTH_52

config LEVELS
	int
	default 5 if WIDTH_52
	default 4
"""
DRIVER = """\
config BUS
	bool "Bus"

config OTHER
	tristate "Other"

config CONTAINER
	bool "Container"
	default y

config DRIVER
	tristate "Driver"
	depends on BUS && (OTHER || !OTHER)

config EMULATED
	bool "Container by Other"
	depends on OTHER && !CONTAINER
"""
PARTS = [("pfnmap", CORE), ("arch", ARCH), ("driver", DRIVER)]


def texts(reason: Reason) -> list[str]:
    return [f"{reason.text} = {reason.value}", *(t for child in reason.children for t in texts(child))]


# what a release has

DIRECTIVES = """\
config ALWAYS
	bool "always"
#: since new
	default y
#: until newer
config BETWEEN
	bool
#: end
#: end
#: until new
config OLD
	bool
#: end
"""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [(set(), {"ALWAYS", "OLD"}), ({"new"}, {"ALWAYS", "BETWEEN"}), ({"new", "newer"}, {"ALWAYS"})],
)
def test_blocks_count_by_the_changes_of_the_release(changes: set[str], expected: set[str]):
    text = settle(DIRECTIVES, changes.__contains__)
    config = resolve([("x", text)])
    assert set(config) == expected
    assert config["ALWAYS"] == ("y" if "new" in changes else "n")
    assert len(text.splitlines()) == len(DIRECTIVES.splitlines())


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("#: since\n#: end\n", 1, "since CHANGE"),
        ("#: from new\n#: end\n", 1, "since CHANGE"),
        ("#: since two words\n#: end\n", 1, "since CHANGE"),
        ("config X\n\tbool\n#: end\n", 3, "without a since"),
        ("#: since a\n#: until b\n#: end\n", 1, "without an end"),
    ],
)
def test_malformed_directive_is_an_error_with_its_line(text: str, line: int, what: str):
    with pytest.raises(LinkError, match=rf"Kconfig, line {line}: .*{what}"):
        settle(text, lambda change: True)


def test_change_that_nobody_knows_is_an_error():
    with pytest.raises(Unknown, match="change 'huge-pfnmaps'"):
        settle("#: since huge-pfnmaps\n#: end\n", parse_release("6.12.117").has)


@pytest.mark.parametrize("yes", [True, False])
def test_the_core_fragment_resolves_alone(yes: bool):
    config = resolve([("pfnmap", fragment("pfnmap", lambda change: yes))])
    assert config["TRANSPARENT_HUGEPAGE"] == "n"
    assert config.value("ARCH_SUPPORTS_PMD_PFNMAP") == ("n" if yes else "undefined")


def test_the_core_fragment_asks_only_for_changes_that_there_are():
    asked: set[str] = set()
    fragment("pfnmap", lambda change: bool(asked.add(change)))  # type: ignore[func-returns-value]
    assert asked
    assert asked <= set(upstream_changes())


def test_declared_names_the_symbols_of_every_release():
    assert {"ARCH_HAS_PTE_DEVMAP", "PT_RECLAIM", "TRANSPARENT_HUGEPAGE"} <= declared("pfnmap")
    assert declared("pluggy", "no_such_package") == frozenset()


def test_package_without_a_fragment_is_an_error():
    with pytest.raises(LinkError, match="pluggy has no file Kconfig"):
        fragment("pluggy", lambda change: True)


# asking


def test_nothing_asked_for_gives_the_defaults():
    config = resolve(PARTS)
    assert (config["THP"], config["WIDTH"], config["LEVELS"], config["CONTAINER"]) == ("n", "52", "5", "y")
    assert config.value("NO_SUCH") == "undefined"
    assert not config.enabled("NO_SUCH")


def test_select_and_dependency_follow_what_is_asked_for():
    config = resolve(PARTS, {"THP": "y"})
    assert config.enabled("PUD_PFNMAP")
    assert config.given == {"THP": "y"}
    assert config.warnings == ()


def test_asked_for_and_forbidden_comes_out_n_with_a_warning():
    config = resolve(PARTS, {"THP": "y", "PREEMPT_RT": "y"})
    assert (config["PREEMPT_RT"], config["THP"], config["PUD_PFNMAP"]) == ("y", "n", "n")
    assert config.warnings == ("THP=y is not taken, it is n: THP depends on HAVE_THP && !PREEMPT_RT",)


def test_defaults_give_way_in_silence():
    assert resolve(PARTS, defaults={"THP": "y"})["THP"] == "y"
    assert resolve(PARTS, {"THP": "n"}, defaults={"THP": "y"})["THP"] == "n"
    config = resolve(PARTS, {"PREEMPT_RT": "y"}, defaults={"THP": "y", "NOT_LINKED": "y"})
    assert (config["THP"], config.warnings) == ("n", ())


def test_promptless_symbol_stands_for_the_member_of_the_choice():
    assert resolve(PARTS, {"WIDTH": "48"})["LEVELS"] == "4"
    with pytest.raises(BadInput, match="WIDTH=50: one of 36, 48, 52"):
        resolve(PARTS, {"WIDTH": "50"})


def test_promptless_symbol_cannot_be_asked_for_otherwise():
    config = resolve(PARTS, {"PUD_PFNMAP": "y"})
    assert config["PUD_PFNMAP"] == "n"
    assert "it has no prompt" in config.warnings[0]


def test_choice_takes_the_member_that_is_asked_for():
    config = resolve(PARTS, {"A_4K_PAGES": "n", "A_16K_PAGES": "y"})
    assert (config["A_4K_PAGES"], config["A_16K_PAGES"]) == ("n", "y")


# presuming


@pytest.mark.parametrize(
    ("given", "presumed"),
    [
        ({"PREEMPT_RT": "y"}, {"EXPERT": "y"}),
        ({"DRIVER": "y"}, {"BUS": "y"}),
        ({"DRIVER": "m"}, {"BUS": "y", "MODULES": "y"}),
        ({"OTHER": "m", "EMULATED": "y"}, {"MODULES": "y", "CONTAINER": "n"}),
        ({"WIDTH": "36", "A_16K_PAGES": "y"}, {"EXPERT": "y"}),
    ],
)
def test_what_is_asked_for_presumes_what_it_depends_on(given: dict[str, str], presumed: dict[str, str]):
    config = resolve(PARTS, given)
    assert config.presumed == presumed
    assert config.warnings == ()


@pytest.mark.parametrize(
    "given",
    [
        {"PREEMPT_RT": "y", "EXPERT": "n"},
        {"DRIVER": "y", "BUS": "n"},
        {"WIDTH": "36"},  # which page size is a choice, and choices are not presumed
    ],
)
def test_nothing_is_presumed_against_what_was_said_or_in_vain(given: dict[str, str]):
    config = resolve(PARTS, given)
    assert config.presumed == {}
    assert len(config.warnings) == 1


def test_nothing_is_presumed_where_the_architecture_forbids():
    config = resolve([("pfnmap", CORE)], {"PREEMPT_RT": "y"})
    assert (config["PREEMPT_RT"], config["EXPERT"], config.presumed) == ("n", "n", {})


def test_m_of_what_it_depends_on_limits_what_is_asked_for():
    config = resolve(PARTS, {"DRIVER": "y", "OTHER": "m"})
    assert config["DRIVER"] == "m"
    assert "OTHER || !OTHER" in config.warnings[0]


# taking as it is


def test_forced_values_win_and_others_follow_from_them():
    forced = {"PUD_PFNMAP": "y", "HAVE_THP": "n", "A_16K_PAGES": "y", "WIDTH": "48", "STRANGE": "7"}
    config = resolve(PARTS, force=forced)
    assert [config[s] for s in ("PUD_PFNMAP", "HAVE_THP", "STRANGE", "WIDTH")] == ["y", "n", "7", "48"]
    assert [config[s] for s in ("LEVELS", "A_4K_PAGES", "THP")] == ["4", "n", "n"]
    assert resolve(PARTS, force={"LEVELS": "3"})["LEVELS"] == "3"
    assert "taken as it is = y" in texts(config.explain("PUD_PFNMAP"))


# a real .config


def test_file_that_follows_from_itself_has_no_conflict():
    file = {name: value for name, value in resolve(PARTS, {"THP": "y", "DRIVER": "m"}).items() if value != "n"}
    config = resolve(PARTS, file={**file, "SOMETHING_ELSE": "whatever"}, source="config-1")
    assert config.conflicts == ()
    assert config.enabled("PUD_PFNMAP")
    assert config.source == "config-1"


@pytest.mark.parametrize("value", ["n", None])
def test_derived_value_that_was_edited_is_a_conflict(value: str | None):
    file: dict[str, str | None] = {**resolve(PARTS, {"THP": "y"}), "PUD_PFNMAP": value}
    config = resolve(PARTS, file={name: v for name, v in file.items() if v is not None})
    assert config.conflicts == (("PUD_PFNMAP", "n", "y"),)
    assert config["PUD_PFNMAP"] == "y"


def test_prompts_that_exclude_each_other_are_a_conflict():
    file = {**resolve(PARTS, {"THP": "y"}), "EXPERT": "y", "PREEMPT_RT": "y"}
    conflicts = resolve(PARTS, file=file).conflicts
    assert ("THP", "y", "n") in conflicts
    assert ("PUD_PFNMAP", "y", "n") in conflicts


def test_what_is_asked_for_goes_over_the_file_and_is_no_conflict():
    file = resolve(PARTS, {"THP": "y"})
    config = resolve(PARTS, {"THP": "n"}, file=file)
    assert (config["THP"], config["PUD_PFNMAP"], config.conflicts) == ("n", "n", ())
    assert "from its.config = y" in texts(resolve(PARTS, file=file, source="its.config").explain("PUD_PFNMAP"))


def test_defaults_do_not_count_where_there_is_a_file():
    assert resolve(PARTS, file=resolve(PARTS), defaults={"THP": "y"})["THP"] == "n"


# explaining


def test_a_file_that_is_not_whole_says_nothing_of_what_it_does_not_name():
    config = resolve(PARTS, file={"THP": "y", "HAVE_THP": "y"}, whole=False, defaults={"MODULES": "y"})
    assert (config["THP"], config["PUD_PFNMAP"], config["MODULES"]) == ("y", "y", "y")
    assert config.conflicts == ()


def test_a_file_that_is_not_whole_presumes_what_it_needs_and_its_prompts_are_not_compared():
    config = resolve(PARTS, file={"PREEMPT_RT": "y", "THP": "y"}, whole=False)
    assert (config["PREEMPT_RT"], config["EXPERT"], config["THP"]) == ("y", "y", "n")
    assert config.conflicts == ()
    config = resolve(PARTS, file={"PREEMPT_RT": "y", "HAVE_THP": "n"}, whole=False)
    assert config.conflicts == (("HAVE_THP", "n", "y"),)


def test_a_conflict_counts_where_it_stands_whichever_way_the_unknown_is():
    newer = [(name, text.replace("\tselect HAVE_PUD\n", "")) for name, text in PARTS]
    file = {**dict(resolve(newer, {"THP": "y"})), "HAVE_THP": "n"}
    assert {c.symbol for c in resolve(PARTS, file=file).conflicts} == {"HAVE_THP", "HAVE_PUD", "PUD_PFNMAP"}
    assert [c.symbol for c in resolve(PARTS, file=file, otherwise=newer).conflicts] == ["HAVE_THP"]


def test_explanation_goes_down_to_the_select():
    assert texts(resolve(PARTS, {"THP": "y"}).explain("PUD_PFNMAP")) == [
        "PUD_PFNMAP = y",
        "default y = y",
        "depends on HUGE_PFNMAP && HAVE_PUD = y",
        "HUGE_PFNMAP = y",
        "selected by ARCH if THP = y",
        "ARCH = y",
        "default y = y",
        "THP = y",
        "asked for = y",
        "depends on HAVE_THP && !PREEMPT_RT = y",
        "HAVE_THP = y",
        "selected by ARCH = y",
        "ARCH = y",
        "PREEMPT_RT = n",
        "depends on EXPERT && ARCH_SUPPORTS_RT = n",
        "EXPERT = n",
        "no default = n",
        "depends on THP = y",
        "THP = y",
        "HAVE_PUD = y",
        "selected by ARCH = y",
        "ARCH = y",
    ]


def test_explanation_of_n_shows_only_what_forbids_it():
    assert texts(resolve(PARTS, {"THP": "y", "PREEMPT_RT": "y"}).explain("PUD_PFNMAP")) == [
        "PUD_PFNMAP = n",
        "depends on HUGE_PFNMAP && HAVE_PUD = n",
        "HUGE_PFNMAP = n",
        "depends on THP = n",
        "THP = n",
        "y was asked for and is not taken = n",
        "depends on HAVE_THP && !PREEMPT_RT = n",
        "PREEMPT_RT = y",
        "asked for = y",
        "depends on EXPERT && ARCH_SUPPORTS_RT = y",
        "EXPERT = y",
        "presumed, PREEMPT_RT=y needs it = y",
        "ARCH_SUPPORTS_RT = y",
        "selected by ARCH = y",
        "ARCH = y",
        "default y = y",
    ]


def test_explanation_of_a_number_names_the_default_that_holds():
    assert texts(resolve(PARTS, {"WIDTH": "52"}).explain("LEVELS")) == [
        "LEVELS = 5",
        "default 5 if WIDTH_52 = 5",
        "WIDTH_52 = y",
        "choice 'Width': asked for as WIDTH=52 = y",
    ]


def test_every_symbol_can_be_explained():
    for given in ({}, {"THP": "y", "PREEMPT_RT": "y"}, {"DRIVER": "m", "OTHER": "m", "WIDTH": "48"}):
        config = resolve(PARTS, given)
        for symbol in config:
            reason = config.explain(symbol)
            assert (reason.text, reason.value) == (symbol, config[symbol])
            assert reason.children


# names and values that are wrong


def test_name_that_nobody_declares_is_unknown():
    with pytest.raises(Unknown, match="config symbol 'PREEMPT_R'; did you mean 'PREEMPT_RT'"):
        resolve(PARTS, {"PREEMPT_R": "y"})
    with pytest.raises(Unknown, match="config symbol 'NO_SUCH'"):
        resolve(PARTS).explain("NO_SUCH")


@pytest.mark.parametrize("known", [(), ("OF_ANOTHER_PLUGIN",)])
def test_name_of_another_release_or_plugin_is_unused_here(known: tuple[str, ...]):
    parts = [("x", settle(DIRECTIVES, {"new"}.__contains__))]
    symbol = known[0] if known else "OLD"
    config = resolve(parts, {symbol: "y"}, known=known)
    assert config.value(symbol) == "undefined"
    assert config.warnings == (f"{symbol}=y: unused here, no such symbol in this kernel",)
    if not known:
        assert config.explain(symbol).value == "undefined"


@pytest.mark.parametrize(
    ("symbol", "value", "expected"),
    [
        ("THP", "maybe", "y or n"),
        ("THP", "m", "y or n"),
        ("THP", "", "y or n"),
        ("DRIVER", "Y", "y, m or n"),
        ("LEVELS", "four", "a decimal number"),
        ("LEVELS", "0x4", "a decimal number"),
    ],
)
def test_value_of_another_type_is_bad_input(symbol: str, value: str, expected: str):
    with pytest.raises(BadInput, match=rf"^{symbol}={value}: {expected} was expected$"):
        resolve(PARTS, {symbol: value})
    with pytest.raises(BadInput, match=f"{symbol}={value}: {expected}"):
        resolve(PARTS, force={symbol: value})
    if value:
        with pytest.raises(BadInput, match=f"a.config: {symbol}={value}: {expected}"):
            resolve(PARTS, file={symbol: value}, source="a.config")


def test_long_bad_value_is_cut():
    with pytest.raises(BadInput) as caught:
        resolve(PARTS, {"THP": "y" * 10_000})
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('\tdefault "$HOME"', "no macros"),
        ('\tdefault "\\$HOME"', "no macros"),
        ("NAME := value", "no macros"),
        ("\tdefault A$NAME", "no macros"),
        ('source "/etc/passwd"', "'source' is not allowed"),
        ('orsource "*"', "'orsource' is not allowed"),
        ('\toption env="HOME"', "'option' is not allowed"),
        ("\tdefalt y", "couldn't parse"),
        ("endif", "no corresponding 'if'"),
    ],
)
def test_fragment_that_reaches_out_or_does_not_parse_is_refused_with_its_place(line: str, what: str):
    with pytest.raises(LinkError, match=f"Kconfig of bad, line 3.*{what}"):
        resolve([("pfnmap", CORE), ("bad", f"config X\n\tbool\n{line}\n")])


def test_a_last_line_that_goes_on_goes_on_in_no_other_fragment():
    torn = "config TORN\n\tbool\n\tselect THP if \\"
    for behind in ([], [("next", "config NEXT\n\tbool\n")]):
        with pytest.raises(LinkError, match=r"Kconfig of torn, line 3: .*malformed expression"):
            resolve([("pfnmap", CORE), ("torn", torn), *behind])


SHELL = "$(shell,touch PWNED)"


@pytest.mark.parametrize(
    "text",
    [
        f"\tdefault {SHELL}",
        f'\tdefault "{SHELL}"',
        f'\tdefault "a\\\n#{SHELL}"',
        f"\tdefault\\\n{SHELL}",
        f"\tdef\\\nault A{SHELL}",
        f"\tdepends on A{SHELL}",
        f"\tdefault y if {SHELL}",
        f'\tprompt "{SHELL}"',
        f'\thelp\n\t  text\nmenu "{SHELL}"',
        f'\thelp\n\t  text\nmenu "\\\n{SHELL}"',
        SHELL,
        f"NAME := {SHELL}",
        f"NAME += {SHELL}",
        f"$({SHELL})",
        f"N{SHELL} = a",
        f'config "{SHELL}"',
        f"config A{SHELL}",
        f"comment '{SHELL}'",
        'sou\\\nrce "PRESENT"',
        "source PRESENT",
        'rsource "PRESENT"',
        'osource "PRESENT"',
        'orsource "PRES*"',
        'gsource "PRES*"',
        'grsource "PRES*"',
        '\topt\\\nion env="HOME"',
        f'\toption env="{SHELL}"',
        "\toption modules",
    ],
)
def test_no_text_runs_a_shell_opens_a_file_or_sees_the_environment(text: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "PRESENT").write_text(f"config Y\n\tdefault {SHELL}\n")
    with pytest.raises(LinkError, match=r"not allowed|missing or bad symbol name"):
        resolve([("bad", f"config X\n\tstring\n{text}\n")])
    assert not (tmp_path / "PWNED").exists()


def test_dollars_in_comments_and_help_texts_are_text():
    text = f"# {SHELL}\nconfig X\n\tdef_bool y\n\thelp\n\t  {SHELL} source option\n"
    assert resolve([("x", text)])["X"] == "y"


def test_no_module_that_the_environment_names_is_imported():
    program = (
        "import sys\n"
        "from pfnmap.kconfig import resolve\n"
        "resolve([('x', 'config X\\n\\tbool\\n')])\n"
        "assert not {'this', 'kconfiglib', 'kconfigfunctions'} & sys.modules.keys()\n"
    )
    run([sys.executable, "-c", program], check=True, env={"KCONFIG_FUNCTIONS": "this", "srctree": "/nowhere"})


def test_deep_nesting_is_an_error_with_the_name():
    with pytest.raises(LinkError, match="Kconfig of deep: nested too deeply"):
        resolve([("deep", f"config X\n\tbool\n\tdepends on {'(' * 50_000}X{')' * 50_000}\n")])


def test_dependency_loop_is_refused():
    loop = "config A\n\tbool\n\tdepends on B\n\nconfig B\n\tbool\n\tdepends on A\n"
    with pytest.raises(LinkError, match=r"Dependency loop.*Kconfig of x, line 1"):
        resolve([("x", loop)])


# page sizes


def test_page_size_is_the_member_that_selects_it():
    assert page_size_symbols(PARTS, "16K") == {"A_16K_PAGES": "y"}
    with pytest.raises(BadInput, match="'64K' is none of 4K, 16K"):
        page_size_symbols(PARTS, "64K")


def test_page_size_that_is_always_there_asks_for_nothing():
    fixed = [("x", "config ARCH\n\tdef_bool y\n\tselect HAVE_PAGE_SIZE_4KB\n")]
    assert page_size_symbols(fixed, "4K") == {}
    with pytest.raises(BadInput, match="'16K' is none of 4K"):
        page_size_symbols(fixed, "16K")


def test_page_size_is_found_where_the_release_has_no_symbol_for_it():
    select = "\tselect HAVE_PAGE_SIZE_16KB\n"
    text = settle(ARCH.replace(select, f"#: since new\n{select}#: end\n"), lambda change: False)
    assert page_size_symbols([("arch", text)], "16K") == {"A_16K_PAGES": "y"}


# weight


def test_importing_the_engine_stays_light():
    code = "import pfnmap.kconfig, sys; print(*({'pfnmap.kconfig_parser', 'numpy'} & set(sys.modules)))"
    assert run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
    code = "from pfnmap.kconfig import resolve; import sys; resolve([('x', '')]); print('numpy' in sys.modules)"
    assert run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_config_is_a_mapping_that_others_can_make():
    config = Config({"THP": "y"}, "by hand")
    assert dict(config) == {"THP": "y"}
    assert (config.enabled("THP"), config.source, config.conflicts) == (True, "by hand", ())


LEVELS = """\
config 64BIT
	def_bool y

choice
	prompt "page size and levels"
	default B_2LEVEL if !64BIT
	default B_3LEVEL if 64BIT

config A_3LEVEL
	bool "4K, three levels"
	select HAVE_PAGE_SIZE_4KB

config A_4LEVEL
	bool "4K, four levels"
	select HAVE_PAGE_SIZE_4KB

config B_2LEVEL
	bool "16K, two levels"
	select HAVE_PAGE_SIZE_16KB

config B_3LEVEL
	bool "16K, three levels"
	select HAVE_PAGE_SIZE_16KB

endchoice

config HAVE_PAGE_SIZE_4KB
	bool

config HAVE_PAGE_SIZE_16KB
	bool
"""


def test_of_several_members_with_a_page_size_the_default_of_the_choice_is_taken():
    # As arch/loongarch/Kconfig has it: 16KB_3LEVEL, not 16KB_2LEVEL, which stands first.
    assert page_size_symbols([("arch", LEVELS)], "16K") == {"B_3LEVEL": "y"}
    assert page_size_symbols([("arch", LEVELS)], "4K") == {"A_3LEVEL": "y"}
