"""What README, CHANGELOG and docs/ say exists: links, files, commands and options, and every example can be read."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from agent import cli as agent_cli
from agent.config import errors, manifest, settings
from controller.cli import application
from controller.config import settings as controller_settings
from tests import documents

ROOT = documents.DOCS.parent
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(documents.DOCS.rglob("*.md")))
SHELLS = frozenset({"sh", "console"})
# Programs of the host, in the shell examples; everything else must be ours.
FOREIGN = frozenset({"apt", "editor", "pip", "printf", "sha256sum", "ssh-keygen", "systemctl"})
OURS = re.compile(r"(?:instar|instar-agent|make|python -m) \S")
FENCE = re.compile(r"^ *```(?P<word>[a-z]*)\n(?P<text>.*?)^ *```$", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"<!-- part of a (?P<kind>[a-z ]+) -->\n\Z")
LINK = re.compile(r"\[[^][]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)
CODE = re.compile(r"`(?P<text>[^`\n]+)`")
IN_THE_TREE = re.compile(r"(?:agent|controller|docs|generated|proto|tests)/[\w./*-]*")
MANIFEST_BASE = {"name": '"web"', "version": '"1.0.0"', "driver": '"handover"', "command": '["python", "service.py"]'}
CONFIGURATION_BASE = {"node_id": '"web-1"'}


@dataclass(frozen=True, slots=True)
class Example:
    """A fenced block; ``part_of`` names what it is a part of, where it is not whole."""

    word: str
    text: str
    part_of: str
    line: int


def examples(page: Path) -> Iterator[Example]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        before = text[: match.start()]
        mark = MARK.search(before)
        yield Example(match["word"], match["text"], mark["kind"] if mark else "", before.count("\n") + 1)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> frozenset[str]:
    """Anchors of the headings, as the usual forges make them."""
    headings = [match["text"].replace("`", "") for match in HEADING.finditer(prose(page))]
    made = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    numbered = [f"{anchor}-{made[:index].count(anchor)}" for index, anchor in enumerate(made) if anchor in made[:index]]
    return frozenset({*made, *numbered})


def every(choose: Callable[[Example], bool]) -> Mapping[str, Example]:
    return {f"{page.relative_to(ROOT)}:{each.line}": each for page in PAGES for each in examples(page) if choose(each)}


def test_every_link_leads_to_a_file_and_to_a_heading_in_it() -> None:
    wrong = []
    for page in PAGES:
        for match in LINK.finditer(prose(page)):
            name, _, anchor = match["target"].partition("#")
            if ":" in name:  # another site
                continue
            target = (page.parent / name).resolve() if name else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                wrong.append(f"{page.relative_to(ROOT)}: {match['target']}")
    assert not wrong


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        targets = (match["target"].partition("#")[0] for match in LINK.finditer(prose(page)))
        waiting += [(page.parent / name).resolve() for name in targets if name and ":" not in name]
    assert reached >= {page for page in PAGES if page.is_relative_to(documents.DOCS)}


def test_every_file_that_is_named_exists() -> None:
    wrong = []
    for page in PAGES:
        names = [match["text"] for match in CODE.finditer(prose(page)) if IN_THE_TREE.fullmatch(match["text"])]
        wrong += [f"{page.relative_to(ROOT)}: {name}" for name in names if not any(ROOT.glob(name.rstrip("/")))]
    assert not wrong


def test_every_test_that_is_named_exists() -> None:
    found = [(page, match["text"]) for page in PAGES for match in CODE.finditer(prose(page))]
    named = [(page, text) for page, text in found if "::test_" in text]
    wrong = []
    for page, name in named:
        file, _, test = name.partition("::")
        defined = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))) if (ROOT / file).exists() else ()
        if not any(getattr(each, "name", "") == test for each in defined):
            wrong.append(f"{page.relative_to(ROOT)}: {name}")
    assert named
    assert not wrong


def test_every_command_that_is_shown_exists_with_its_options() -> None:
    wrong = []
    for page in PAGES:
        lines = [line for each in examples(page) if each.word in SHELLS for line in commands(each)]
        inline = [match["text"] for match in CODE.finditer(prose(page)) if OURS.match(match["text"])]
        for line in (*lines, *inline):
            fault = judge(line)
            if fault:
                wrong.append(f"{page.relative_to(ROOT)}: {line}: {fault}")
    assert not wrong


@pytest.mark.parametrize(
    "line",
    [
        "instar conquer",
        "instar rollout list --backwards",
        "instar-agent status --config",
        "instar-agent moult",
        "instar-agent log web --lines 3",
        "make sense",
        "python -m agent.nowhere",
        "rm -r /",
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    assert judge(line)


@pytest.mark.parametrize(
    "line", ["instar rollout list -o json", "instar-agent log web -n 3 -f", "make simulate SEEDS=5", "python -m agent"]
)
def test_a_command_that_exists_passes(line: str) -> None:
    assert judge(line) == ""


@pytest.mark.parametrize(("place", "example"), every(lambda each: each.word == "toml").items())
def test_every_toml_example_is_read_by_whom_it_is_for(place: str, example: Example, tmp_path: Path) -> None:
    kind = example.part_of or ("configuration" if "node_id" in tomllib.loads(example.text) else "manifest")
    match kind:
        case "manifest":
            manifest.parse_toml(whole(example, MANIFEST_BASE))
        case "configuration":
            settings.parse(whole(example, CONFIGURATION_BASE), {})
        case "controller":
            (tmp_path / "controller.toml").write_text(example.text, encoding="utf-8")
            controller_settings.load({}, {}, tmp_path / "controller.toml")
        case _:
            assert kind == "pyproject", place
            tomllib.loads(example.text)


@pytest.mark.parametrize("text", ['name = "web"\n', '[held]\nhold_timeout = "soon"\n', "colour = 7\n"])
def test_a_manifest_that_no_node_takes_is_found(text: str) -> None:
    with pytest.raises(errors.ConfigError):
        manifest.parse_toml(text)


@pytest.mark.parametrize(("_place", "example"), every(lambda each: each.word == "python").items())
def test_every_python_example_is_python(_place: str, example: Example) -> None:
    ast.parse(example.text)


def whole(example: Example, base: Mapping[str, str]) -> str:
    """An example, with what a part leaves out because it does not matter there."""
    if not example.part_of:
        return example.text
    found = tomllib.loads(example.text)
    return "".join(f"{key} = {value}\n" for key, value in base.items() if key not in found) + example.text


def commands(example: Example) -> Iterator[str]:
    """The commands of a shell example; of a console only what was typed."""
    for line in example.text.splitlines():
        is_typed = example.word == "sh" or line.startswith("$ ")
        command = line.removeprefix("$ ").partition(" #")[0].strip()
        if is_typed and command:
            yield command


def judge(command: str) -> str:
    """Say what is wrong with a command; nothing where it exists."""
    program, *words = shlex.split(command.replace("[", "").replace("]", ""))
    match Path(program).name, words:
        case "instar", _:
            return judge_instar(words)
        case "instar-agent", _:
            return judge_agent(words)
        case "make", _:
            return judge_make(words)
        case "python", ["-m", module, *_]:
            return "" if importlib.util.find_spec(module) else f"there is no module {module}"
        case name, _:
            return "" if name in FOREIGN else f"{name} is no command of ours"


def judge_instar(words: Sequence[str]) -> str:
    found = typer.main.get_command(application._application(words))
    left = list(words)
    while isinstance(found, typer.core.TyperGroup) and left:
        name = left.pop(0)
        if name not in found.commands:
            return f"there is no command {name}"
        found = found.commands[name]
    known = {option for parameter in found.params for option in parameter.opts}
    unknown = [word for word in left if word.startswith("-") and word.partition("=")[0] not in known]
    return f"there is no option {unknown[0]}" if unknown else ""


def judge_agent(words: Sequence[str]) -> str:
    try:
        agent_cli._parser().parse_args([word.replace("LINES", "1") for word in words])
    except SystemExit:
        return "instar-agent does not take it"
    return ""


def judge_make(words: Sequence[str]) -> str:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [word for word in words if "=" not in word]
    missing = [each for each in targets if not re.search(rf"^{re.escape(each)}:", text, re.MULTILINE)]
    return f"there is no target {missing[0]}" if missing else ""
