"""Depth: each pixel is a distance along the camera's axis, in metres."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perpixel.depth_codec import DepthCodec
from perpixel.depth_files import write_numbers
from perpixel.depth_maps import guided_smooth, paint_depth, smooth_depth
from perpixel.errors import RequestError
from perpixel.images import write_image
from perpixel.metrics import DepthMetrics
from perpixel.metrics.depth_guards import inverted, predictions_on_a_clamp, predictions_that_do_not_vary, wrong_unit
from perpixel.pointcloud import Camera, camera_from_fov, depth_to_points, focal_length, write_glb, write_ply
from perpixel.recipe import DepthTarget, InferenceSection, LossSection, parse_loss
from perpixel.tasks.base import Decision, Task, TaskLoss
from perpixel.tasks.view import DistanceView

if TYPE_CHECKING:
    import torch

_ASSUMED_FOV = 55.0  # degrees, vertical: about a phone's main camera held upright
_NEAREST = 1e-3  # metres; figures and logarithms need a depth above 0
_MAP_SIZE = (24, 32)  # height and width of the mean depth map that is kept as a fact
_OF_LOGARITHMS = ("log_gradient", "silog", "silog_eigen", "silog_root")
_LEVELS = np.geomspace(_NEAREST, 1e5, 4001)  # metres; a step is half a percent


class DepthTask(Task):
    """The network puts out one channel; ``target.output`` says how it is read.

    Targets are float32 metres, nan where there is no reading. Predictions are metres too, or, of a network that knows
    depth up to scale and shift only (``relative``), disparity: larger where it is nearer.
    """

    fill = math.nan
    out_channels = 1
    error_legend = "|prediction - truth| / truth, black 0 to bright 0.5"

    def __init__(self, target: DepthTarget, loss: LossSection, inference: InferenceSection) -> None:
        self.target, self.loss_section, self.inference = target, loss, inference
        self.codec = DepthCodec(**target.codec_settings())
        self.relative = target.output == "relative"
        self.zoom_divides = not (target.scale_free or self.relative)
        self.nearest, self.farthest = max(target.minimum_m, _NEAREST), target.maximum_m
        self.prediction_files = (".npy", "_color.png") if self.relative else (".npy", ".png", "_color.png")
        if inference.point_cloud != "none":
            self.prediction_files += (f".{inference.point_cloud}",)
            if inference.vertical_fov_deg is None and self.codec.camera(2, 2) is None:
                self.assumptions = (
                    "point clouds of images whose EXIF data tell no focal length assume a vertical field of view of"
                    f" {_ASSUMED_FOV:g} degrees; set inference.vertical_fov_deg to the camera's",
                )

    @property
    def meaning(self) -> str:
        return self.target.model_dump_json(exclude={"output", "crop", "scale_free"})

    def decode_target(self, path: Path, notes: list[str] | None = None) -> NDArray[np.float32]:
        depth_hw, valid_hw = self.codec.read(path)
        return np.where(valid_hw, depth_hw, np.float32(np.nan))

    def valid(self, target_hw: NDArray[Any]) -> NDArray[np.bool_]:
        valid_hw: NDArray[np.bool_] = np.isfinite(target_hw)
        return valid_hw

    def stratum_value(self, target_hw: NDArray[Any]) -> float:
        """Median depth in metres."""
        metres = target_hw[self.valid(target_hw)]
        return float(np.median(metres)) if len(metres) else 0.0

    def describe(self, targets: Iterable[NDArray[Any]]) -> dict[str, Any]:
        counts = np.zeros(len(_LEVELS) + 1, dtype=np.int64)
        total, kept = np.zeros(_MAP_SIZE), np.zeros(_MAP_SIZE)
        images = pixels = 0
        for target_hw in targets:
            valid_hw = self.valid(target_hw)
            counts += np.bincount(np.searchsorted(_LEVELS, target_hw[valid_hw]), minlength=len(counts))
            size = _MAP_SIZE[::-1]
            total += cv2.resize(np.where(valid_hw, target_hw, 0).astype(np.float64), size, interpolation=cv2.INTER_AREA)
            kept += cv2.resize(valid_hw.astype(np.float64), size, interpolation=cv2.INTER_AREA)
            images, pixels = images + 1, pixels + valid_hw.size
        share = np.cumsum(counts) / max(1, counts.sum())
        quantiles = {
            q: float(_LEVELS[min(int(np.searchsorted(share, q / 100)), len(_LEVELS) - 1)]) for q in (1, 50, 99)
        }
        mean_map = np.where(kept > 0, total / np.maximum(kept, 1e-9), quantiles[50])
        return {
            "images": images,
            "valid_share": float(counts.sum() / max(1, pixels)),
            "quantiles_m": {str(q): round(value, 4) for q, value in quantiles.items()},
            "mean_map_m": np.round(mean_map, 4).tolist(),
        }

    def facts_table(self, facts: Mapping[str, Any]) -> str:
        near, middle, far = facts["quantiles_m"].values()
        return (
            f"training targets: {facts['images']} depth maps, {facts['valid_share']:.1%} of the pixels have a reading;"
            f" 1 % are nearer than {near:.3g} m, half than {middle:.3g} m, 99 % than {far:.3g} m"
        )

    def require_network(self, network: torch.nn.Module) -> None:
        """Some networks know what they put out: metres, or disparity up to scale and shift."""
        kind = getattr(network, "output_kind", None)
        wanted = "relative" if kind == "relative" else "metres"
        if kind is not None and self.target.output != wanted:
            raise RequestError(
                f"this network puts out {'disparity up to scale and shift' if kind == 'relative' else 'metres'}",
                where=f"target.output = {self.target.output}",
                rule="an output is read as what it is: figures of disparity read as depth mean nothing.",
                cure=f"set target.output={wanted}.",
            )
        logarithms = [name for name in self._losses() if name in _OF_LOGARITHMS]
        if kind is None and self.target.output == "metres" and logarithms:
            raise RequestError(
                f"{' and '.join(logarithms)} take the logarithm of metres, and this network may put out less than 0",
                where=f"target.output = metres, loss.name = {self.loss_section.name}",
                rule="a loss that is no number is an error, and an untrained network would begin with it.",
                cure="set target.output=log: the output is then the logarithm, and every depth is above 0; or take a"
                " loss of metres: l1, berhu or mse.",
            )

    def _losses(self) -> list[str]:
        """Names of all terms, those of the warm start too."""
        expressions = filter(None, (self.loss_section.warm_start, self.loss_section.name))
        return [name for expression in expressions for _, name in parse_loss(expression)]

    def loss(self, facts: Mapping[str, Any]) -> TaskLoss:
        from perpixel.losses import DepthLossOptions, WeightedDepthLoss

        section = self.loss_section
        options = DepthLossOptions(
            per_image=section.per_image, silog_alpha=section.silog_alpha, silog_beta=section.silog_beta
        )
        weighted = [
            WeightedDepthLoss(parse_loss(name), options, relative=self.relative)
            for name in (section.warm_start or section.name, section.name)
        ]

        def compute(epoch: int, output_bkhw: torch.Tensor, target_bhw: torch.Tensor) -> torch.Tensor:
            chosen = weighted[epoch >= section.warm_start_epochs]
            return chosen(self.scores(output_bkhw)[:, 0], target_bhw, target_bhw.isfinite())

        return compute

    def scores(self, output_bkhw: torch.Tensor) -> torch.Tensor:
        """Metres, not limited to the range yet; of a relative network disparity."""
        output_bkhw = output_bkhw.float()
        return output_bkhw.exp() if self.target.output == "log" else output_bkhw

    def refine(self, scores_khw: NDArray[np.float32], image_hwc: NDArray[Any]) -> NDArray[np.float32]:
        """Smoothed by the guided filter where `inference.edge_radius` asks for it."""
        if not self.inference.edge_radius:
            return scores_khw
        depth_hw = scores_khw[0]
        return guided_smooth(depth_hw, np.isfinite(depth_hw), image_hwc, self.inference.edge_radius)[None]

    def finalize(self, scores_khw: NDArray[np.float32], decision: Decision) -> NDArray[np.float32]:
        depth_hw = scores_khw[0]
        if self.inference.smooth_sigma > 0:
            depth_hw = smooth_depth(depth_hw, np.isfinite(depth_hw), self.inference.smooth_sigma)
        limited_hw: NDArray[np.float32] = depth_hw if self.relative else depth_hw.clip(self.nearest, self.farthest)
        return limited_hw.astype(np.float32, copy=False)

    def graph_prediction(self, scores_bkhw: torch.Tensor, decision: Decision) -> torch.Tensor:
        """Metres, float32; of a relative network disparity."""
        depth_bhw = scores_bkhw[:, 0]
        return depth_bhw.clone() if self.relative else depth_bhw.clamp(self.nearest, self.farthest)

    def graph_output(self, size: str) -> dict[str, str]:
        meaning = "disparity up to scale and shift: larger is nearer" if self.relative else "metres"
        return {"type": "float32", "shape": size, "meaning": meaning}

    def left_out_of_graph(self, decision: Decision) -> list[str]:
        asked = {
            "smoothed by a guided filter (inference.edge_radius)": self.inference.edge_radius,
            "smoothed by a Gaussian (inference.smooth_sigma)": self.inference.smooth_sigma,
        }
        return [text for text, value in asked.items() if value]

    def confidence(self, scores_khw: NDArray[np.float32], prediction_hw: NDArray[Any]) -> NDArray[np.float32]:
        """1 everywhere: a network of depth says nothing of how sure it is."""
        return np.ones(prediction_hw.shape, dtype=np.float32)

    def pixel_error(self, prediction_hw: NDArray[Any], target_hw: NDArray[Any]) -> NDArray[np.float32] | None:
        """Relative to the distance; of disparity up to scale and shift none."""
        return None if self.relative else np.abs(prediction_hw - target_hw) / target_hw

    def properties(self, target_hw: NDArray[Any]) -> dict[str, float]:
        """How far the scene is, and over what range: its middle 90 %."""
        distance_n = target_hw[self.valid(target_hw)]
        low, middle, high = np.quantile(distance_n, (0.05, 0.5, 0.95)) if distance_n.size else [np.nan] * 3
        return {"median distance (m)": float(middle), "range of distances (m)": float(high - low)}

    def first_decision(self) -> Decision:
        return {}

    def metrics(self) -> DepthMetrics:
        return DepthMetrics(
            maximum_m=self.farthest,
            minimum_m=self.nearest,
            crop=self.target.crop,
            predicts="disparity" if self.relative else "metres",
        )

    def baselines(self, facts: Mapping[str, Any]) -> dict[str, Callable[[NDArray[Any]], NDArray[Any]]]:
        """The median of the training pixels everywhere, which of all constants has the least mean absolute error, and
        the mean of the training maps."""
        median = float(facts["quantiles_m"]["50"])
        mean_hw = np.asarray(facts["mean_map_m"], dtype=np.float32)

        def constant(image_hwc: NDArray[Any]) -> NDArray[np.float32]:
            return self._from_metres(np.full(image_hwc.shape[:2], median, dtype=np.float32))

        def mean_map(image_hwc: NDArray[Any]) -> NDArray[np.float32]:
            height, width = image_hwc.shape[:2]
            resized_hw = cv2.resize(mean_hw, (width, height), interpolation=cv2.INTER_LINEAR)
            return self._from_metres(np.asarray(resized_hw, dtype=np.float32))

        return {"constant": constant, "mean map": mean_map}

    def guards(self, figures: Mapping[str, float]) -> list[str]:
        found = [
            inverted(figures["rank_correlation"]),
            predictions_that_do_not_vary(figures["variation_inside"], figures["variation_between"]),
        ]
        if not self.relative:
            found += [predictions_on_a_clamp(figures["share_at_clamp"]), wrong_unit(figures["median_ratio"])]
        return [sentence for sentence in found if sentence]

    def panels(
        self, image_hwc: NDArray[np.uint8], prediction_hw: NDArray[Any], target_hw: NDArray[Any] | None = None
    ) -> dict[str, NDArray[np.uint8]]:
        """Truth and prediction share the truth's range of colours; the error is |p - t| / t from 0 to 0.5."""
        if target_hw is None:
            return {"input": image_hwc, "prediction": self.paint(prediction_hw)}
        valid_hw = self.valid(target_hw)
        if self.relative:
            prediction_hw = self._to_metres_like(prediction_hw, target_hw, valid_hw)
        near, far = _range(target_hw[valid_hw], (self.nearest, self.farthest))
        error_hw = np.abs(prediction_hw - np.where(valid_hw, target_hw, 1)) / np.where(valid_hw, target_hw, 1)
        return {
            "input": image_hwc,
            "truth": paint_depth(target_hw, valid_hw, near, far),
            "prediction": paint_depth(prediction_hw, np.isfinite(prediction_hw), near, far),
            "error": _paint_error(error_hw, valid_hw),
        }

    def paint(self, prediction_hw: NDArray[Any]) -> NDArray[np.uint8]:
        """Turbo colours over the map's own range, red near, blue far."""
        valid_hw = np.isfinite(prediction_hw)
        near, far = _range(prediction_hw[valid_hw], (0.0, 1.0))
        if self.relative:  # large disparities are near
            return paint_depth(-prediction_hw, valid_hw, -far, -near)
        return paint_depth(prediction_hw, valid_hw, near, far)

    def write_prediction(
        self,
        stem: Path,
        image_hwc: NDArray[np.uint8],
        scores_khw: NDArray[np.float32],
        prediction_hw: NDArray[Any],
        source: Path | None = None,
    ) -> list[Path]:
        """Metres as float32 NPY and as 16-bit PNG, a picture in colours, and a point cloud where one is asked for."""
        files = [stem.with_name(stem.name + end) for end in self.prediction_files]
        write_numbers(files[0], prediction_hw)
        if not self.relative:
            self._millimetres.write(files[1], prediction_hw, np.isfinite(prediction_hw))
        write_image(stem.with_name(f"{stem.name}_color.png"), self.paint(prediction_hw))
        if self.inference.point_cloud != "none":
            valid_hw = np.isfinite(prediction_hw) & (prediction_hw < self.farthest)
            points_n3 = depth_to_points(prediction_hw, valid_hw, self._camera(prediction_hw.shape, source))
            write_cloud = write_ply if self.inference.point_cloud == "ply" else write_glb
            write_cloud(files[-1], points_n3, image_hwc[valid_hw])
        return files

    def _camera(self, size: tuple[int, ...], source: Path | None) -> Camera:
        """That of the inference section, else of the image's EXIF data, else of the target section, else an assumed
        one."""
        height, width = size
        if self.inference.vertical_fov_deg is not None:
            return camera_from_fov(height, width, vertical_deg=self.inference.vertical_fov_deg)
        if source is not None and (focal := focal_length(source, (height, width))) is not None:
            return Camera(focal, focal, (width - 1) / 2, (height - 1) / 2)
        declared = self.codec.camera(height, width)
        return declared or camera_from_fov(height, width, vertical_deg=_ASSUMED_FOV)

    @property
    def _millimetres(self) -> DepthCodec:
        """Millimetres as far as 16 bits carry them, else 1/256 m, as KITTI has it."""
        return DepthCodec(stored="uint16", scale=0.001 if self.farthest <= 65.535 else 1 / 256)

    def require_same_maps(self, other: Task, where: Path) -> None:
        """Any two depth maps compare: both are read as metres."""
        if not isinstance(other, DepthTask):
            raise RequestError("this recipe's targets are no depth, as the run's are", where=where)

    def submission_map(self, prediction_hw: NDArray[Any]) -> NDArray[Any]:
        """Metres; of a relative network disparity."""
        return prediction_hw

    def view(self) -> DistanceView:
        return DistanceView(
            unit="" if self.relative else "m",
            vertical_fov_deg=self.target.vertical_fov_deg,
            horizontal_fov_deg=self.target.horizontal_fov_deg,
        )

    def _from_metres(self, depth_hw: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.reciprocal(depth_hw) if self.relative else depth_hw

    def _to_metres_like(
        self, disparity_hw: NDArray[Any], target_hw: NDArray[Any], valid_hw: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """For a picture beside the truth: scale and shift that suit the truth best."""
        from perpixel.metrics.alignment import affine_alignment

        if np.count_nonzero(valid_hw) < 2:
            return np.full(disparity_hw.shape, self.farthest, dtype=np.float32)
        aligned = affine_alignment(
            disparity_hw[valid_hw].astype(np.float64), 1 / target_hw[valid_hw].astype(np.float64)
        )
        metres_hw = 1 / np.maximum(aligned(disparity_hw.astype(np.float64)), 1 / self.farthest)
        return np.asarray(metres_hw, dtype=np.float32)


def _range(values: NDArray[Any], otherwise: tuple[float, float]) -> tuple[float, float]:
    """From the 2nd to the 98th percentile, so that a few stray pixels do not take all the colours."""
    if not len(values):
        return otherwise
    near, far = np.percentile(values, (2, 98))
    return (float(near), float(far)) if near < far else (float(near), float(near) + 1)


def _paint_error(relative_hw: NDArray[Any], valid_hw: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Black where it is right, white from half the true depth on; grey without truth."""
    level_hw = np.rint(255 * (relative_hw / 0.5).clip(0, 1)).astype(np.uint8)
    picture_hwc = cv2.applyColorMap(level_hw, cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.where(valid_hw[..., None], picture_hwc, np.uint8(128))
