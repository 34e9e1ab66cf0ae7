"""The l2 radius that a bound on the probability of a class proves under Gaussian noise."""

import numpy as np
from scipy.special import ndtri


def gaussian_radius(p_a: float, sigma: float) -> float:
    """`sigma Phi^-1(p_A)` in l2, rounded down; 0 where `p_A <= 1/2` (Cohen et al., ICML 2019, Thm 1).

    A later scaling, by 1 / sqrt(d) for linf, may round once more: the result stays below what is proved.
    """
    # The noise is drawn with sigma in float32, which may lie below the sigma that was asked for.
    sigma = min(sigma, float(np.float32(sigma)))
    # The factor takes off more than `ndtri`, the product and a later scaling err by: 2, 1/2 and 1 units.
    return sigma * float(ndtri(p_a)) * (1 - 2**-50) if p_a > 0.5 else 0.0
