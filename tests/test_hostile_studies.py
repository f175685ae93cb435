"""A study file may be anybody's: it gives a study that can run, or one message. Nothing of it is run, rendered or followed."""

import json
import re
import resource
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from hostile import EXPRESSIONS, TEXTS, check_readable, corrupted, examples, mutated, nested, used_or_refused
from hypothesis import given
from hypothesis import strategies as st

from ablation.canonical import canonical
from ablation.errors import LONGEST, UserError, readable
from ablation.hardware import load_card
from ablation.parsed import Parsed, parse_studies
from ablation.recommended import load_recommended
from ablation.resolved import fingerprint_of
from ablation.study import find_studies, study_model
from ablation.sweep import MOST_COMBINATIONS, expand
from ablation.yamlfile import DEEPEST, LARGEST, load_yaml, resolve_strings

CONFIG = ROOT / "config"
STUDIES = {path.stem: path for path in sorted((CONFIG / "studies").glob("*.yaml"))}
WILDCARD = re.compile(r"[A-Za-z0-9_.-]+")  # what the rules allow in the names of files
MOST_MEMORY = 600 * 2**20

FAVOURED = (
    ("keep",), ("exclude",), ("include",), ("baseline",), ("claims",), ("recommended",), ("hardware",), ("title",), ("scales",
    ), ("system",),
    ("scale",), ("sweep", "rank"), ("sweep", "seed"), ("sweep", "gpus"), ("sweep", "training.clip"), ("sweep",
    "strategies.A.lr"),
    ("sweep", "data.root"), ("model", "weights"), ("data", "root"), ("data", "source"), ("training", "steps"), ("compute",
    "threads"),
    ("scales", "demo"), ("scales", "demo", "sweep"), ("scales", "full", "model"), ("strategies", "A", "train", "lora"),
    ("strategies",),
)  # fmt: skip
SNIPPETS = tuple(
    text.encode("utf-8", "surrogatepass")
    for text in [
        *TEXTS, *EXPRESSIONS, "!!python/object/apply:os.system ['touch pwned']", "!!python/name:os.system", "!!binary aGk=",
        "!!set {a, b}", "!!omap [a: 1]",
        "&a [*a]", "*missing", "&x {a: *x}", "!!int abc", "!!float x", "!!bool maybe", "!!null 3", "!!map []", "!!timestamp x",
        "!<!x> y", "? [1, 2]\n: 3",
        "%YAML 9.9\n---\n", "\n---\na: 1\n", "\n...\n", "\t", "\ufeff", "[" * 500, "{" * 500, "- " * 500, "? " * 300, "'", '"',
        '"\\ud800"', '"\\0"',
        '"\\x1b[2J"', "|\n", ">-9\n", "9" * 5000, "1" + ":59" * 400, "0x" + "f" * 4000, "keep: 1\nkeep: 2\n", "<<: {a: 1}",
        "#", "\r", "\u2028", ": ", "\n\n  ",
    ]
)  # fmt: skip
BOMB = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9 if n else ['x'] * 9)}]" for n in range(12))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """config/ as it is, to which files are added."""
    root = tmp_path_factory.mktemp("config")
    for kind in ("studies", "claims", "recommended", "hardware"):
        (root / kind).mkdir()
        for path in (CONFIG / kind).glob("*.yaml"):
            (root / kind / path.name).write_bytes(path.read_bytes())
    return root


@pytest.fixture(scope="module", autouse=True)
def little_memory():
    """All inputs together."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_MEMORY


