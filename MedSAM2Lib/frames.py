"""A slice, or a window on it, to the network's square image, and the network's logits back to the slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["View", "logits_to_frame", "logits_to_slice", "mask_to_frame", "normalise", "slice_to_frame"]

# ImageNet statistics: the input convention of every SAM 2 checkpoint, ours too.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)
OUTSIDE_LOGIT = -1024.0  # of voxels that a view does not show
_BOUND = 32.0  # logits that pass from one view to another are clamped to this, so that edges stay sharp when resized


@dataclass(frozen=True)
class View:
    """The rectangle of a slice that the network looks at: pixels row..row + height, column..column + width.

    It may reach beyond the slice; what lies outside is black. A view of the whole slice is stretched to a square, as
    SAM 2 and MedSAM2 do; a zoomed view is a square already.
    """

    row: int
    column: int
    height: int
    width: int

    @classmethod
    def whole(cls, rows: int, columns: int) -> View:
        return cls(0, 0, rows, columns)

    @classmethod
    def around(cls, box: tuple[float, float, float, float], zoom: float, rows: int, columns: int) -> View:
        """A square `zoom` times the longer side of a box (x0, y0, x1, y1), or the whole slice if that is no smaller."""
        x0, y0, x1, y1 = box
        side = int(np.ceil(max(x1 - x0 + 1, y1 - y0 + 1, MINIMUM_SIDE / zoom) * zoom))
        if side >= max(rows, columns):
            return cls.whole(rows, columns)
        row, column = round((y0 + y1 + 1 - side) / 2), round((x0 + x1 + 1 - side) / 2)
        # Rather see more of the slice than black beyond its edge, where the slice is wide enough.
        if side <= rows:
            row = min(max(row, 0), rows - side)
        if side <= columns:
            column = min(max(column, 0), columns - side)
        return cls(row, column, side, side)

    def widened(self, box: tuple[float, float, float, float], factor: float, rows: int, columns: int) -> View:
        """A square that shows all of this view and of a box (x0, y0, x1, y1), at least `factor` times as wide as before."""
        x0, y0 = min(self.column, box[0]), min(self.row, box[1])
        x1, y1 = max(self.column + self.width - 1, box[2]), max(self.row + self.height - 1, box[3])
        grown = max(factor * max(self.height, self.width) / max(x1 - x0 + 1, y1 - y0 + 1), 1.0)
        return View.around((x0, y0, x1, y1), grown, rows, columns)

    def moved_to(self, box: tuple[float, float, float, float], rows: int, columns: int) -> View:
        """This view with a box (x0, y0, x1, y1) in its middle, as far as the slice allows; no narrower than the box."""
        longest = max(box[2] - box[0] + 1, box[3] - box[1] + 1, MINIMUM_SIDE)
        return View.around(box, max(max(self.height, self.width) / longest, 1.0), rows, columns)

    def shows(self, box: tuple[float, float, float, float]) -> bool:
        """Whether a box (x0, y0, x1, y1) lies within this view; pixels reach half a pixel around their centres."""
        x0, y0, x1, y1 = box
        across = self.column - 0.5 <= x0 and x1 <= self.column + self.width - 0.5
        return across and self.row - 0.5 <= y0 and y1 <= self.row + self.height - 0.5

    def cuts(self, mask: npt.NDArray[np.bool_]) -> bool:
        """Whether a mask (rows, columns) reaches an edge of this view beyond which the slice goes on."""
        rows, columns = mask.shape
        bottom, right = self.row + self.height, self.column + self.width
        return bool(
            (self.row > 0 and mask[self.row].any())
            or (bottom < rows and mask[bottom - 1].any())
            or (self.column > 0 and mask[:, self.column].any())
            or (right < columns and mask[:, right - 1].any())
        )

    def to_frame(self, x: npt.ArrayLike, y: npt.ArrayLike, image_size: int) -> npt.NDArray[np.float32]:
        """(N,) slice pixels to (N, 2) network pixels (x, y); pixel centres at integers on both sides."""
        frame_x = (np.asarray(x, dtype=np.float64) - self.column + 0.5) * image_size / self.width - 0.5
        frame_y = (np.asarray(y, dtype=np.float64) - self.row + 0.5) * image_size / self.height - 0.5
        return np.stack((frame_x, frame_y), axis=-1).astype(np.float32)

    def box_to_frame(self, box: tuple[float, float, float, float], image_size: int) -> npt.NDArray[np.float32]:
        """A box's inclusive corners in slice pixels to (2, 2) inclusive corners in network pixels.

        Corners are pixels, not points: the box's outer edges are mapped, half a pixel beyond the corners' centres.
        """
        x0, y0, x1, y1 = box
        edges = self.to_frame([x0 - 0.5, x1 + 0.5], [y0 - 0.5, y1 + 0.5], image_size)
        return edges + np.array([[0.5, 0.5], [-0.5, -0.5]], dtype=np.float32)


MINIMUM_SIDE = 12  # slice pixels a zoomed view shows at least, as in training: below that there is nothing left to see


def normalise(channels: Tensor) -> Tensor:
    """(N, 1 or 3, S, S) values 0..1 to (N, 3, S, S) network input; a single channel of grey serves as all three."""
    mean, std = (torch.tensor(values, device=channels.device).view(1, 3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    return (channels - mean) / std


def slice_to_frame(pixels: npt.NDArray[np.uint8], view: View, image_size: int) -> Tensor:
    """(rows, columns) windowed grey values 0..255 to (1, S, S), or (rows, columns, 3) colours to (3, S, S), 0..1.

    Bicubic with antialiasing on eight bits, as MedSAM2's scripts resize with PIL.
    """
    if pixels.ndim == 3:
        return torch.cat([slice_to_frame(channel, view, image_size) for channel in np.moveaxis(pixels, -1, 0)])
    shown = torch.from_numpy(np.ascontiguousarray(_cut(pixels, view))).float()
    if shown.shape != (image_size, image_size):
        shown = _resize_eight_bit(shown, image_size)
    return shown[None] / 255


def mask_to_frame(mask: npt.NDArray[np.bool_], view: View, image_size: int) -> Tensor:
    """(rows, columns) bool to (1, S, S) float 0 or 1: bilinear with antialiasing, then thresholded at a half (SAM 2).

    A mask so fine that it would vanish keeps the pixels that it covers most.
    """
    shown = torch.from_numpy(_cut(mask, view).astype(np.float32))
    if shown.shape != (image_size, image_size):
        covered = _resize(shown, image_size)
        shown = ((covered >= covered.max().clamp(max=0.5)) & (covered > 0)).float()
    return shown[None]


def logits_to_slice(logits: Tensor, view: View, rows: int, columns: int) -> Tensor:
    """(1, 1, s, s) network logits to (rows, columns) float32; outside the view the object is ruled out."""
    shown = F.interpolate(logits.float(), size=(view.height, view.width), mode="bilinear", align_corners=False)[0, 0]
    if view == View.whole(rows, columns):
        return shown
    full = torch.full((rows, columns), OUTSIDE_LOGIT, device=logits.device)
    top, left = max(view.row, 0), max(view.column, 0)
    bottom, right = min(view.row + view.height, rows), min(view.column + view.width, columns)
    full[top:bottom, left:right] = shown[top - view.row : bottom - view.row, left - view.column : right - view.column]
    return full


def logits_to_frame(logits: Tensor, view: View, side: int) -> Tensor:
    """(rows, columns) logits of a slice to (1, 1, side, side) as the network would have given them through a view."""
    pixels = logits.clamp(-_BOUND, _BOUND).cpu().numpy()
    shown = torch.from_numpy(_cut(pixels, view, outside=-_BOUND))
    return _resize(shown, side)[None, None].to(logits.device)


def _cut(pixels: npt.NDArray[np.generic], view: View, outside: float = 0) -> npt.NDArray[np.generic]:
    """The view's pixels, `outside` beyond the slice."""
    rows, columns = pixels.shape
    top, left = max(view.row, 0), max(view.column, 0)
    bottom, right = min(view.row + view.height, rows), min(view.column + view.width, columns)
    if (bottom - top, right - left) == (view.height, view.width):
        return pixels[top:bottom, left:right]
    out = np.full((view.height, view.width), outside, dtype=pixels.dtype)
    out[top - view.row : bottom - view.row, left - view.column : right - view.column] = pixels[top:bottom, left:right]
    return out


def _resize_eight_bit(image: Tensor, side: int) -> Tensor:
    """(rows, columns) grey values 0..255 to (side, side) whole ones, as PIL does: one axis after the other, rounded and
    clipped in between. Where black meets white the clipping is worth ten grey levels."""
    for size in ((image.shape[0], side), (side, side)):
        image = F.interpolate(image[None, None], size=size, mode="bicubic", align_corners=False, antialias=True)[0, 0]
        image = image.round_().clamp_(0, 255)
    return image


def _resize(image: Tensor, side: int) -> Tensor:
    """(rows, columns) to (side, side), bilinear with antialiasing."""
    return F.interpolate(image[None, None], size=(side, side), mode="bilinear", align_corners=False, antialias=True)[0, 0]
