"""Behind the curtain: what a network is worth on many phantoms, which a small test split can only guess."""

from ggo_lab.curtain.unseen import CURTAIN_SEED, behind_the_curtain, curtain_images

__all__ = ["CURTAIN_SEED", "behind_the_curtain", "curtain_images"]
