"""A prediction in words, bars and small pictures: the HTML of a PredictionViewer, all names escaped."""

import base64
import html

import numpy as np

from ggo_lab.grades import Grade
from ggo_lab.rendering import encode


def sentence(probabilities: np.ndarray, true: Grade | None, unknown: str = "the true grade is not known") -> str:
    """Say a prediction in words, beside the truth where it is known.

    Args:
        probabilities: (4,).
        unknown: what to say where there is no true grade.

    >>> sentence(np.array([0.1, 0.2, 0.61, 0.09]), Grade.MODERATE)
    'Predicted severe (61%), true moderate: one grade off.'
    """
    predicted = Grade(int(np.argmax(probabilities)) + 1)
    said = f"Predicted {predicted.label} ({probabilities[predicted.index]:.0%})"
    if true is None:
        return f"{said}; {unknown}."
    off = abs(predicted - true)
    how = ("right", "one grade off", "two grades off", "three grades off")[off]
    return f"{said}, true {true.label}: {how}."


def bars(probabilities: np.ndarray, true: Grade | None) -> str:
    """The four probabilities (4,) as bars; a frame marks the true grade."""
    rows = []
    for grade in Grade:
        share = float(probabilities[grade.index])
        mark = "outline:2px solid currentColor;outline-offset:1px;" if grade == true else ""
        label = f"<b>{grade.label}</b>" if grade == true else grade.label
        rows.append(
            '<div style="display:grid;grid-template-columns:72px 1fr 40px;gap:8px;align-items:center;line-height:20px">'
            f'<span>{label}</span><span style="height:12px;background:rgba(128,128,128,.25);{mark}">'
            f'<span style="display:block;height:12px;width:{100 * share:.1f}%;background:{grade.color}"></span></span>'
            f'<span style="text-align:right">{share:.0%}</span></div>'
        )
    return "".join(rows) + ("" if true is None else fine("framed: the true grade"))


def channels(pixels: np.ndarray, slices: tuple[int, ...]) -> str:
    """What a network sees, a small picture for each channel of uint8 (C, H, W)."""
    pictures = "".join(
        picture(channel, f"what the network sees of slice {z}", 90) for z, channel in zip(slices, pixels, strict=True)
    )
    said = paragraph(f"What the network sees, {pixels.shape[1]} × {pixels.shape[2]} pixels each:")
    return f'{said}<div style="display:flex;flex-wrap:wrap;gap:4px">{pictures}</div>'


def picture(grey: np.ndarray, alt: str, side: int) -> str:
    """One small picture of uint8 (H, W), so many screen pixels wide."""
    data = base64.b64encode(encode(np.repeat(grey[:, :, None], 3, axis=2))).decode()
    size = f'width="{side}" height="{side}" style="display:block"'
    return f'<img alt="{html.escape(alt)}" {size} src="data:image/jpeg;base64,{data}">'


def paragraph(text: str) -> str:
    """A paragraph with the viewers' line height; `text` is HTML."""
    return f'<p style="line-height:1.4;margin:6px 0">{text}</p>'


def fine(text: str) -> str:
    """Small print; `text` is HTML."""
    return f'<div style="opacity:.75;font-size:90%;line-height:1.35">{text}</div>'
