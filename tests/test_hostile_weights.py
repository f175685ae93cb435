"""Weights, adapters and released folders may be anybody's: they fill a network or are refused. No pickle runs."""

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hostile import corrupted, examples, mutated, used_or_refused
from hostile_files import Bang
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from ablation.errors import UserError
from ablation.settings import LoraSettings
from ablation.study import Strategy
from ablation.systems.kolors.data.tokens import Tokenizer
from ablation.systems.released import load_frozen, read_config
from ablation.systems.weights import fill_strictly, load_strictly, read_weights
from ablation.training.strategy import ADAPTER, apply_strategy, load_trained, save_trained, trained_of

pytestmark = pytest.mark.usefixtures("root")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))


@pytest.fixture(scope="module")
def saved(root) -> dict[str, bytes]:
    """A small network's weights in both forms."""
    save_file(network().state_dict(), root / "good.safetensors")
    torch.save(network().state_dict(), root / "good.bin")
    return {suffix: (root / f"good{suffix}").read_bytes() for suffix in (".safetensors", ".bin")}


@examples(90)
@given(st.data(), st.sampled_from([".safetensors", ".bin"]))
def test_damaged_weights_fill_a_network_or_are_refused(root, saved, data, suffix):
    path = root / f"weights{suffix}"
    path.write_bytes(data.draw(corrupted(saved[suffix], at_start=400)))
    found = used_or_refused(lambda: load_strictly(network(), path, "get it there"))
    assert found is None or str(path) in str(found)


@examples(36)
@given(st.data())
def test_a_safetensors_head_may_say_anything(root, saved, data):
    whole = saved[".safetensors"]
    (length,) = struct.unpack_from("<Q", whole)
    head = json.loads(whole[8 : 8 + length])
    said = json.dumps(
        data.draw(mutated(head, tuple((name, key) for name in head for key in ("dtype", "shape", "data_offsets"))))
    ).encode()
    path = root / "head.safetensors"
    path.write_bytes(struct.pack("<Q", len(said)) + said + whole[8 + length :])
    found = used_or_refused(lambda: load_strictly(network(), path, "get it there"))
    assert found is None or str(path) in str(found)


def _pickled(value: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    def write(path: Path, bang: Path) -> None:
        path.write_bytes(pickle.dumps(value(bang)))

    return write


def _in_archive(value: Callable[[Path], object], pack: int = zipfile.ZIP_STORED) -> Callable[[Path, Path], None]:
    def write(path: Path, bang: Path) -> None:
        with zipfile.ZipFile(path, "w", pack) as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(value(bang), 2))
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")

    return write


def _script(path: Path, bang: Path) -> None:
    torch.jit.script(network()).save(str(path))


def _tensors(change: Callable[[dict], object]) -> Callable[[Path, Path], None]:
    def write(path: Path, bang: Path) -> None:
        torch.save(change(network().state_dict()), path)

    return write


