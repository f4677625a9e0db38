"""Commands are plugins: brought by distributions, imported when they are called, listed when they are broken."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pfnmap.cli.app import app

Install = Callable[..., None]

FUNCTION = '''
import typer
from typing import Annotated

def Toy(
    context: typer.Context, words: Annotated[list[str] | None, typer.Argument()] = None, times: int = 1,
    size: str | None = None, loud: bool = False,
) -> int:
    """Say words."""
    print(words, times, size, loud, sorted(context.obj.registry.names("command")))
    return 1 if loud else 0
'''
APPLICATION = '''
import typer

Toy = typer.Typer(help="Two of them.")

@Toy.command()
def one(json: bool = False) -> None:
    """The first."""
    print("one", json)

@Toy.command()
def two() -> None:
    """The second."""
    print("two")
'''


def pfnmap(*arguments: str, **extra: Any) -> Result:
    return CliRunner().invoke(app, list(arguments), **extra)


def rows() -> dict[str, dict[str, Any]]:
    found = json.loads(pfnmap("plugins", "--json").stdout)["plugins"]
    return {f"{p['name']}@{p['distribution']}": p for p in found if p["kind"] == "command"}


def test_a_function_is_a_command_with_its_options_and_its_exit_code(install: Install):
    install("toy-pkg", "command", "say", FUNCTION)
    result = pfnmap("say", "a", "b", "--times", "3", "--size", "8G")
    assert result.stdout.startswith("['a', 'b'] 3 8G False ['caps', ")
    assert result.exit_code == 0
    assert pfnmap("say", "--loud").exit_code == 1
    assert pfnmap("say").stdout.startswith("None 1 None False ") or pfnmap("say").stdout.startswith("[] 1 None False ")
    assert pfnmap("say", "--times", "x").exit_code == 2


def test_an_application_is_a_command_with_commands_of_its_own(install: Install):
    install("toy-pkg", "command", "toys", APPLICATION)
    assert pfnmap("toys", "one", "--json").stdout == "one True\n"
    text = pfnmap("toys", "--help").stdout
    assert "The second." in text
    assert "completion" not in text
    assert "<bool>" not in pfnmap("toys", "one", "--help").stdout


def test_the_help_has_it(install: Install):
    install("toy-pkg", "command", "say", FUNCTION)
    assert "Say words." in pfnmap("--help").stdout


def test_it_is_imported_only_when_it_is_called(install: Install):
    install("toy-pkg", "command", "say", FUNCTION)
    assert pfnmap("changes", "6.12", "6.13").exit_code == 0
    assert pfnmap("sayy").stderr.startswith("pfnmap: No such command 'sayy'. Did you mean 'say'?")
    assert "toy_pkg_module" not in sys.modules
    pfnmap("say")
    assert "toy_pkg_module" in sys.modules


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1/0", "ZeroDivisionError at import: division by zero"),
        ("Toy = 3", "toy_pkg_module:Toy is neither a function nor a typer application"),
    ],
)
def test_a_broken_one_is_listed_and_the_rest_works(install: Install, source: str, reason: str):
    install("toy-pkg", "command", "say", source)
    row = rows()["say@toy-pkg"]
    assert (row["status"], row["reason"]) == ("broken", reason)
    text = " ".join(pfnmap("--help").stdout.replace("│", " ").split())
    assert f"plugin say: {reason}" in text
    assert "Plan at which page-table level" in text
    result = pfnmap("say", "--json", "x")
    assert (result.exit_code, result.stderr) == (2, f"pfnmap: plugin say: {reason}\n")


def test_one_that_typer_cannot_take_is_told_when_it_is_called(install: Install):
    install("toy-pkg", "command", "say", "def Toy(x: int | str): ...")
    result = pfnmap("say", "x")
    assert result.exit_code == 2
    assert result.stderr.startswith("pfnmap: plugin say: typer makes no command of it: ")
    assert pfnmap("--help").exit_code == 0


def test_what_it_raises_is_told_with_its_name(install: Install):
    install("toy-pkg", "command", "say", "def Toy():\n    raise KeyError('x')")
    result = pfnmap("say")
    assert (result.exit_code, result.stderr) == (
        2,
        "pfnmap: plugin say: KeyError: 'x'; --debug shows the traceback\n",
    )
    assert "Traceback" in pfnmap("say", "--debug").stderr


def test_two_that_claim_one_name_are_both_listed_until_one_is_chosen(install: Install, monkeypatch):
    install("toy-one", "command", "say", "def Toy():\n    print(1)")
    install("toy-two", "command", "say", "def Toy():\n    print(2)")
    assert {name: row["status"] for name, row in rows().items() if row["status"] != "ok"} == {
        "say@toy-one": "ambiguous",
        "say@toy-two": "ambiguous",
    }
    assert "several distributions claim say" in pfnmap("say").stderr
    monkeypatch.setenv("PFNMAP_PLUGINS", "say@toy-two")
    assert pfnmap("say").stdout == "2\n"


def test_the_cores_own_commands_are_not_disabled(install: Install, monkeypatch):
    install("toy-pkg", "command", "say", FUNCTION)
    assert "plugin say: disabled: --no-plugins" in pfnmap("--no-plugins", "say").stderr
    assert pfnmap("--no-plugins", "changes", "6.12", "6.13").exit_code == 0
    monkeypatch.setenv("PFNMAP_PLUGINS", "x86_64")
    assert "plugin say: disabled: not in PFNMAP_PLUGINS" in pfnmap("say").stderr
    assert "Say words." not in pfnmap("--help").stdout
    assert pfnmap("changes", "6.12", "6.13").exit_code == 0


def test_another_may_be_chosen_in_the_place_of_the_cores(install: Install, monkeypatch):
    install("toy-pkg", "command", "changes", "def Toy():\n    print('mine')")
    assert "several distributions claim changes" in pfnmap("changes").stderr
    monkeypatch.setenv("PFNMAP_PLUGINS", "changes@toy-pkg")
    assert pfnmap("changes").stdout == "mine\n"
    monkeypatch.setenv("PFNMAP_PLUGINS", "changes@pfnmap")
    assert pfnmap("changes", "6.12", "6.13").exit_code == 0
