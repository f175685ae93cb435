"""Memory has an end: that of the study's card, on whatever device. Reaching it is told from every other error, and recorded."""

from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from ablation.hardware import load_card
from ablation.vram.budget import CONTEXT_GIB, GIB, Budget, allocator_gib, hold_to_card
from ablation.vram.live import LiveTensors
from ablation.vram.measure import CpuMeter, make_meter
from ablation.vram.oom import is_out_of_memory, out_of_memory, stated_gib

MIB = 2**20
CARD = load_card("rtx4090", ROOT / "config/hardware")
# As users have met them; the last sentence is left off.
ALLOCATOR = (
    "CUDA out of memory. Tried to allocate 550.00 MiB. GPU 0 has a total capacity of 23.64 GiB of which 319.38 MiB is free."
    " Including non-PyTorch memory, this process has 22.88 GiB memory in use. Of the allocated memory 19.75 GiB is allocated"
    " by PyTorch, and 999.90 MiB is reserved by PyTorch but unallocated."
)
CAPPED = (
    "CUDA out of memory. Tried to allocate 32.00 KiB. GPU 0 has a total capacity of 139.80 GiB of which 116.64 GiB is free."
    " 23.14 GiB allowed; Of the allocated memory 22.01 GiB is allocated by PyTorch, with 17.00 MiB allocated in private pools"
    " (e.g., CUDA Graphs), and 1.05 GiB is reserved by PyTorch but unallocated."
)
CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
DRIVER = "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"


