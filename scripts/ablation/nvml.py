"""NVIDIA's management library, where there is one; None or nothing where not."""

import os
from functools import cache

import pynvml


@cache
def _started() -> bool:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    return True


def gpu_uuids() -> list[str]:
    """UUIDs of the GPUs of this machine, in NVML's order."""
    if not _started():
        return []
    return [_text(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(i))) for i in range(pynvml.nvmlDeviceGetCount())]


def uuid_of(name: str) -> str:
    """The UUID of a GPU that CUDA_VISIBLE_DEVICES names by number; other names are left as they are."""
    uuids = gpu_uuids()
    return uuids[int(name)] if name.isdigit() and int(name) < len(uuids) else name


def gpu_name(uuid: str) -> str | None:
    """The maker's name of a GPU."""
    return _ask(uuid, lambda handle: _text(pynvml.nvmlDeviceGetName(handle)))


def driver_version() -> str | None:
    """Version of the driver."""
    return _text(pynvml.nvmlSystemGetDriverVersion()) if _started() else None


def device_used_bytes(uuid: str) -> int | None:
    """Memory in use on the whole device, by every process and the context."""
    return _ask(uuid, lambda handle: int(pynvml.nvmlDeviceGetMemoryInfo(handle).used))


def process_used_bytes(uuid: str) -> int | None:
    """Memory of this process on the device, with its context; None where NVML does not tell processes apart (containers, MIG)."""
    running = _ask(uuid, pynvml.nvmlDeviceGetComputeRunningProcesses) or []
    return next((one.usedGpuMemory for one in running if one.pid == os.getpid()), None)


def usable_bytes(uuid: str) -> int | None:
    """Memory that programs can have on the device: its own less what the driver reserves."""
    return _ask(uuid, lambda handle: _usable(pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)))


def energy_joules(uuid: str) -> float | None:
    """Energy used since the driver was loaded; None where the card does not tell."""
    return _ask(uuid, lambda handle: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000)


def energy_of(gpus: list[str]) -> float | None:
    """The same of several, as CUDA_VISIBLE_DEVICES names them, together; None where there are none, or one does not tell."""
    counters = [energy_joules(uuid_of(name)) for name in gpus]
    return sum(counters) if counters and None not in counters else None


def _ask(uuid: str, question):
    if not _started():
        return None
    try:
        return question(pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"))
    except pynvml.NVMLError:
        return None


def _usable(memory: pynvml.c_nvmlMemory_v2_t) -> int:
    return int(memory.total - memory.reserved)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
