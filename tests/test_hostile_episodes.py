"""Recorded episodes may be anybody's: used right, or named in one message."""

import json
from pathlib import Path

import h5py
import pytest
from episodes import write_episode
from hostile import check_readable, corrupted, examples, mutated, used_or_refused
from hypothesis import given
from hypothesis import strategies as st

from ablation.errors import UserError
from ablation.systems.rdt.data.episode import INSTRUCTIONS, Episode, Fault
from ablation.systems.rdt.data.episode import examine as examine_episode
from ablation.systems.rdt.data.episodes import find_episodes
from ablation.systems.rdt.settings import Data

pytestmark = pytest.mark.usefixtures("root")

SMALL = Data(min_steps=4, text_length=100, image_size=16)


def found_or_fault(root: Path, path: Path) -> Episode | Fault:
    found = used_or_refused(lambda: examine_episode(root, path, SMALL))
    assert isinstance(found, Episode | Fault)
    if isinstance(found, Fault):
        check_readable(str(UserError(str(found))))
    return found


@examples(42)
@given(st.data(), st.sampled_from(["files", "raw", "padded", "strings"]))
def test_a_damaged_episode_is_used_or_named(root, data, stored):
    good = root / f"good-{stored}.hdf5"
    if not good.is_file():
        write_episode(good, steps=6, still=2, stored=stored)
    path = root / "episodes" / "a.hdf5"
    path.parent.mkdir(exist_ok=True)
    (path.parent / INSTRUCTIONS).write_bytes((root / INSTRUCTIONS).read_bytes())
    path.write_bytes(data.draw(corrupted(good.read_bytes(), at_start=3000)))
    found_or_fault(path.parent, path)


@examples(36)
@given(st.data())
def test_what_is_told_of_an_episode_may_be_anything(root, data):
    path = root / "told" / "a.hdf5"
    if not path.is_file():
        write_episode(path, steps=6, still=2)
    told = json.dumps(data.draw(mutated({"instruction": "a", "simplified_instruction": ["b"], "expanded_instruction": ["c"]})))
    (path.parent / INSTRUCTIONS).write_text(told)
    found_or_fault(path.parent, path)


def _elsewhere(file: h5py.File, root: Path) -> None:
    del file["action"]
    file["action"] = h5py.ExternalLink(str(root / "secret.hdf5"), "/action")


def _raw(file: h5py.File, root: Path) -> None:
    del file["action"]
    file.create_dataset("action", (6, 14), "f4", external=[("/etc/passwd", 0, 6 * 14 * 4)])


def _virtual(file: h5py.File, root: Path) -> None:
    del file["action"]
    layout = h5py.VirtualLayout((6, 14), "f4")
    layout[:] = h5py.VirtualSource(str(root / "secret.hdf5"), "action", (6, 14))
    file.create_virtual_dataset("action", layout)


def _endless(file: h5py.File, root: Path) -> None:
    del file["action"], file["observations/qpos"]
    for name in ("action", "observations/qpos"):
        file.create_dataset(name, (2**40, 14), "f4", chunks=(1024, 14), compression="gzip")


def _huge(file: h5py.File, root: Path) -> None:
    del file["observations/images/cam_high"]
    file.create_dataset("observations/images/cam_high", (6, 2**20, 2**20, 3), "u1", chunks=(1, 64, 64, 3), compression="gzip")


def _packed(file: h5py.File, root: Path) -> None:
    """Half a gigabyte of zeros to unpack for each image, in half a megabyte."""
    del file["observations/images/cam_high"]
    name = "observations/images/cam_high"
    file.create_dataset(name, (6, 4, 4, 3), "u1", chunks=(2**23, 4, 4, 3), maxshape=(None, 4, 4, 3), compression="gzip")


def _circle(file: h5py.File, root: Path) -> None:
    del file["observations/qpos"]
    file["observations/qpos"] = h5py.SoftLink("/observations/qpos")


def _references(file: h5py.File, root: Path) -> None:
    del file["observations/images/cam_high"]
    file.create_dataset("observations/images/cam_high", (6,), h5py.ref_dtype)


@pytest.mark.parametrize("harm", [_elsewhere, _raw, _virtual, _endless, _huge, _packed, _circle, _references])
def test_an_episode_reads_no_other_file_and_unpacks_to_what_it_may(tmp_path, harm):
    write_episode(tmp_path / "secret.hdf5", steps=6, still=2)
    path = write_episode(tmp_path / "in" / "a.hdf5", steps=6, still=2)
    with h5py.File(path, "a") as file:
        harm(file, tmp_path)
    assert isinstance(found_or_fault(path.parent, path), Fault)
    with pytest.raises(UserError, match=r"a\.hdf5"):
        find_episodes(path.parent, SMALL)


def test_an_episode_that_is_a_link_to_elsewhere_is_named(tmp_path):
    secret = write_episode(tmp_path / "secret.hdf5", steps=6, still=2)
    path = write_episode(tmp_path / "in" / "a.hdf5", steps=6, still=2)
    path.unlink()
    path.symlink_to(secret)
    assert "leads out" in str(found_or_fault(path.parent, path))
