"""A finished study packed, checked and brought back; archives that were changed, and those of strangers."""

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from finished_study import HIDDEN, LEFT, finished_study, table_of

from ablation.archive.pack import SUMS
from ablation.archive.unpack import put, rebuilt, unpacked
from ablation.errors import UserError
from ablation.files import digest
from ablation.manifest import settings_hash
from ablation.resolved import load_study
from ablation.yamlfile import load_yaml

SCRIPTS = ROOT / "scripts"
TEXTS = {".json", ".yaml", ".csv", ".md", ".txt", ".tex", ".html", ".svg"}


def program(name, *arguments, cwd):
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return finished_study(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def archive(study):
    done = program("archive_study.py", "--folder", "results/demo/s", cwd=study.parents[2])
    assert done.returncode == 0, done.stderr
    return study.parents[2] / "results/archives/s-demo.tar.gz"


@pytest.fixture(scope="module")
def restored(archive, tmp_path_factory):
    project = tmp_path_factory.mktemp("another")
    done = program("restore_study.py", archive, cwd=project)
    assert done.returncode == 0, done.stderr
    return project / "results/demo/s"


def members(archive):
    with tarfile.open(archive) as tar:
        return {member.name.partition("/")[2]: tar.extractfile(member).read() for member in tar}


def packed(path, files, sums=None, **kinds):
    """An archive by hand; ``sums``: the text of the checksums, by default the right ones; ``kinds``: of members."""
    right = "".join(f"{_digest(content)}  {name}\n" for name, content in files.items() if name != SUMS)
    files = {SUMS: (right if sums is None else sums).encode()} | {n: c for n, c in files.items() if n != SUMS}
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name if name.startswith(("/", "..")) else f"s-demo/{name}")
            member.size = len(content)
            for key, value in kinds.get(name, {}).items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return path


def _digest(content):
    return hashlib.sha256(content).hexdigest()


def refused(archive, tmp_path):
    """What is said of an archive, which leaves nothing behind."""
    beside = tmp_path / "beside"
    with pytest.raises(UserError) as error, unpacked(archive, beside):
        pass
    assert not list(beside.iterdir()) and {path.name for path in tmp_path.iterdir()} == {archive.name, "beside"}
    beside.rmdir()
    return str(error.value)


def test_what_is_restored_is_what_was_archived_and_its_report_comes_out_equal(study, restored):
    names = {path.relative_to(restored).as_posix() for path in restored.rglob("*") if path.is_file()}
    assert names >= {"report.html", "report.pdf", "runs.parquet", "study.json", SUMS, "ro-crate-metadata.json", "plan.csv"}
    for name in names:  # rebuilt is gone, because all was equal
        assert not name.startswith("rebuilt/") and not any(name.endswith(left) for left in LEFT)
    same = [name for name in names if name.startswith(("tables/", "figures/", "base/")) or "/adapter/" in name]
    assert len(same) >= 30 and all((study / name).read_bytes() == (restored / name).read_bytes() for name in same)
    done = subprocess.run(["sha256sum", "-c", "--strict", SUMS], cwd=restored, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == len(names) - 1, done.stderr


def test_the_restored_page_links_to_what_is_there_and_to_all_of_it(restored):
    page = (restored / "report.html").read_text()
    runs = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])["runs"]
    links = [link for run in runs for link in [*run["links"].values(), *run["pictures"]]]
    assert len(runs) == 2 and all((restored / link).exists() for link in links)
    first = restored / "runs" / runs[0]["id"]
    linked = {Path(link).name for link in runs[0]["links"].values()}
    assert {path.name for path in first.iterdir()} - {"pictures", "training.json"} == linked


