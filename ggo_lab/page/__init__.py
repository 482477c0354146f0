"""A scan as one HTML file that scrolls by itself: no Python, no network, nothing that runs from data."""

from ggo_lab.page.scans import scan_html, scan_page

__all__ = ["scan_html", "scan_page"]
