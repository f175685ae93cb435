"""The library that the workflow's programs call."""

import sys

# PEFT and diffusers load bitsandbytes wherever it is installed, which takes seconds: only what uses it does (training/bits.py).
sys.modules.setdefault("bitsandbytes", None)
