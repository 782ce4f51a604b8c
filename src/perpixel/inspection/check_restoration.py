"""Checks of pairs of degraded and clean pictures."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import numpy as np
from numpy.typing import NDArray

from perpixel.inspection.checks import Check, View
from perpixel.inspection.finding import Finding, Severity
from perpixel.inspection.record import ImageFacts, Record
from perpixel.recipe import RestorationTarget

__all__ = ["RESTORATION_CHECKS"]

_NOISIER = 1.5
_NOISE = 1.0 / 255  # below, there is no noise to speak of
_CAST = 0.25  # of the share of a channel
_CLIPPED = 0.25
_EQUAL_DB, _ENLARGED_DB = 60.0, 45.0
_DARKER = 0.8  # brightness of the clean side over that of the degraded one
_LEAST_DARKER = 0.02  # of the range; what is nearly black is as dark as it is noisy
_ALIKE, _STRANGE = 0.8, 0.5  # correlation of tiny pictures: where pairs usually are, and that of two scenes


def _both(view: View) -> list[tuple[Record, ImageFacts, ImageFacts]]:
    return [(record, record.image, record.picture) for record in view.records if record.image and record.picture]


def _target(view: View) -> RestorationTarget:
    assert isinstance(view.recipe.target, RestorationTarget)  # these checks are of such recipes
    return view.recipe.target


def bits(view: View) -> Iterator[Finding]:
    """Clean images of other bits than declared."""
    wanted = _target(view).bits
    wrong = [
        record
        for record, _, _ in _both(view)
        if record.target_file and (16 if record.target_file.bits == 16 else 8) != wanted
    ]
    if wrong:
        sentence = f"{len(wrong)} clean images do not have the {wanted} bits a channel that target.bits says."
        yield Finding.of(
            "restoration-bits", "error", sentence, view.target_names(wrong), f"target: {{bits: {24 - wanted}}}"
        )


def swapped(view: View) -> Iterator[Finding]:
    """The side that is declared clean is the noisy one, or the smaller one."""
    both = _both(view)
    if len(both) < 4:
        return
    cure = f"data: {{images: {view.recipe.data.targets!r}, targets: {view.recipe.data.images!r}}}"
    smaller = [
        record for record, _, _ in both if record.target_file and record.target_file.height < record.image_file.height
    ]
    noisier = [  # what is brightened has its noise brightened too
        record
        for record, image, clean in both
        if clean.noise > max(_NOISE, _NOISIER * image.noise * max(1.0, _luma(clean) / max(_luma(image), 1e-3)))
    ]
    if len(smaller) > 0.9 * len(both):
        yield Finding.of(
            "restoration-swapped",
            "error",
            "the clean images are smaller than the degraded ones: the sides look swapped.",
            view.names(smaller),
            cure,
        )
    elif len(noisier) > 0.8 * len(both):
        sentence = "the clean images have more noise than the degraded ones: the sides look swapped."
        yield Finding.of("restoration-swapped", "warning", sentence, view.names(noisier), cure)


def darker(view: View) -> Iterator[Finding]:
    """Clean images that are darker than their degraded ones."""
    both = [(record, _luma(image), _luma(clean)) for record, image, clean in _both(view)]
    found = [(record, dark, clean) for record, dark, clean in both if clean < min(_DARKER * dark, dark - _LEAST_DARKER)]
    if not found:
        return
    record, dark, clean = found[0]
    names = view.target_names([record for record, _, _ in found])
    numbers = f"{record.sample.id} has brightness {clean:.3f}, its degraded image {dark:.3f} of 1"
    if len(found) > 0.5 * len(both):
        sentence = f"{len(found)} of {len(both)} clean images are darker than their degraded ones ({numbers})."
        cure = "if the folders are swapped, exchange data.images and data.targets."
    else:
        sentence = f"{len(found)} clean images are darker than their degraded ones, others are not ({numbers})."
        cure = "make sure that these are the clean images of these scenes."
    yield Finding.of("restoration-darker", "warning", sentence, names, cure)


def other_scene(view: View) -> Iterator[Finding]:
    """Clean images that do not look like their degraded ones, where the others do."""
    both = [found for found in _both(view) if max(found[2].bright, found[2].dark) <= _CLIPPED]  # others tell nothing
    if len(both) < 8:
        return
    alike = np.array([_alikeness(image, clean) for _, image, clean in both])
    edges = np.array([record.pair.surface_hw.max() if record.pair else 0 for record, _, _ in both])  # at any shift
    usual = float(np.median(alike))
    strange = np.flatnonzero((alike < _STRANGE) & (edges < 0.5 * np.median(edges)))
    if usual >= _ALIKE and len(strange):
        worst = int(strange[alike[strange].argmin()])
        record = both[worst][0]
        sentence = (
            f"{len(strange)} clean images look like other scenes than their degraded ones: light and dark of"
            f" {record.sample.id} agree {alike[worst]:.2f}, those of most pairs {usual:.2f}."
        )
        names = view.target_names([both[index][0] for index in sorted(strange, key=lambda index: float(alike[index]))])
        yield Finding.of("restoration-scene", "warning", sentence, names, "look whether their numbers are mistaken.")


def _luma(facts: ImageFacts) -> float:
    return float(np.dot(facts.mean_3, (0.299, 0.587, 0.114)))


def _alikeness(image: ImageFacts, clean: ImageFacts) -> float:
    """Pearson's correlation of two tiny pictures in grey; 1 where one of them is flat, which tells nothing."""
    left, right = (facts.thumb_hwc.mean(axis=2, dtype=np.float64).reshape(-1) for facts in (image, clean))
    if min(left.std(), right.std()) < 1:
        return 1.0
    return float(np.corrcoef(left, right)[0, 1])


