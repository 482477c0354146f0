"""Grade ground-glass opacity in lung CT with fine-tuned 2-D networks, honestly.

The whole course in seven lines:

    import ggo_lab as gl
    cohort  = gl.phantom_cohort()
    images  = gl.prepare(cohort, gl.Recipe())
    model   = gl.build_backbone("resnet18", extent="head", weights="best")
    history = gl.fit(model, images.train, images.validation, gl.TrainConfig())
    report  = gl.evaluate(gl.predict(model, images.test))
    gl.PredictionViewer(cohort, model, report)
"""

from importlib import import_module

__version__ = "0.2.0"

# Room -> what a learner uses of it, at the top; the rest is reached through its room, as gl.cohort.stoic. All is
# imported when first used: `import ggo_lab` alone must not wait for torch.
_ROOMS = {
    "errors": ["GgoLabError", "ScanError", "CohortError", "ModelError", "ChoiceError"],
    "storage": [],
    "tasks": ["Task", "GGO_SEVERITY"],
    "scan": ["Scan", "PADDING_HU", "WINDOWS", "window"],
    "readers": ["read_scan", "write_nifti"],
    "phantom": ["make_phantom"],
    "cohort": ["Cohort", "phantom_cohort", "read_cohort", "cov19_ctdb", "mosmed", "real_scans"],
    "lungs": ["find_lungs", "segment_lungs", "ggo_fraction"],
    "images": ["Recipe", "image_set_of", "prepare"],
    "backbones": ["BACKBONES", "Backbone", "added", "build_backbone", "count_parameters", "read_slices"],
    "training": ["TrainConfig", "fit", "fastest", "save_model", "load_model"],
    "evaluation": [
        "Predictions",
        "predict",
        "evaluate",
        "compare",
        "reliability",
        "fit_temperature",
        "calibrate",
        "risk_coverage",
        "conformal_sets",
        "wilson",
    ],
    "curtain": ["behind_the_curtain"],
    "sweeps": ["sweep"],
    "saliency": ["explain", "grad_cam", "occlusion", "share_inside"],
    "pitfalls": [],  # names that belong together: gl.pitfalls.plant_label_pixel
    "plots": [
        "use_style",
        "plot_slice",
        "plot_image",
        "plot_history",
        "plot_confusion",
        "plot_scores",
        "plot_comparison",
        "plot_reliability",
        "plot_probabilities",
    ],
    "viewers": ["SliceViewer", "PredictionViewer", "link"],
    "course": ["start_lesson", "caption", "RIGHT", "NOTED", "exercise", "check_text", "reading"],
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_ROOM_OF)


def __getattr__(name: str) -> object:
    if name in _ROOM_OF:
        value = getattr(import_module(f"ggo_lab.{_ROOM_OF[name]}"), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return import_module(f"ggo_lab.{name}")
    raise AttributeError(f"module 'ggo_lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