ODD = {
    "a pickle that runs": _pickled(Bang),
    "a pickle that runs among tensors": _in_archive(lambda bang: {"0.weight": Bang(bang)}),
    "a pickle that makes room": _in_archive(lambda bang: {"a": bytearray(10**6)}, zipfile.ZIP_DEFLATED),
    "a packed bomb": _in_archive(lambda bang: b"\0" * 10**8, zipfile.ZIP_DEFLATED),
    "TorchScript": _script,
    "names that are numbers": _tensors(lambda state: dict(enumerate(state.values()))),
    "a list": _tensors(lambda state: list(state)),
    "sparse numbers": _tensors(lambda state: {name: value.to_sparse() for name, value in state.items()}),
    "complex numbers": _tensors(lambda state: {name: value.to(torch.complex64) for name, value in state.items()}),
    "promises": _tensors(lambda state: {name: value.to("meta") for name, value in state.items()}),
    "a tensor as large as a name can say": _tensors(lambda state: {**state, "0.weight": torch.zeros(1).expand(2**20, 2**20)}),
    "nothing": lambda path, bang: path.write_bytes(b""),
    "an archive of nothing": lambda path, bang: zipfile.ZipFile(path, "w").close(),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_weights_are_refused_and_run_nothing(tmp_path, what):
    path, bang = tmp_path / "model.bin", tmp_path / "bang"
    ODD[what](path, bang)
    with pytest.raises(UserError, match=r"model\.bin"):
        fill_strictly(network(), read_weights(path, "get it there"), str(path))
    assert not bang.exists()


@pytest.fixture(scope="module")
def run(root) -> Path:
    """The folder of a run with its adapter."""
    strategy = Strategy(train={"lora": ["*"]}, lr=1)
    folder = root / "run"
    folder.mkdir()
    adapted = apply_strategy(network(), strategy, 2, LoraSettings())
    save_trained(adapted, trained_of(adapted), folder)
    return folder


FOLLOWED = {
    "auto_mapping": {"parent_library": "antigravity", "base_model_class": "x"},
    "base_model_name_or_path": "/etc",
    "revision": "main",
}
REFUSED = {
    "megatron_core": "antigravity",
    "megatron_config": {"x": 1},
    "peft_type": "PREFIX_TUNING",
    "modules_to_save": ["0"],
    "target_modules": "((a+)+)+$",
    "target_parameters": ["0"],
    "layers_pattern": "((a+)+)+$",
    "layer_replication": [[0, 10**9]],
    "rank_pattern": {".*": 10**9},
    "init_lora_weights": "eva",
    "use_dora": True,
    "r": 10**9,
    "lora_alpha": float("nan"),
    "lora_dropout": -1,
    "bias": "all",
    "unheard_of": 1,
}


def changed(run: Path, target: Path, **said: object) -> Path:
    """A copy of the run whose adapter says something else."""
    (target / ADAPTER).mkdir(parents=True, exist_ok=True)
    for path in (run / ADAPTER).iterdir():
        (target / ADAPTER / path.name).write_bytes(path.read_bytes())
    described = target / ADAPTER / "adapter_config.json"
    described.write_text(json.dumps({**json.loads(described.read_text()), **said}))
    return target


@pytest.mark.parametrize("key", REFUSED)
def test_an_adapter_that_wants_more_than_lora_is_refused(run, tmp_path, key):
    with pytest.raises(UserError, match="adapter"):
        load_trained(network(), changed(run, tmp_path, **{key: REFUSED[key]}))


@pytest.mark.parametrize("key", FOLLOWED)
def test_what_an_adapter_says_of_other_places_is_not_followed(run, tmp_path, key, monkeypatch):
    monkeypatch.setattr("importlib.import_module", lambda *names: pytest.fail(f"imports {names}"))
    inputs = torch.ones(1, 4)
    with torch.no_grad():
        assert torch.equal(
            load_trained(network(), changed(run, tmp_path, **{key: FOLLOWED[key]})).eval()(inputs),
            load_trained(network(), run).eval()(inputs),
        )


@examples(36)
@given(st.data())
def test_an_adapter_may_say_anything(run, root, data):
    described = json.loads((run / ADAPTER / "adapter_config.json").read_text())
    folder = changed(run, root / "changed")
    (folder / ADAPTER / "adapter_config.json").write_text(json.dumps(data.draw(mutated(described))))
    used_or_refused(lambda: load_trained(network(), folder))


@examples(20)
@given(st.data())
def test_the_weights_of_an_adapter_may_be_anything(run, root, data):
    folder = changed(run, root / "hurt")
    path = folder / ADAPTER / "adapter_model.safetensors"
    path.write_bytes(data.draw(corrupted((run / ADAPTER / path.name).read_bytes(), at_start=400)))
    used_or_refused(lambda: load_trained(network(), folder))


def test_an_adapter_s_pickle_is_not_opened(run, tmp_path):
    folder, bang = changed(run, tmp_path / "run"), tmp_path / "bang"
    (folder / ADAPTER / "adapter_model.safetensors").unlink()
    (folder / ADAPTER / "adapter_model.bin").write_bytes(pickle.dumps(Bang(bang)))
    with pytest.raises(UserError, match=r"adapter_model\.safetensors"):
        load_trained(network(), folder)
    assert not bang.exists()


def test_weights_trained_in_full_fit_or_are_refused(tmp_path):
    save_file({"0.weight": torch.ones(9, 9)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="another model"):
        load_trained(network(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_trained(network(), tmp_path)


VAE = Path(__file__).parent.parent / "resources/dit-demo-vae"


def released(folder: Path, **said: object) -> Path:
    folder.mkdir(exist_ok=True)
    for path in VAE.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "config.json").write_text(json.dumps({**json.loads((VAE / "config.json").read_text()), **said}))
    return folder


def frozen(folder: Path) -> nn.Module:
    from diffusers import AutoencoderKL

    return load_frozen(AutoencoderKL, folder, "get it there", use_safetensors=True, low_cpu_mem_usage=False)


@pytest.mark.parametrize(
    "said",
    [
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"layers_per_block": 10**9},
        {"block_out_channels": [10**30]},
        {"block_out_channels": []},
        {"down_block_types": ["__import__"]},
        {"norm_num_groups": 0},
        {"latent_channels": "x"},
    ],
)
def test_a_description_that_no_network_fits_is_refused(tmp_path, said):
    with pytest.raises(UserError, match="vae"):
        frozen(released(tmp_path / "vae", **said))


def test_a_released_folder_leads_nowhere_else(tmp_path):
    folder = released(tmp_path / "vae")
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret.safetensors"}}')
    with pytest.raises(UserError, match="index"):
        frozen(folder)
    folder = released(tmp_path / "other")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere"}')
    with pytest.raises(UserError, match="adapter"):
        frozen(folder)
    folder, bang = released(tmp_path / "third"), tmp_path / "bang"
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Bang(bang)))
    with pytest.raises(UserError, match="third"):
        frozen(folder)
    assert not bang.exists()


@examples(60)
@given(st.data())
def test_a_description_may_be_anything(root, data):
    folder = root / "described"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(data.draw(mutated(json.loads((VAE / "config.json").read_text())))))
    used_or_refused(lambda: read_config(folder, "get it there"))


@examples(24)
@given(st.data())
def test_a_damaged_tokenizer_is_read_or_refused(root, data):
    folder = root / "tokenizer"
    folder.mkdir(exist_ok=True)
    whole = (VAE.parent / "kolors-demo/tokenizer/tokenizer.model").read_bytes()
    (folder / "tokenizer.model").write_bytes(data.draw(corrupted(whole, at_start=300)))
    used_or_refused(lambda: Tokenizer(folder))
