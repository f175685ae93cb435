"""Records, what they say of the predictor, and that the page and the margin follow from them."""

import json

import pytest
from conftest import ROOT
from write_vram_table import PAGE, RECORDS

from ablation.errors import UserError
from ablation.vram.margin import MARGIN
from ablation.vram.records import case, counted, errors_of, margin, on_gpus, read_records
from ablation.vram.records_page import page


def record(cases, measures="reserved"):
    return {"gpu": "a GPU", "source": "here", "task": "a task", "measures": measures, "cases": cases}


def test_the_margin_is_that_of_the_records():
    found = margin(on_gpus(read_records(RECORDS).values()))
    assert found == MARGIN, "set MARGIN in scripts/ablation/vram/margin.py, then run `make vram-table`"


def test_the_page_is_up_to_date():
    assert (ROOT / PAGE).read_text() == page(read_records(RECORDS)), "run `make vram-table`"


def test_an_error_is_in_percent_of_what_was_measured():
    assert case("a", 1.1, 1.0)["error_percent"] == pytest.approx(10)
    assert case("a", 0.9, 1.0)["error_percent"] == pytest.approx(-10)
    assert case("a", 30, None, outcome="oom")["error_percent"] is None


def test_only_runs_that_ended_on_a_whole_gpu_count():
    real = [case("a", 1.01, 1), case("b", 9, None, outcome="oom"), case("c", 2, 1, emulated=True)]
    assert [found["name"] for found in counted(record(real))] == ["a"]
    assert len(on_gpus([record(real), record([case("d", 2, 1)], measures="allocated")])) == 1


def test_the_margin_covers_95_percent_and_is_rounded_up():
    cases = [case(str(n), 1 + n / 100, 1) for n in range(101)]  # errors of 0 to 100 %
    assert errors_of(cases).p95 == pytest.approx(95) and margin(cases) == 0.95
    assert margin([case("a", 1.0201, 1)]) == 0.021
    with pytest.raises(UserError, match="no record"):
        margin([])


@pytest.mark.parametrize("text", ["{", "{}", json.dumps({"cases": [{"name": "a"}]})])
def test_what_is_no_record_is_named(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(UserError, match=r"bad\.json"):
        read_records(tmp_path)


def test_the_page_shows_every_case():
    text = page({"one": record([case("fast", 1.01, 1), case("large", 30, None, outcome="oom", emulated=True)])})
    assert "| fast | 1.010 | 1.000 | +1.00 % | completed |" in text
    assert "| large | 30.000 | – | – | OOM, emulated card |" in text
    assert "| one | a GPU | 1 | 1.00 % |" in text
