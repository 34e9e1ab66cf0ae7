"""The number format of the device, the same in every process that trains, certifies or attacks."""

import torch


def full_float32() -> None:
    """Turn TF32 off: what rounds to 10 bits is another classifier, and a verdict must not depend on the device.

    A setting of the process: workers do not inherit it.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
