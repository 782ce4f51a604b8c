"""A recipe in words."""

from __future__ import annotations

from typing import Any

from perpixel.recipe import Recipe

__all__ = ["recipe_words"]

_GROUPS = {  # an augmentation's probability, and the limits that belong to it
    "affine": ("shift", "scale", "rotate"),
    "photometric": ("brightness", "contrast", "gamma", "hue", "saturation", "temperature"),
    "degrade": ("blur", "noise", "jpeg"),
}
_ALONE = ("horizontal_flip", "vertical_flip", "quarter_turns", "rare_class_crops", "grayscale")


def recipe_words(recipe: Recipe) -> list[tuple[str, str]]:
    """What was trained, how, and how it is used, a line each."""
    return [
        ("Network", _network(recipe)),
        ("Input", _input(recipe)),
        ("Changes in training", _augmentation(recipe)),
        ("Loss", _loss(recipe)),
        ("Optimiser", _optimiser(recipe)),
        ("Training", _training(recipe)),
        ("Split", _split(recipe)),
        ("Prediction", _prediction(recipe)),
    ]


def _network(recipe: Recipe) -> str:
    model = recipe.model
    frozen = ""
    if model.freeze_encoder:
        stages = model.unfreeze_epochs
        frozen = f", encoder frozen{f', a stage more trains from epochs {_list(stages)}' if stages else ''}"
    weights = "random weights" if model.weights == "none" else f"weights: {model.weights}"
    return f"{model.architecture} on {model.encoder}, {weights}{frozen}"


def _input(recipe: Recipe) -> str:
    section = recipe.input
    height, width = section.size
    size = f"{width} x {height} pixels"
    if section.fit == "crop":
        scaled = f" of images whose longer side is brought to {section.long_side}" if section.long_side else ""
        return f"random crops of {size}{scaled}; whole images in prediction"
    if section.fit == "pad":
        return f"{size}: the aspect is kept, the border mirrored into the rest"
    return f"{size}, to which every image is resized"


def _augmentation(recipe: Recipe) -> str:
    spec = recipe.augmentation
    told = [f"{name.replace('_', ' ')} {getattr(spec, name):g}" for name in _ALONE if getattr(spec, name)]
    if spec.crop_scale != (1.0, 1.0):
        told.append(f"enlarged {spec.crop_scale[0]:g} to {spec.crop_scale[1]:g} times")
    for group, limits in _GROUPS.items():
        if getattr(spec, group):
            named = ", ".join(f"{limit} {getattr(spec, limit):g}" for limit in limits if getattr(spec, limit))
            told.append(f"{group} {getattr(spec, group):g} ({named})")
    return "; ".join(told) + " (probabilities, then limits)" if told else "none"


def _loss(recipe: Recipe) -> str:
    loss = recipe.loss
    warm = f", after {loss.warm_start} for {loss.warm_start_epochs} epochs" if loss.warm_start else ""
    return f"`{loss.name}`{warm}"


def _optimiser(recipe: Recipe) -> str:
    section, schedule = recipe.optimizer, recipe.schedule
    told = [f"{section.name}, learning rate {section.learning_rate:g}"]
    if section.encoder_factor != 1:
        told.append(f"the encoder's {section.encoder_factor:g} times that")
    if section.weight_decay:
        told.append(f"weight decay {section.weight_decay:g}")
    if section.gradient_clip:
        told.append(f"gradients clipped at norm {section.gradient_clip:g}")
    warm_up = f" after {schedule.warmup_epochs:g} epochs of warm-up" if schedule.warmup_epochs else ""
    return ", ".join([*told, f"{schedule.name} schedule{warm_up}"])


def _training(recipe: Recipe) -> str:
    section = recipe.training
    told = [f"{section.epochs} epochs in batches of {section.batch_size}, {section.precision}, seed {section.seed}"]
    if section.ema_decay:
        told.append(f"weights averaged over steps (decay {section.ema_decay:g})")
    told.append(f"the epoch with the best `{section.monitor}` on validation data is kept")
    return "; ".join(told)


def _split(recipe: Recipe) -> str:
    split = recipe.split
    if split.method == "given":
        return "as the data set gives it"
    how = {
        "random": "at random",
        "stratified": "balanced by what the targets hold",
        "grouped": "by group: images of one group stay together",
        "sorted": f"by blocks of neighbours in the order of {split.order_column}",
    }[split.method]
    if split.folds:
        return f"{how}, fold {split.fold} of {split.folds}, seed {split.seed}"
    return f"{how}, validation {split.validation:g}, test {split.test:g}, seed {split.seed}"


def _prediction(recipe: Recipe) -> str:
    section = recipe.inference
    told = ["averaged over its mirror image"] if section.flip else []
    told += ["averaged over eight flips and turns"] if section.self_ensemble else []
    told += [f"averaged over scales {_list(section.scales)}"] if section.scales != (1.0,) else []
    told += [f"in overlapping tiles of {section.tile} pixels"] if section.tile else []
    return ", ".join(["at the image's original size", *told])


def _list(values: Any) -> str:
    return ", ".join(f"{value:g}" for value in values)
