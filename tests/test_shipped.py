"""What the workflow brings to a folder that is not its own: files of the user come first, nothing of theirs is replaced."""

from pathlib import Path

from conftest import ROOT

from ablation.hardware import load_card, load_cards
from ablation.shipped import bring, config_files, own_or_shipped
from ablation.yamlfile import dump_yaml, load_yaml

WEIGHTS = "resources/vggt-demo.safetensors"


def test_a_card_of_the_same_name_takes_the_place_of_the_workflow_s(tmp_path):
    folder = tmp_path / "config/hardware"
    assert load_cards(folder) == load_cards(ROOT / "config/hardware")  # where the user has none
    folder.mkdir(parents=True)
    (folder / "rtx4090.yaml").write_text(dump_yaml({**load_yaml(ROOT / "config/hardware/rtx4090.yaml"), "usable_gib": 20.0}))
    load_card.cache_clear()
    assert load_card("rtx4090", folder).usable_gib == 20 and load_card("l40s", folder).usable_gib > 40
    assert config_files(folder)["rtx4090"].parent == folder and list(config_files(folder)) == sorted(config_files(folder))


def test_resources_are_copied_where_they_are_not_and_nothing_else_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert own_or_shipped(Path("config/config.yaml")) == ROOT / "config/config.yaml"
    asked = [WEIGHTS, "resources/digits", "resources/nothing", "resources/../README.md", "config/config.yaml", "/etc/hostname"]
    assert bring(asked) == ["resources/digits", WEIGHTS] and bring(asked) == []
    for name in (WEIGHTS, "resources/digits/digits.csv.gz"):
        assert Path(name).read_bytes() == (ROOT / name).read_bytes()
        assert Path(name).stat().st_mtime == (ROOT / name).stat().st_mtime
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resources"]
    Path(WEIGHTS).write_text("mine")
    assert bring([WEIGHTS]) == [] and Path(WEIGHTS).read_text() == "mine"
