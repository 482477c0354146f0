"""Grade ground-glass opacity in lung CT with fine-tuned 2-D networks, honestly.

The whole course in seven lines:

    import ggo_lab as gl
    cohort  = gl.phantom_cohort()
    images  = gl.prepare(cohort, gl.Recipe())
    model   = gl.build_backbone("resnet18", extent="all", weights="imagenet")
    history = gl.fit(model, images.train, images.validation, gl.TrainConfig())
    report  = gl.evaluate(gl.predict(model, images.test))
    gl.PredictionViewer(cohort, model, report)
"""

from importlib import import_module

__version__ = "0.1.0"

# Room -> its public names. They are imported when first used: `import ggo_lab` alone must not wait for torch.
_ROOMS = {
    "errors": ["GgoLabError", "ScanError", "CohortError", "ModelError", "ChoiceError"],
    "storage": ["cache_folder"],
    "grades": ["Grade", "GRADE_NAMES", "BAND_EDGES", "grade_of"],
    "scan": ["Scan", "Truth", "Window", "WINDOWS", "PADDING_HU", "window", "check_hu"],
    "readers": ["read_scan", "read_labels", "write_nifti"],
    "phantom": ["make_phantom"],
    "cohort": [
        "Cohort",
        "Findings",
        "phantom_cohort",
        "read_cohort",
        "cov19_ctdb",
        "mosmed",
        "covid_ct_md",
        "stoic",
        "write_predictions",
        "write_as_cov19_ctdb",
        "write_as_mosmed",
    ],
    "lungs": ["segment_lungs", "split_lungs", "ggo_fraction", "GgoFraction"],
    "images": [
        "Recipe",
        "ImageSet",
        "choose_slices",
        "scan_to_image",
        "image_to_scan_grid",
        "image_set_of",
        "prepare",
    ],
    "backbones": ["BACKBONES", "Backbone", "build_backbone", "count_parameters", "parameter_table"],
    "training": ["TrainConfig", "History", "fit", "save_model", "load_model"],
    "evaluation": [
        "Predictions",
        "Report",
        "Comparison",
        "predict",
        "evaluate",
        "compare",
        "how_many_scans_needed",
        "ggo_baseline",
        "Reliability",
        "reliability",
        "fit_temperature",
        "calibrate",
        "risk_coverage",
        "GradeSets",
        "conformal_sets",
        "wilson",
    ],
    "sweeps": ["sweep", "sweep_table"],
    "saliency": [
        "Saliency",
        "explain",
        "grad_cam",
        "occlusion",
        "integrated_gradients",
        "share_inside",
        "pointing_game",
        "deletion_insertion",
        "randomise_layers",
        "shuffle_labels",
    ],
    "pitfalls": [],  # names that belong together: gl.pitfalls.plant_label_pixel
    "plots": [
        "use_style",
        "plot_slice",
        "plot_image",
        "plot_grade_counts",
        "plot_history",
        "plot_confusion",
        "plot_scores",
        "plot_comparison",
        "plot_reliability",
        "plot_risk_coverage",
        "plot_probabilities",
    ],
    "viewers": ["SliceViewer", "PredictionViewer", "link"],
    "course": ["RIGHT", "exercise", "check_text"],
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