def test_the_same_study_gives_the_same_bytes_from_anywhere(study, archive, tmp_path):
    moved = tmp_path / "a folder/elsewhere"
    moved.parent.mkdir()
    moved.symlink_to(study)
    done = program("archive_study.py", "--folder", moved, "--output", tmp_path / "second.tar.gz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert digest(archive) == digest(tmp_path / "second.tar.gz")
    with tarfile.open(archive) as tar:
        found = [(m.uid, m.gid, m.uname, m.gname, m.mode, m.isreg(), m.name.split("/")[0]) for m in tar]
    assert set(found) == {(0, 0, "", "", 0o644, True, "s-demo")}


def test_no_text_of_it_tells_where_things_were(study, archive, restored):
    assert HIDDEN in (study / "study.json").read_text() and HIDDEN in table_of(study)["reason"][0]
    files = members(archive)
    told = {
        name for name, content in files.items() if Path(name).suffix in TEXTS and b"/home/" in content.replace(b"\\/", b"/")
    }
    told |= {name for name in files if str(study.parents[2]) in name or b"secret data" in files[name]}
    assert told == set()
    table = table_of(restored)
    assert set(table["reason"]) == {"needs elsewhere/eth3d/hall"}
    assert table.drop(columns="reason").equals(table_of(study).drop(columns="reason"))
    for run in (restored / "runs").iterdir():  # it is still that of the run.yaml beside it
        told = json.loads((run / "manifest.json").read_text())["settings_sha256"]
        assert (
            told
            == settings_hash(load_yaml(run / "run.yaml"))
            != settings_hash(load_yaml(study / "runs" / run.name / "run.yaml"))
        )
    name, settings = load_study(restored / "study.json")  # still a study, which finds its data there
    assert name == "s" and settings.data.root == "elsewhere/eth3d"


def test_it_is_not_put_over_another_and_may_be_over_itself(archive, restored, tmp_path):
    with unpacked(archive, tmp_path) as folder:
        put(folder, restored)
    before = (restored / "plan.csv").read_text()
    (restored / "plan.csv").write_text(before + "\n")
    try:
        with unpacked(archive, tmp_path) as folder, pytest.raises(UserError) as error:
            put(folder, restored)
    finally:
        (restored / "plan.csv").write_text(before)
    assert str(error.value) == f"{restored}: is there already, with another plan.csv; move it away, then restore again"


@pytest.mark.parametrize("kind", ["study.json", "runs.parquet", "tables/main.csv", "figures/loss-curves.png", "report.html",
                                  "adapter_model.safetensors", "manifest.json", "ro-crate-metadata.json"])  # fmt: skip
def test_a_changed_byte_is_found_and_its_file_named(archive, tmp_path, kind):
    files = members(archive)
    name = next(name for name in files if name.endswith(kind))
    content = bytearray(files[name])
    content[len(content) // 2] ^= 1
    changed = packed(tmp_path / "changed.tar.gz", files | {name: bytes(content)}, files[SUMS].decode())
    assert f"{name} is not what was archived" in refused(changed, tmp_path)


def test_a_number_changed_with_its_checksum_is_found_in_the_report(archive, tmp_path):
    """As is a page that another version would draw otherwise: what was made again lies beside it."""
    files = members(archive)
    files["tables/main.csv"] = files["tables/main.csv"].replace(b"0.", b"1.", 1)
    files["report.html"] += b"<!-- of another version -->"
    packed(tmp_path / "a.tar.gz", files)
    done = program("restore_study.py", "a.tar.gz", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "results/demo/s: restored, but its report comes out otherwise (report.html, tables/main.csv)" in done.stderr
    restored = tmp_path / "results/demo/s"
    assert (restored / "rebuilt/tables/main.csv").read_bytes() == members(archive)["tables/main.csv"]
    assert (restored / "plan.csv").is_file()


def test_what_is_cut_off_or_no_archive_says_so(archive, tmp_path):
    whole = archive.read_bytes()
    path = tmp_path / "part.tar.gz"
    for content in (whole[: len(whole) // 2], whole[:-2000], whole[:2000] + b"\0" * 64 + whole[2064:], b"", b"junk" * 99):
        path.write_bytes(content)
        said = refused(path, tmp_path)
        assert said.startswith(f"{path}: ") and "\n" not in said
    path.unlink()
    with pytest.raises(UserError, match="there is no such archive"), unpacked(path, tmp_path):
        pass


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../outside", "a\\b", "a\x1bb"])
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    assert "is refused" in refused(packed(tmp_path / "a.tar.gz", {"study.json": b"{}", name: b"x"}), tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_what_is_no_plain_file_is_refused(tmp_path, kind):
    member = {"type": kind, "linkname": "../../outside", "size": 0}
    assert "is refused" in refused(packed(tmp_path / "a.tar.gz", {"study.json": b"{}", "link": b""}, link=member), tmp_path)


def test_files_beside_the_list_and_lists_beside_the_files(tmp_path):
    files = {"study.json": b"{}", "more": b"x"}
    known = f"{_digest(b'{}')}  study.json\n"
    assert "more stands in it twice, or is not in" in refused(packed(tmp_path / "a.tar.gz", files, known), tmp_path)
    missing = known + f"{_digest(b'x')}  gone\n"
    assert "gone is missing" in refused(packed(tmp_path / "a.tar.gz", {"study.json": b"{}"}, missing), tmp_path)
    assert "no list of checksums" in refused(packed(tmp_path / "a.tar.gz", files, "junk"), tmp_path)
    assert "holds no study" in refused(packed(tmp_path / "a.tar.gz", {"study.json": b"{}"}), tmp_path)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("s-demo/study.json"))
    assert f"does not begin with {SUMS}" in refused(tmp_path / "a.tar.gz", tmp_path)


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"name": "../x", "study": {"scale": "demo"}}', b'{"name": "x", "study": {"scale": ".."}}']
)
def test_a_study_with_a_name_of_its_own_is_refused(archive, tmp_path, content):
    assert "study.json: is no" in refused(packed(tmp_path / "a.tar.gz", members(archive) | {"study.json": content}), tmp_path)


@pytest.mark.parametrize("wrong", ["study.json", "runs.parquet"])
def test_a_study_that_is_none_has_no_report(archive, tmp_path, wrong):
    files = members(archive)
    files["study.json"] = (
        b'{"name": "x", "study": {"scale": "demo", "system": "vggt"}}' if wrong == "study.json" else files["study.json"]
    )
    files["runs.parquet"] = (
        pd.DataFrame({"run": ["a"]}).to_parquet(index=False) if wrong == "runs.parquet" else files["runs.parquet"]
    )
    changed = packed(tmp_path / "a.tar.gz", files)
    with (
        unpacked(changed, tmp_path) as folder,
        pytest.raises(UserError, match=r"strategies: is missing|its report cannot be made"),
    ):
        rebuilt(folder)


def test_runs_whose_names_are_paths_are_refused(archive, study, tmp_path):
    table = table_of(study)
    content = table.assign(run=["../../../../etc", *table["run"][1:]]).to_parquet(index=False)
    changed = packed(tmp_path / "a.tar.gz", members(archive) | {"runs.parquet": content})
    assert "is the name of no run" in refused(changed, tmp_path)


def test_what_is_not_finished_or_not_of_these_runs_is_not_archived(study, tmp_path):
    done = program("archive_study.py", "--folder", tmp_path / "results/demo/none", cwd=tmp_path)
    assert done.returncode == 2 and "has no report yet; run the workflow first" in done.stderr
    table = study / "tables/main.csv"
    before = table.read_text()
    table.write_text(before.replace("0.", "1.", 1))
    try:
        done = program("archive_study.py", "--folder", study, "--output", tmp_path / "a.tar.gz", cwd=tmp_path)
    finally:
        table.write_text(before)
    assert done.returncode == 2 and "tables/main.csv: is not what runs.parquet gives" in done.stderr
    assert not (tmp_path / "a.tar.gz").exists()
