"""Time the viewers: slices that the kernel packs, memory, pages, and dragging in a real browser, beside other ways.

    python benchmarks/viewers.py            # about two minutes

Contestants run in turn, and medians are printed. The kernel's times are processor time, which other programs on the
machine disturb least. Headless Chromium has no display and no GPU: our frames are counted when another slice has been
drawn, others' as pictures that arrived and were decoded; requestAnimationFrame ticks 60 times a second there. Linux
only. Needs the extra `bench`; without Chromium the second half is left out.
"""

import gc
import resource
import shutil
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import ipywidgets as widgets
import matplotlib
import numpy as np
from results import Results

import ggo_lab as gl
from ggo_lab.rendering import mask_colors, packed_slice

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))
SECONDS = 3.0  # of dragging
MOVES = 180  # of the mouse meanwhile, as of one that reports 60 times a second

found: Results


def say(what: str, value: float, unit: str, bar: str = "") -> None:
    found.row(what, f"{value:.3g} {unit}".rstrip(), bar)


def in_turn(contestants: dict[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """The median processor time of each, ms; the first two rounds warm up and do not count."""
    taken = {name: [] for name in contestants}
    for round_ in range(rounds + 2):
        for name, run in contestants.items():
            start = time.process_time()
            run(round_)
            taken[name].append(1000 * (time.process_time() - start))
    return {name: statistics.median(times[2:]) for name, times in taken.items()}


def frames(scan: gl.Scan) -> None:
    """One 512 x 512 slice with two masks: from HU to what is sent once, beside what Matplotlib does for each frame."""
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap

    masks = {"lungs": scan.truth.lungs, "lesions": scan.truth.lesions}
    grey = gl.WINDOWS["lung"]
    maps = {name: ListedColormap([color]) for name, color in mask_colors(list(masks)).items()}

    def figure(z: int):
        figure = plt.figure(figsize=(5.12, 5.12), dpi=100)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        low = grey.level - grey.width / 2
        layers = [axes.imshow(scan.hu[z], cmap="gray", vmin=low, vmax=low + grey.width)]
        layers += [axes.imshow(laid(mask, z), cmap=maps[name], alpha=0.4) for name, mask in masks.items()]
        return figure, layers

    def laid(mask: np.ndarray, z: int) -> np.ndarray:
        return np.ma.masked_equal(mask[z], False)

    kept, layers = figure(0)

    def redraw(i: int) -> None:
        z = i % len(scan.hu)
        layers[0].set_data(scan.hu[z])
        for layer, mask in zip(layers[1:], masks.values(), strict=True):
            layer.set_data(laid(mask, z))
        kept.canvas.draw()

    def anew(i: int) -> None:  # what interact does when a function plots
        drawn, _ = figure(i % len(scan.hu))
        drawn.savefig(BytesIO(), format="png")
        plt.close(drawn)

    medians = in_turn(
        {
            "packed to be sent, once": lambda i: packed_slice(scan, masks, None, i % len(scan.hu)),
            "Matplotlib, set_data and canvas.draw": redraw,
            "Matplotlib, a new figure as PNG": anew,
        },
        40,
    )
    for name, milliseconds in medians.items():
        say(f"512 x 512, two masks: {name}", milliseconds, "ms")
    say("512 x 512, two masks: packed", len(packed_slice(scan, masks, None, 8)) / 1e3, "kB")


def first_picture(scan: gl.Scan) -> None:
    make = gl.SliceViewer  # imported, before the clock runs

    def show(_i: int) -> None:
        make(scan, "truth").close()

    start = time.process_time()
    show(0)
    say("first picture, the first viewer of a process", 1000 * (time.process_time() - start), "ms", "below 150")
    say("first picture, later viewers", in_turn({"": show}, 10)[""], "ms", "below 150")


def copies() -> None:
    """What a viewer of a large scan allocates; numpy's arrays are traced, too."""
    scan = gl.Scan(np.full((128, 512, 512), -600, np.int16), (2.5, 0.7, 0.7))
    mask = scan.hu < 0
    tracemalloc.start()
    viewer = gl.SliceViewer(scan, {"lungs": mask})
    for z in range(128):  # every slice, as a browser asks for them
        viewer._handle_custom_msg({"kind": "slices", "serial": viewer._scan["serial"], "indices": [z]}, [])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    viewer.close()
    volume = scan.hu.nbytes / 1e6
    say(f"memory at most, while all slices of a scan of {volume:.0f} MB are sent", peak / 1e6, "MB", "no copy")


def opened_and_closed(scan: gl.Scan) -> None:
    def held() -> float:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6

    living = widgets.widget._instances
    before, sizes = len(living), []
    for i in range(101):
        viewer = gl.SliceViewer(scan, "truth")
        viewer.index = i % len(scan.hu)
        viewer.close()
        if i in (20, 100):
            sizes.append(held())
    say("viewers 21 to 100 opened and closed: memory grows by", sizes[1] - sizes[0], "MB", "below 5")
    say("widgets left over", len(living) - before, "", "0")


def niivue(scan: gl.Scan) -> None:
    """Ipyniivue draws in the browser, from the whole volume; what compares is what must be sent before it can."""
    import nibabel
    from ipyniivue import NiiVue

    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, values in (("hu", scan.hu), ("lungs", scan.truth.lungs), ("lesions", scan.truth.lesions)):
            paths.append(Path(folder) / f"{name}.nii")
            nibabel.save(
                nibabel.Nifti1Image(values.astype(np.int16 if name == "hu" else np.uint8), np.eye(4)), paths[-1]
            )

        def theirs(_i: int) -> None:
            NiiVue().load_volumes([{"path": path} for path in paths])

        medians = in_turn({"ipyniivue": theirs, "ours": lambda _i: gl.SliceViewer(scan, "truth")}, 5)
        sent = sum(path.stat().st_size for path in paths)
    for name, milliseconds in medians.items():
        say(f"processor time in the kernel until a viewer is made: {name}", milliseconds, "ms")
    viewer = gl.SliceViewer(scan, "truth")
    say("bytes to the browser before the first picture: ipyniivue (scan and masks as files)", sent / 1e3, "kB")
    say("bytes to the browser before the first picture: ours", len(viewer._scan["first"]["packed"]) / 1e3, "kB")


def page(browser, scan: gl.Scan) -> None:
    """The file of a scan of 64 x 256 x 256 with two masks, opened from disk."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        path = gl.SliceViewer(scan, "truth").to_html(Path(folder) / "page.html")
        say("page: writing it", time.process_time() - start, "s")
        say("page: its size", path.stat().st_size / 1e6, "MB", "below 5")
        opened = []
        for _ in range(5):
            tab = browser.new_page()
            tab.goto(path.as_uri())
            tab.wait_for_selector(".ggo-viewer[data-ready=true]", timeout=30_000)
            opened.append(tab.evaluate("performance.now()"))
            if len(opened) < 5:
                tab.close()
        say("page: until it can be used", statistics.median(opened), "ms", "below 1000")
        clock = thread_clock(tab)
        busy = clock()
        intervals = tab.evaluate(
            """(n) => new Promise((done) => {
                const slider = document.querySelector(".ggo-slice"), times = [];
                const tick = (now) => {
                    times.push(now);
                    if (times.length > n) return done(times.slice(1).map((time, i) => time - times[i]));
                    slider.value = Math.round(31 + 31 * Math.sin(times.length / 20));
                    slider.dispatchEvent(new Event("input"));
                    requestAnimationFrame(tick);
                };
                requestAnimationFrame(tick);
            })""",
            240,
        )
        busy = 1000 * (clock() - busy) / len(intervals)
        say("page: frames a second while the slider is dragged", 1000 * len(intervals) / sum(intervals), "", "60")
        say("page: processor time of a frame, the page's whole thread", busy, "ms", "below 16.7, for 60")
        tab.close()


def thread_clock(tab) -> Callable[[], float]:
    """A clock of the processor time that the page's main thread takes, s."""
    tools = tab.context.new_cdp_session(tab)
    tools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def read() -> float:
        metrics = tools.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    return read


OURS = """
import ggo_lab as gl
scan = gl.make_phantom(grade=3, seed=1, shape=(64, 512, 512))
viewer = gl.SliceViewer(scan, "truth")
viewer
"""
DRAWN = """
() => {
    const viewer = document.querySelector(".ggo-viewer").viewer;
    window.arrived = [];
    let last = null;
    const draw = viewer.pictures[0].draw;
    viewer.pictures[0].draw = function (volume, state) {
        const whole = draw.call(this, volume, state);
        if (whole && state.cross[0] !== last) {
            last = state.cross[0];
            window.arrived.push(performance.now());
        }
        return whole;
    };
}
"""
INTERACT = """
%matplotlib inline
import matplotlib.pyplot as plt, numpy as np, ipywidgets as widgets
import ggo_lab as gl
scan = gl.make_phantom(grade=3, seed=1)
def show(index):
    figure, axes = plt.subplots(figsize=(5.12, 5.12), dpi=100)
    axes.imshow(scan.hu[index], cmap="gray", vmin=-1350, vmax=150)
    for mask in (scan.truth.lungs, scan.truth.lesions):
        axes.imshow(np.ma.masked_equal(mask[index], False), alpha=0.4)
    axes.set_axis_off()
    plt.show()
widgets.interact(show, index=widgets.IntSlider(32, 0, 63, layout=widgets.Layout(width="512px")))
"""
IPYMPL = """
%matplotlib widget
import matplotlib.pyplot as plt, numpy as np, ipywidgets as widgets
from matplotlib.colors import ListedColormap
import ggo_lab as gl
scan = gl.make_phantom(grade=3, seed=1)
plt.ioff()
figure, axes = plt.subplots(figsize=(5.12, 5.12), dpi=100)
axes.set_axis_off()
masks = scan.truth.lungs, scan.truth.lesions
grey = axes.imshow(scan.hu[32], cmap="gray", vmin=-1350, vmax=150)
laid = [axes.imshow(np.ma.masked_equal(mask[32], False), alpha=0.4) for mask in masks]
slider = widgets.IntSlider(32, 0, 63, layout=widgets.Layout(width="512px"))
def show(change):
    grey.set_data(scan.hu[change.new])
    for layer, mask in zip(laid, masks):
        layer.set_data(np.ma.masked_equal(mask[change.new], False))
    figure.canvas.draw_idle()
slider.observe(show, "value")
display(widgets.VBox([slider, figure.canvas]))
"""
# ipympl paints each picture that arrives, once it is decoded, on a canvas.
COUNT_PAINTED = """
() => {
    window.arrived = [];
    const paint = CanvasRenderingContext2D.prototype.drawImage;
    CanvasRenderingContext2D.prototype.drawImage = function (picture, ...where) {
        if (picture instanceof HTMLImageElement) window.arrived.push(performance.now());
        return paint.call(this, picture, ...where);
    };
}
"""
COUNT = """
() => {
    window.arrived = [];
    new MutationObserver((changes) => {
        for (const change of changes) {
            const added = [...change.addedNodes].filter((node) => node.nodeType === 1).flatMap(
                (node) => [node, ...node.querySelectorAll("img")]);
            const pictures = [change.target, ...added].filter((node) => node.matches("img"));
            for (const picture of pictures) {
                picture.decode().then(() => window.arrived.push(performance.now()), () => {});
            }
        }
    }).observe(document.querySelector(".jp-Notebook"), { subtree: true, childList: true, attributeFilter: ["src"] });
}
"""


HAND = """
(seconds) => new Promise((done) => {
    const slider = document.querySelector(".ggo-slice"), start = performance.now();
    const move = (now) => {
        if (now - start > 1000 * seconds) return done(performance.now() - start);
        slider.value = Math.round(slider.max * (0.5 + 0.49 * Math.sin((now - start) / 230)));
        slider.dispatchEvent(new Event("input"));
        requestAnimationFrame(move);
    };
    requestAnimationFrame(move);
})
"""


def dragged(tab, name: str, bar: str) -> None:
    """Move our slider at every turn of the screen, within the page, and count the slices that were drawn.

    A mouse sent from outside waits for the page after each of its moves, and would be what is measured.
    """
    tab.evaluate(DRAWN)
    taken = tab.evaluate(HAND, SECONDS) / 1000
    end = tab.evaluate("performance.now()")
    tab.wait_for_timeout(2000)  # for a backlog to arrive
    arrived = tab.evaluate("window.arrived")
    say(f"{name}: pictures a second while dragged", sum(at <= end for at in arrived) / taken, "", bar)
    say(f"{name}: the last picture after the hand stopped", max(0, max(arrived) - end), "ms", "below 17")


def drag(tab, name: str, count: str) -> None:
    """Drag the slice slider of core ipywidgets to and fro, and count the pictures that arrive, by a script."""
    box = tab.locator(".jp-OutputArea .noUi-handle").first.bounding_box()
    rail = tab.locator(".jp-OutputArea .noUi-target").first.bounding_box()
    tab.evaluate(count)
    y = box["y"] + box["height"] / 2
    tab.mouse.move(box["x"] + box["width"] / 2, y)
    tab.mouse.down()
    start = time.perf_counter()
    for move in range(MOVES):
        tab.mouse.move(rail["x"] + rail["width"] * (0.5 + 0.49 * np.sin(move / 14)), y)
        time.sleep(max(0, start + (move + 1) * SECONDS / MOVES - time.perf_counter()))
    taken, end = time.perf_counter() - start, tab.evaluate("performance.now()")
    tab.mouse.up()
    tab.wait_for_timeout(5000)  # for a backlog to arrive
    arrived = tab.evaluate("window.arrived")
    say(f"{name}: pictures a second while dragged", sum(at <= end for at in arrived) / taken, "")
    say(f"{name}: the last picture after the hand stopped", max(0, max(arrived) - end), "ms")


LARGE = """
import numpy as np
import ggo_lab as gl
few = gl.make_phantom(grade=3, seed=1, shape=(12, 512, 512))
scan = gl.Scan(np.tile(few.hu, (25, 1, 1)), (1.0, *few.spacing[1:]))
lungs = np.tile(few.truth.lungs, (25, 1, 1))
small = gl.Scan(few.hu[:, ::8, ::8].copy(), few.spacing)
gl.SliceViewer  # imported, before the clock runs
"""
HUNDRED = """
import time
from IPython.display import clear_output
for i in range({}):
    shown = gl.SliceViewer(small)
    display(shown)
    time.sleep(0.1)  # its slices are asked for and drawn meanwhile
    shown.close()
    clear_output(wait=True)
"""
# What any widget costs in JupyterLab: the first one of a page waits for the modules of ipywidgets and anywidget.
BARE = [
    """
import anywidget
class Bare(anywidget.AnyWidget):
    _esm = "export default { render({ el }) { el.innerHTML = '<b class=bare>here</b>'; } };"
""",
    "Bare()",
]
STILL, READY = ".ggo-still img", ".ggo-viewer[data-ready=true]"
# Runs the chosen cell; gives ms from its beginning to its end, and to so many more of each kind of part than before.
RUN = """
async (kinds) => {
    const app = window.jupyterapp ?? window.jupyterlab, at = {};
    const { kernel } = app.shell.currentWidget.sessionContext.session;
    kernel.statusChanged.connect((_kernel, status) => { if (status === "idle") at.end ??= performance.now(); });
    const there = (kind) => [...document.querySelectorAll(kind)].filter((part) => part.complete ?? true).length;
    const before = kinds.map(there);
    const shown = kinds.map((kind, i) => new Promise((done) => {
        const look = () => (there(kind) > before[i] ? done(performance.now()) : requestAnimationFrame(look));
        requestAnimationFrame(look);
    }));
    const start = performance.now();
    await app.commands.execute("notebook:run-cell-and-select-next");
    const times = await Promise.all(shown);
    while (at.end === undefined) await new Promise(requestAnimationFrame);
    return [at.end - start, ...times.map((time) => time - start)];
}
"""
FAR = """
(z) => new Promise((done) => {
    const { viewer } = document.querySelector(".ggo-viewer"), start = performance.now();
    viewer.go(z);
    const look = () => {
        if (viewer.volume.slices[z] && viewer.root.dataset.ready === "true") done(performance.now() - start);
        else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
})
"""


def large(here) -> None:
    """A scan of 300 x 512 x 512: how soon its first picture shows, and one far away; what 100 closed viewers leave."""
    bare = here.run("bare", BARE, first_only=True)
    bare_end, bare_shown = bare.evaluate(RUN, [".bare"])
    bare.close()
    again = "gl.SliceViewer(scan, {'lungs': lungs})"
    cells = [LARGE, again, again, HUNDRED.format(20), HUNDRED.format(80)]
    tab = here.run("large", cells, first_only=True)
    clock = thread_clock(tab)
    busy = clock()
    end, still, picture = tab.evaluate(RUN, [STILL, READY])
    say("JupyterLab, 300 x 512 x 512: processor time of the page's thread meanwhile", 1000 * (clock() - busy), "ms")
    later_end, _, later = tab.evaluate(RUN, [STILL, READY])
    for what, at, ended in (
        ("a widget that is one word, the first of a page", bare_shown, bare_end),
        ("the still picture of a viewer, the first of a page", still, end),
        ("a viewer to scroll, the first of a page", picture, end),
        ("a viewer to scroll, the second of a page", later, later_end),
    ):
        ours = "viewer" in what
        say(f"JupyterLab, 300 x 512 x 512: from the cell's start to {what}", at, "ms", "below 300" if ours else "")
        say(f"JupyterLab, from the cell's end to {what}", max(0, at - ended), "ms", "below 150" if ours else "")
    far = [tab.evaluate(FAR, z) for z in (280, 20, 200, 100, 250)]
    say("JupyterLab, 300 x 512 x 512: a slice far from those that were fetched", statistics.median(far), "ms")
    tools = tab.context.new_cdp_session(tab)
    heaps = []
    for _ in range(2):
        tab.evaluate("window.jupyterapp.commands.execute('notebook:run-cell-and-select-next')")
        tab.wait_for_timeout(1000)
        tools.send("HeapProfiler.collectGarbage")
        heaps.append(tab.evaluate("performance.memory.usedJSHeapSize") / 1e6)
    say(
        "JupyterLab, viewers 21 to 100 opened and closed: the page's memory grows by",
        heaps[1] - heaps[0],
        "MB",
        "below 5",
    )
    say("JupyterLab, viewers left on the page of 102", tab.locator(".ggo-viewer").count(), "", "2, not closed")
    tab.close()


def notebooks(browser) -> None:
    import lab

    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as state,
        lab.jupyterlab(Path(folder), Path(state)) as address,
    ):
        here = lab.Lab(browser, address, Path(folder))
        large(here)
        tab = here.run("ours", [OURS])
        tab.wait_for_function("document.querySelector('.ggo-viewer').viewer.volume.held === 64", timeout=60_000)
        dragged(tab, "JupyterLab, SliceViewer, 64 x 512 x 512", "at least 50")
        tab.close()
        for name, cell, count in (("interact", INTERACT, COUNT), ("ipympl", IPYMPL, COUNT_PAINTED)):
            tab = here.run(name, [cell], viewers=0)
            tab.wait_for_selector(".jp-OutputArea .noUi-handle", timeout=60_000)
            tab.wait_for_timeout(4000)
            drag(tab, f"JupyterLab, Matplotlib and {name}, 64 x 256 x 256", count)
            tab.close()


def main() -> None:
    global found
    found = Results("viewers")
    found.table("The viewers", ["", "measured", "bar"])
    wide = gl.make_phantom(grade=3, seed=1, shape=(16, 512, 512))
    scan = gl.make_phantom(grade=3, seed=1)
    first_picture(scan)
    frames(wide)
    copies()
    opened_and_closed(gl.make_phantom(grade=3, seed=1, shape=(16, 64, 64)))
    niivue(scan)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        found.note("No Chromium: pages and JupyterLab were not measured.")
    else:
        import lab
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=lab.CHROMIUM_FLAGS)
            page(browser, scan)
            notebooks(browser)
            browser.close()
    found.write()


if __name__ == "__main__":
    main()
