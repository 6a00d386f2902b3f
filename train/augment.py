"""Random affine and elastic distortion of a whole batch in one resampling.

Elastic fields are coarse random grids, upsampled bicubically (after Simard et al. 2003): smooth without a blur.
"""

import math

import torch
import torch.nn.functional as F

from train.recipe import AugmentRecipe


def augment(images: torch.Tensor, recipe: AugmentRecipe) -> torch.Tensor:
    """Distort float32 (N, 1, H, W), each image its own way; ink outside the frame is lost, background is 0."""
    n, _, height, width = images.shape

    def uniform(limit: float) -> torch.Tensor:
        return (torch.rand(n, device=images.device) * 2 - 1) * limit

    angle = uniform(math.radians(recipe.rotate_deg))
    scale_x, scale_y = 1 + uniform(recipe.scale), 1 + uniform(recipe.scale)
    shear = uniform(recipe.shear)
    shift_x, shift_y = uniform(recipe.translate_px * 2 / width), uniform(recipe.translate_px * 2 / height)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([cos * scale_x, -sin * scale_y + shear, shift_x], 1),
            torch.stack([sin * scale_x, cos * scale_y, shift_y], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [n, 1, height, width], align_corners=False)
    if recipe.elastic_px:
        shape = (n, 2, recipe.elastic_grid, recipe.elastic_grid)
        coarse = torch.randn(shape, device=images.device) * (recipe.elastic_px / width)
        field = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
        grid = grid + field.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, align_corners=False)
