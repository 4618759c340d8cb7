"""The README's Python examples print what it says, and its commands and options exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from minires import cli

__all__: list[str] = []

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\s*```text\n(.*?)```", README, re.DOTALL)
COMMANDS = sorted(set(re.findall(r"^(?:pip install [^&\n]* && )?(minires [^#\n]*)", README, re.M)))
NUMBER = r"-?\d+(?:\.\d+)?"


def test_examples_were_found():
    assert len(EXAMPLES) == README.count("```python") == README.count("```text") >= 2
    assert len(COMMANDS) >= 7


@pytest.mark.compiled
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_prints_what_it_says(number, capsys):
    code, expected = EXAMPLES[number]
    exec(compile(code, f"README example {number}", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    printed, expected = (re.sub(r"[\d.]+ s\n", "some time\n", t) for t in (printed, expected))
    words, expected_words = (re.sub(NUMBER, "#", t).split() for t in (printed, expected))
    assert words == expected_words
    found, wanted = ([float(n) for n in re.findall(NUMBER, t)] for t in (printed, expected))
    # two decimals of a loss after 30 steps differ a little from one processor to the next
    assert found == pytest.approx(wanted, rel=0.05, abs=0.05)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_the_options_that_the_readme_uses(command, capsys):
    words = shlex.split(command)
    options = [word for word in words if word.startswith("--")]
    assert cli.main([words[1], "--help"]) == 0
    text = capsys.readouterr().out
    assert [option for option in options if option not in text] == []
