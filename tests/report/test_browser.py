"""The page in a real browser, where there is one: no error, no request, no script, nothing wider than the window."""

import html
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from configs.report import ReportSpec
from ray_jobs.checkpoint.store import Store
from ray_jobs.report.job import page_of
from ray_jobs.report.nodes import Nodes
from ray_jobs.report.page import render
from tests.report.synthetic import whole_graph

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# Frames the page at a width, waits until it is laid out, and leaves its measures where --dump-dom shows them.
PROBE = """<!doctype html><iframe src="{url}" width="{width}" height="800" style="border:0"></iframe><pre></pre>
<script>
onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  for (const part of page.querySelectorAll("details")) part.open = true;
  const hidden = new Set(["auto", "hidden", "scroll"]);
  const clipped = e => e && (hidden.has(getComputedStyle(e).overflowX) || clipped(e.parentElement));
  const wide = [...page.querySelectorAll("main *, header *")].filter(
    e => e.getBoundingClientRect().right > {width} + 1 && !clipped(e.parentElement));
  const report = {{
    scroll: page.documentElement.scrollWidth,
    wide: wide.map(e => e.outerHTML.slice(0, 120)),
    sections: page.querySelectorAll("section").length,
    background: getComputedStyle(page.documentElement).backgroundColor,
    requests: page.defaultView.performance.getEntriesByType("resource").length,
    title: page.title,
  }};
  document.querySelector("pre").textContent = JSON.stringify(report);
}};
</script>"""


def measured(page: Path, folder: Path, width: int, dark: bool = False) -> tuple[dict, str]:
    """What the probe found, and what the browser logged."""
    assert BROWSER is not None
    probe = folder / f"probe-{width}-{dark}.html"
    probe.write_text(PROBE.format(url=page.as_uri(), width=width))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr"]
    command += ["--allow-file-access-from-files", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    command += [f"--user-data-dir={folder / f'profile-{width}-{dark}'}", "--dump-dom", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(html.unescape(done.stdout.split("<pre>")[1].split("</pre>")[0])), done.stderr


@pytest.mark.clients
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_shows_the_page_at_any_width_and_in_both_schemes(store: Store, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_bytes(render(page_of(Nodes(whole_graph(store)), ReportSpec())))
    backgrounds = {}
    for width, dark in ((1280, False), (400, True)):
        found, log = measured(page, tmp_path, width, dark)
        assert found["sections"] == 10
        assert found["wide"] == [] and found["scroll"] <= width
        assert found["requests"] == 0
        assert found["title"].startswith("Headrace")
        assert "CONSOLE" not in log, log
        backgrounds[dark] = found["background"]
    assert backgrounds[True] != backgrounds[False]