# --- which errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(ALLOCATOR),
        torch.OutOfMemoryError("CPU out of memory."),
        torch.AcceleratorError(DRIVER),
        RuntimeError(DRIVER),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError(CUBLAS),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    ],
)
def test_out_of_memory_in_every_voice(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
        RuntimeError(f"Caught AcceleratorError in pin memory thread for device 0.\nOriginal Traceback ...\n{DRIVER}"),
        ValueError("CUDA out of memory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_other_errors_are_no_result(error):
    assert not is_out_of_memory(error)


def test_the_host_s_memory_is_not_the_device_s():
    with pytest.raises(RuntimeError, match="can't allocate memory") as caught:
        torch.empty(2**50)
    assert not is_out_of_memory(caught.value)


# --- what the message says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "gib"),
    [
        ("Tried to allocate 20.00 MiB.", 20 / 1024),
        ("Tried to allocate 1.50 GiB. GPU 0", 1.5),
        ("Tried to allocate 1024.00 KiB (GPU 0; 11.17 GiB total capacity;", 1 / 1024),
        ("Tried to allocate 512 bytes.", 512 / GIB),
        ("Tried to allocate 125537.24 GiB.", 125537.24),
        ("Tried to allocate 20.00 MB.", None),
        ("Tried to allocate 20.00 MiBs", None),
        ("Tried to allocate -1 GiB", None),
        ("Tried to allocate some memory, 3.00 GiB", None),
        (CUBLAS, None),
        ("", None),
    ],
)
def test_requested_size_is_read_strictly(text, gib):
    assert stated_gib("Tried to allocate {}", text) == pytest.approx(gib)


def meter_at(phase, budget=None):
    meter = CpuMeter(budget or Budget("rtx4090", 23.14, emulated=True))
    meter.mark(phase)
    return meter


@pytest.mark.parametrize(
    ("message", "requested", "allocated", "reserved"),
    [
        (ALLOCATOR, 550 / 1024, 19.75, 19.75 + 999.9 / 1024),
        (CAPPED, 32 / 1024**2, 22.01, 22.01 + 1.05),
        (CUBLAS, None, None, None),
    ],
)
def test_record_of_a_message(message, requested, allocated, reserved):
    record = out_of_memory(torch.OutOfMemoryError(f"{message}\nmore"), meter_at("backward"), 7)
    numbers = [record.pop(f"{name}_gib") for name in ("requested", "allocated", "reserved")]
    assert numbers == [pytest.approx(value) for value in (requested, allocated, reserved)]
    assert record == {"phase": "backward", "step": 7, "budget_gib": 23.14, "emulated": True, "message": message}


def test_an_error_without_words_is_recorded_as_well():
    assert out_of_memory(torch.OutOfMemoryError(), meter_at("load"), None)["message"] == ""


# --- the budget ------------------------------------------------------------------------------------------------------


def test_budget_of_a_card_leaves_room_for_the_context():
    assert allocator_gib(CARD) == CARD.usable_gib - CONTEXT_GIB
    budget = hold_to_card("rtx4090", CARD, torch.device("cpu"))
    assert budget == Budget("rtx4090", allocator_gib(CARD), emulated=True) and str(budget) == "23.14 GiB (emulated rtx4090)"
    assert CpuMeter(budget).report().items() >= {"card": "rtx4090", "budget_gib": allocator_gib(CARD), "emulated": True}.items()


@pytest.mark.parametrize(
    ("device_gib", "held_gib", "emulated"),
    [(139.8, 23.14, True), (24.5, 23.14, True), (24.3, 23.8, False), (23.52, 23.02, False), (15.6, 15.1, False)],
)
def test_which_devices_are_capped_and_to_what(monkeypatch, device_gib, held_gib, emulated):
    """The decision and its arithmetic; that PyTorch obeys is for the tests on a GPU."""
    fractions = []
    device = SimpleNamespace(total_memory=int(device_gib * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *told: fractions.append(told))
    budget = hold_to_card("rtx4090", CARD, torch.device("cuda"))
    assert budget == Budget("rtx4090", pytest.approx(held_gib, abs=1e-6), emulated)
    assert fractions == ([(pytest.approx(23.14 / device_gib), None)] if emulated else [])


@pytest.mark.parametrize(
    ("device_gib", "share_gib", "card_gib", "limit_gib", "emulated"),
    [(23.64, 8.0, 23.14, 7.5, False), (139.8, 8.0, 23.14, 7.5, True), (139.8, 60.0, 23.14, 23.14, True)],
)
def test_a_share_is_a_cap_below_the_card_s_budget(monkeypatch, device_gib, share_gib, card_gib, limit_gib, emulated):
    fractions = []
    device = SimpleNamespace(total_memory=int(device_gib * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *told: fractions.append(told))
    budget = hold_to_card("rtx4090", CARD, torch.device("cuda"), share_gib)
    assert fractions == [(pytest.approx(limit_gib / device_gib), None)] and budget.emulated == emulated
    assert budget.report()["budget_gib"] == pytest.approx(card_gib), "what the run may hold where it is alone"
    on_cpu = CpuMeter(hold_to_card("rtx4090", CARD, torch.device("cpu"), 1.0))
    on_cpu.watch_load([torch.empty(GIB // 2, dtype=torch.uint8)])
    with pytest.raises(torch.OutOfMemoryError):
        on_cpu.watch_load([torch.empty(GIB // 2 + 1, dtype=torch.uint8)])


def test_live_tensors_stop_at_the_limit():
    kept = torch.zeros(MIB // 4)
    with LiveTensors([kept], limit=3 * MIB) as live:
        first = kept + 1
        second = first + 1  # 3 MiB: exactly the limit
        with pytest.raises(
            torch.OutOfMemoryError, match=r"allocate 0.0039 MiB. The budget is 3.0000 MiB. .* 3.0000 MiB is all"
        ):
            torch.zeros(1024)
        del second
        third = first * 2  # what was let go can be had again
        assert third.nbytes == MIB and live.current == live.peak == 3 * MIB
    with pytest.raises(torch.OutOfMemoryError):
        LiveTensors([kept], limit=MIB - 1)


def two_steps(model, meter):
    for _ in range(2):
        meter.mark("forward")
        loss = model(torch.ones(256, 512)).square().sum()
        meter.mark("backward")
        loss.backward()
        meter.mark("optimizer")
        model.zero_grad()
        meter.watch_step(model.parameters())


def network():
    return nn.Sequential(*[nn.Linear(512, 512) for _ in range(4)])


def test_a_cpu_run_ends_in_the_phase_that_needs_too_much():
    """The budget lies between the peaks of two phases: forward still fits, backward does not."""
    free = meter_at(None)
    two_steps(network(), free)
    peaks = {name: peak["allocated_gib"] for name, peak in free.report()["phases"].items()}
    assert peaks["forward"] < peaks["backward"]
    for phase, limit in {"forward": 0.9 * peaks["forward"], "backward": (peaks["forward"] + peaks["backward"]) / 2}.items():
        meter = meter_at(None, Budget("small", limit, emulated=True))
        with pytest.raises(torch.OutOfMemoryError) as caught:
            two_steps(network(), meter)
        record = out_of_memory(caught.value, meter, 2)
        assert record["phase"] == phase and record["allocated_gib"] <= limit < record["allocated_gib"] + record["requested_gib"]
        assert record["budget_gib"] == limit and record["reserved_gib"] is None
        report = meter.report()
        assert report["peak_allocated_gib"] <= limit and phase in report["phases"]
        assert _get_current_dispatch_mode_stack() == []  # counting has ended, and refuses nothing any more


def test_weights_above_the_budget_do_not_load():
    meter = meter_at("load", Budget("small", 1.0 / 1024, emulated=True))
    with pytest.raises(torch.OutOfMemoryError) as caught:
        meter.watch_load(network().parameters())
    assert out_of_memory(caught.value, meter, None)["phase"] == "load"


# --- on a GPU --------------------------------------------------------------------------------------------------------


def fill(device, block):
    """Allocate blocks of ``block`` bytes until there is no memory left; the error, and how many there were."""
    blocks, error = [], None
    try:
        while True:
            blocks.append(torch.empty(block, dtype=torch.uint8, device=device))
    except torch.OutOfMemoryError as full:
        error = full
    return error, len(blocks), torch.cuda.memory_reserved(device)


@pytest.mark.gpu
def test_a_larger_gpu_is_held_to_the_card(gpu):
    card = CARD.model_copy(update={"usable_gib": 2.0})
    budget = hold_to_card("small", card, gpu)
    assert budget == Budget("small", 1.5, emulated=True)
    before = torch.cuda.memory_allocated(gpu)
    meter = make_meter(gpu, budget)
    meter.mark("backward")
    error, blocks, reserved = fill(gpu, 64 * MIB)
    record = out_of_memory(error, meter, 3)
    assert 1.5 * GIB - 65 * MIB < reserved <= 1.5 * GIB
    assert record["phase"] == "backward" and record["step"] == 3 and record["emulated"] and record["budget_gib"] == 1.5
    assert record["requested_gib"] == pytest.approx(64 / 1024, rel=0.01)
    assert record["allocated_gib"] == pytest.approx((before + blocks * 64 * MIB) / GIB, abs=0.01)
    assert record["allocated_gib"] <= record["reserved_gib"] + 0.01 and record["reserved_gib"] <= 1.51
    assert record["message"].startswith("CUDA out of memory")


@pytest.mark.gpu
@pytest.mark.parametrize("size", [1.0, 0.98, 1.5])
def test_a_gpu_of_the_card_s_size_or_smaller_is_not_capped(gpu, size):
    """The card has ``size`` times the memory of the device: as much, less by what drivers differ in, or more."""
    total = torch.cuda.get_device_properties(gpu).total_memory / GIB
    budget = hold_to_card("as large", CARD.model_copy(update={"usable_gib": size * total}), gpu)
    assert budget == Budget("as large", total - CONTEXT_GIB, emulated=False)
    assert torch.cuda.get_per_process_memory_fraction(gpu.index) == 1.0


@pytest.mark.gpu
def test_what_the_message_does_not_state_is_asked_of_the_allocator(gpu):
    meter = make_meter(gpu, hold_to_card("rtx4090", CARD, gpu))
    held = torch.empty(128 * MIB, dtype=torch.uint8, device=gpu)
    record = out_of_memory(RuntimeError(CUBLAS), meter, 1)
    assert record["requested_gib"] is None and held.nbytes / GIB <= record["allocated_gib"] <= record["reserved_gib"]