def as_yaml(content: object) -> bytes:
    return yaml.dump(content, Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")


def parsed(folder: Path, study: bytes, scale: str = "demo", name: str = "mine") -> Parsed | UserError:
    """What the workflow makes of a study file, through all that the rules ask of it before there is a job."""
    (folder / "studies" / f"{name}.yaml").write_bytes(study)
    load_recommended.cache_clear()
    found = used_or_refused(lambda: parse_studies({"studies": name, "scale": scale}, folder))
    if isinstance(found, Parsed):
        used_or_refused(lambda: check_usable(found, name))
    return found


def check_usable(found: Parsed, name: str) -> None:
    study = found.studies[name]
    assert found.runs[name]
    for run in list(found.runs[name].values())[:10]:
        settings = run.settings
        names = [run.id, run.base, *(part.id for leaf in settings.parts() for part in leaf.closure())]
        assert all(WILDCARD.fullmatch(each) for each in names)
        assert all(type(run.axes[axis]) is int and run.axes[axis] > 0 for axis in ("batch", "accumulation", "gpus"))
        paths = [*settings.weight_files().values(), *settings.outside()]
        assert not any(re.search(r"[\x00-\x1f{}]", path) for path in paths)
        assert [Path(path).exists() for path in paths]
        assert json.loads(canonical(run.training_view)) and fingerprint_of(run)
        assert settings.compute.threads * run.axes["gpus"] < 2**31 and settings.compute.mem_gib * 1024 < 2**31
    assert canonical({key: claim.model_dump(mode="json") for key, claim in found.claims[name].items()})
    # A job reads the study again, from JSON, and finds its run there.
    again = study_model(study.system).model_validate(json.loads(json.dumps(study.model_dump(mode="json"), allow_nan=False)))
    assert [run.id for run in expand(again, name)] == list(found.runs[name])


@st.composite
def studies(draw) -> tuple[bytes, str]:
    name = draw(st.sampled_from(list(STUDIES)))
    content = draw(mutated(load_yaml(STUDIES[name]), FAVOURED))
    return as_yaml(content), draw(st.sampled_from(["demo", "full"]))


@examples(110)
@given(studies())
def test_a_study_with_wrong_values_runs_or_is_refused_in_words(folder, study):
    parsed(folder, *study)


@examples(80)
@given(st.data(), st.sampled_from(list(STUDIES)), st.sampled_from(["demo", "full"]))
def test_a_study_with_wrong_bytes_runs_or_is_refused_in_words(folder, data, name, scale):
    parsed(folder, data.draw(corrupted(STUDIES[name].read_bytes(), SNIPPETS)), scale)


@examples(40)
@given(st.data(), st.sampled_from(["claims", "recommended"]), st.sampled_from(list(STUDIES)))
def test_what_a_study_is_held_against_may_be_anything_too(folder, data, kind, name):
    study = load_yaml(STUDIES[name])
    original = CONFIG / kind / f"{study[kind]}.yaml"
    broken = data.draw(st.one_of(mutated(load_yaml(original)).map(as_yaml), corrupted(original.read_bytes(), SNIPPETS)))
    (folder / kind / "mine.yaml").write_bytes(broken)
    parsed(folder, as_yaml({**study, kind: "mine"}))


@examples(40)
@given(st.data(), st.sampled_from(sorted(path.stem for path in (CONFIG / "hardware").glob("*.yaml"))))
def test_a_card_may_be_anything(folder, data, name):
    original = CONFIG / "hardware" / f"{name}.yaml"
    broken = data.draw(st.one_of(mutated(load_yaml(original)).map(as_yaml), corrupted(original.read_bytes(), SNIPPETS)))
    (folder / "hardware" / "mine.yaml").write_bytes(broken)
    load_card.cache_clear()
    try:
        used_or_refused(lambda: load_card("mine", folder / "hardware"))
    finally:
        (folder / "hardware" / "mine.yaml").unlink()


@examples(40)
@given(
    st.dictionaries(
        st.sampled_from(["sweep", "keep", "training", "scale", "studies", "attempt_oom", "model", "x"]),
        st.sampled_from(TEXTS),
        max_size=3,
    )
)
def test_the_command_line_may_say_anything(folder, config):
    used_or_refused(lambda: parse_studies({"studies": "vggt-eth3d", **config}, folder))


BASE = STUDIES["vggt-eth3d"].read_text()
BROKEN = {
    "a bomb of aliases": f"{BASE}\n{BOMB}\n",
    "a value that holds itself": f"{BASE}\nx: &x [*x]\n",
    "nested values": f"{BASE}\nx: {'[' * 3000}\n",
    "nested blocks": f"{BASE}\nx:\n  {'- ' * 3000}\n",
    "an object of Python": f"{BASE}\nx: !!python/object/apply:os.system ['touch pwned']\n",
    "a key twice": f"{BASE}\nkeep: []\nkeep: []\n",
    "a null byte": f"{BASE}\ntitle: 'a\0b'\n",
    "an escaped null byte": BASE.replace("data/eth3d", '"a\\0b"'),
    "half a character": BASE.replace("data/eth3d", '"\\ud800"'),
    "a long number": BASE.replace("epochs: 20", f"epochs: {'9' * 5000}"),
    "a number beyond all": BASE.replace("epochs: 20", "epochs: 1e999"),
    "a billion runs": BASE.replace("[4, 16, 64]", str(list(range(1, 1001)))).replace("[0, 1, 2]",
    str(list(range(1000)))).replace("[8, 4]", str(list(range(1, 1001)))),
    "too many runs": BASE.replace("keep: batch", "#").replace("[0, 1, 2]", str(list(range(4000)))),
    "includes that multiply": BASE.replace("baseline:",
    f"include: [{', '.join(f'{{batch: {n}}}' for n in range(100, 1500))}]\nbaseline:"),
    "a long list twice": BASE.replace("[0, 1, 2]", str([*range(19000), 5])),
    "an expression that calls": BASE.replace("keep: batch", "keep: __import__('os').system('touch pwned') or batch"),
    "an expression of dunders": BASE.replace("keep: batch", "keep: batch.__class__.__bases__ or batch"),
    "a giant power": BASE.replace("keep: batch", "keep: 9**9**9**9 == batch"),
    "an included run that cannot be": BASE.replace("baseline:", "include: [{batch: x}]\nbaseline:"),
    "an included run on too many cards": BASE.replace("baseline:", "include: [{gpus: 1000000}]\nbaseline:"),
    "a baseline that cannot be": BASE.replace("baseline: {strategy: A, rank: 16}", "baseline: {rank: -3}"),
    "braces in a path": BASE.replace("data/eth3d ", "data/{run} "),
    "a line end in a path": BASE.replace("data/eth3d ", '"data/a\\nb" '),
    "a name beyond what a disk takes": BASE.replace("data/eth3d ", "x" * 300 + " "),
    "a scene that leads away": BASE.replace("[facade,", "[../../etc,"),
    "claims that lead away": BASE.replace("claims: vggt-eth3d", "claims: ../studies/rdt-batch"),
    "a card that leads away": BASE.replace("hardware: rtx4090", "hardware: /etc/passwd"),
    "a system that is a list": BASE.replace("system: vggt", "system: [vggt]"),
    "a system of the library's": BASE.replace("system: vggt", "system: weights"),
    "demo: its part is a number": BASE[: BASE.index("  demo:\n")] + "  demo: 5\n",
    "demo: a network beyond all machines": BASE.replace("embed_dim: 96", "embed_dim: 1000000000"),
    "demo: blocks beyond all machines": BASE.replace("        depth: 4", "        depth: 1000000000"),
    "a file too large": BASE + "#" * LARGEST,
    "nothing": "",
    "a word": "vggt",
    "no text": "\ud800\ud800",
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_study_ends_with_one_message(folder, tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    found = parsed(folder, BROKEN[what].encode("utf-8", "surrogatepass"), "demo" if what.startswith("demo") else "full")
    assert isinstance(found, UserError) and not list(tmp_path.iterdir())
    assert len(str(found)) < 3000


def test_shards_are_no_bomb(folder):
    text = STUDIES["kolors-3x4090"].read_text().replace("shards: 3", "shards: 1000000000")
    assert "shards" in str(parsed(folder, text.encode(), "full"))


def test_the_message_of_a_sweep_names_what_makes_it_large(folder):
    error = str(parsed(folder, BROKEN["a billion runs"].encode(), "full"))
    assert f"{MOST_COMBINATIONS:,}" in error and "1000 rank" in error and "1000 seed" in error


def test_the_name_of_a_study_s_file_is_a_name(tmp_path):
    (tmp_path / "a;touch pwned.yaml").write_text(BASE)
    with pytest.raises(UserError, match="cannot be the name of a study"):
        find_studies("a;touch pwned", tmp_path)


def test_messages_can_be_shown_on_a_terminal():
    assert str(UserError("a\x1b[2Jb\u202ec\nd\té")) == "a\\x1b[2Jb\\u202ec\nd\té"
    assert len(readable("x" * 10**6)) < LONGEST + 50 and "990,000 more characters" in readable("x" * 10**6)
    check_readable(readable("".join(map(chr, range(0x3000))) + "\ud800"))


def test_levels_that_are_allowed_are_read(tmp_path):
    path = tmp_path / "deep.yaml"
    path.write_text(json.dumps({"x": nested(DEEPEST - 3)}))
    assert load_yaml(path) == {"x": nested(DEEPEST - 3)}
    path.write_text("a: &a {b: [1, 2]}\nc: *a\nd: [*a, *a]\n")
    assert load_yaml(path)["d"] == [{"b": [1, 2]}] * 2


def test_a_date_is_text(tmp_path):
    path = tmp_path / "date.yaml"
    path.write_text("title: 2026-11-22\n")
    assert load_yaml(path) == {"title": "2026-11-22"} and resolve_strings("2026-99-99") == "2026-99-99"
