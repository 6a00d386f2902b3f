"""Random distortion of a whole batch at once: affine and elastic in one resampling, then stroke, focus and grain.

float32 (N, 1, H, W) in [0, 1] comes in and goes out, ink bright on 0 whatever happens (polarity is never touched).
Elastic fields are coarse random grids, upsampled bicubically (after Simard et al. 2003): smooth without a blur.
"""

import math

import torch
import torch.nn.functional as F

from train.recipe import AugmentRecipe


def augment(images: torch.Tensor, recipe: AugmentRecipe) -> torch.Tensor:
    """Distort float32 (N, 1, H, W), each image its own way; ink outside the frame is lost, background is 0."""
    images = F.grid_sample(images, _grid(images, recipe), align_corners=False)
    if recipe.thickness:
        images = _thickness(images, recipe.thickness)
    if recipe.blur:
        images = torch.lerp(images, _blurred(images), _each(images) * recipe.blur)
    if recipe.noise:
        images = (images + torch.randn_like(images) * (_each(images) * recipe.noise)).clamp(0, 1)
    return images


def _grid(images: torch.Tensor, recipe: AugmentRecipe) -> torch.Tensor:
    """Where each output pixel comes from, (N, H, W, 2) in [-1, 1]: an affine map and a smooth displacement."""
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
    return grid


def _thickness(images: torch.Tensor, most: float) -> torch.Tensor:
    """Move each image part of the way to its 3 x 3 dilation or erosion: a softer or a harder pen."""
    towards = (_each(images) * 2 - 1) * most
    dilated = F.max_pool2d(images, 3, 1, 1)
    eroded = -F.max_pool2d(-images, 3, 1, 1)
    return images + towards.clamp(min=0) * (dilated - images) - (-towards).clamp(min=0) * (images - eroded)


def _blurred(images: torch.Tensor) -> torch.Tensor:
    """The binomial 3 x 3 blur, as two passes."""
    kernel = torch.tensor([0.25, 0.5, 0.25], device=images.device)
    across = F.conv2d(images, kernel.view(1, 1, 1, 3), padding=(0, 1))
    return F.conv2d(across, kernel.view(1, 1, 3, 1), padding=(1, 0))


def _each(images: torch.Tensor) -> torch.Tensor:
    """A number in [0, 1) for each image, (N, 1, 1, 1)."""
    return torch.rand(len(images), 1, 1, 1, device=images.device)
