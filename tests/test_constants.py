"""Numbers around the networks that libraries give are those of the released code: docs/parity.md has the whole list."""

import pytest
import torch
from conftest import ROOT
from transformers import SiglipImageProcessor

from ablation.systems.rdt.encoders import ImageEncoder

SIGLIP = ROOT / "resources/rdt-demo-siglip"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_siglip_sees_pictures_as_its_processor_gives_them(dtype):
    """The release normalises in fp32 and casts then; in bf16 throughout, greys were off by half a level."""
    encoder, seen = ImageEncoder(SIGLIP, torch.device("cpu")), []
    encoder.model.to(dtype).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    size = encoder.model.config.image_size
    picture = torch.randint(256, (1, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    encoder(picture)
    processor = SiglipImageProcessor(size={"height": size, "width": size})
    expected = processor(images=[each.permute(1, 2, 0).numpy() for each in picture], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(seen[0], expected.to(dtype), rtol=0, atol=1e-6)