def facts(view: View) -> Iterator[Finding]:
    """Brightness and noise of both sides."""
    both = _both(view)
    if both:
        sides = [image for _, image, _ in both], [clean for _, _, clean in both]
        bright = " becomes ".join(f"{median(float(np.mean(facts.mean_3)) for facts in side):.3f}" for side in sides)
        noise = " becomes ".join(f"{median(255 * facts.noise for facts in side):.1f}" for side in sides)
        sentence = f"brightness {bright} of 1; noise {noise} of 255 (medians)."
        yield Finding("restoration-facts", "note", sentence, len(both))


def nothing_to_do(view: View) -> Iterator[Finding]:
    """Pairs that are equal, or of which the clean side is but the other one enlarged."""
    enlarges = _target(view).scale > 1
    least = _ENLARGED_DB if enlarges else _EQUAL_DB
    found = [record for record, _, _ in _both(view) if record.pair is not None and record.pair.likeness >= least]
    names = view.target_names(found)
    if found and not enlarges:
        sentence = f"of {len(found)} pairs both sides are the same picture."
        yield Finding.of("restoration-equal", "warning", sentence, names, "leave them out.")
    elif len(found) > 0.1 * len(view.records):
        sentence = f"{len(found)} clean images are but their degraded ones enlarged: there is nothing to learn."
        yield Finding.of("restoration-enlarged", "warning", sentence, names, "use clean images of the full size.")


def channels(view: View) -> Iterator[Finding]:
    """Red and blue exchanged on one side; a colour cast that all pairs share."""
    both = _both(view)
    tables = np.array([record.pair.channels_33 for record, _, _ in both if record.pair and record.pair.channels_33])
    if len(tables) >= 4:
        mean = tables.mean(axis=0)
        straight, crossed = (mean[0, 0] + mean[2, 2]) / 2, (mean[0, 2] + mean[2, 0]) / 2
        if crossed > straight + 0.3:
            agree = f"colours agree {crossed:.2f} crosswise and {straight:.2f} straight"
            sentence = f"red and blue are exchanged on one side ({agree})."
            yield Finding("restoration-channels", "error", sentence, len(tables), (), "save one side again as RGB.")
            return
    shares = np.array([_share(clean) - _share(image) for _, image, clean in both if not (image.grey or clean.grey)])
    if len(shares) >= 4:
        cast_3 = np.median(shares, axis=0)
        most = int(np.abs(cast_3).argmax())
        if abs(cast_3[most]) > _CAST:
            held = f"{abs(cast_3[most]):.0%} {'more' if cast_3[most] > 0 else 'less'} {('red', 'green', 'blue')[most]}"
            sentence = f"the clean images hold {held} than the degraded ones: a colour cast of one side."
            cure = "make sure that both were developed alike."
            yield Finding("restoration-cast", "warning", sentence, len(shares), (), cure)


def _share(facts: ImageFacts) -> NDArray[np.float64]:
    """Each channel in relation to the mean of the three, less 1."""
    mean = np.array(facts.mean_3)
    return np.asarray(mean / max(1e-3, float(mean.mean())) - 1)


def clipped(view: View) -> Iterator[Finding]:
    """Clean images that are white or black over a large part."""
    found = [record for record, _, clean in _both(view) if clean.bright > _CLIPPED or clean.dark > _CLIPPED]
    if found:
        severity: Severity = "warning" if len(found) > 0.5 * len(view.records) else "note"
        sentence = f"{len(found)} clean images are pure white or black over more than a quarter of their area."
        cure = "use images that are exposed well."
        yield Finding.of("restoration-clipped", severity, sentence, view.target_names(found), cure)


def compressed(view: View) -> Iterator[Finding]:
    """Clean images saved with loss: the network learns the artefacts."""
    found = [
        record for record, _, _ in _both(view) if record.target_file and record.target_file.format in ("JPEG", "MPO")
    ]
    if found:
        sentence = f"{len(found)} clean images are JPEG: what its compression did is learned with them."
        yield Finding.of("restoration-jpeg", "note", sentence, view.target_names(found))


RESTORATION_CHECKS: tuple[Check, ...] = (
    bits,
    swapped,
    darker,
    other_scene,
    facts,
    nothing_to_do,
    channels,
    clipped,
    compressed,
)
