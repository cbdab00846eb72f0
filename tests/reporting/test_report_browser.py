"""The page in headless Chromium: what only a browser knows."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (Debian: apt-get install chromium)")

# Run in the page once it is drawn; what it finds is posted to the window around, or left in the page itself.
PROBE = """
<script>
window.addEventListener("load", () => {
  const found = {};
  const charts = [...document.querySelectorAll("figure > svg")];
  found.drawn = charts.filter((one) => one.getBBox().width > 100 && one.getBBox().height > 50
                                       && one.querySelectorAll(".role-mark path, .role-mark rect").length).length;
  found.charts = charts.length;
  found.outside = charts.filter((one) => one.getBoundingClientRect().right > innerWidth + 1
                                         && !one.closest(".wide")).length;
  found.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  found.asked = performance.getEntriesByType("resource").map((one) => one.name);
  found.background = getComputedStyle(document.body).backgroundColor;
  found.ink = getComputedStyle(document.querySelector("figure > svg text")).fill;
  found.line = getComputedStyle(document.querySelector(".key path")).stroke;
  const table = document.querySelector('table[data-name="models"]');
  const heads = [...table.tHead.rows[0].cells];
  const column = (index) => [...table.tBodies[0].rows].map((row) => row.cells[index].dataset.value ?? null);
  const button = heads[2].querySelector("button");
  button.focus();
  found.focused = document.activeElement === button;
  button.click();
  found.rising = column(2).map(Number);
  found.told = heads.map((head) => head.getAttribute("aria-sort"));
  button.click();
  found.falling = column(2).map(Number);
  heads[0].querySelector("button").click();
  found.names = column(0);
  const mark = document.querySelector(".role-mark [aria-label]");
  mark.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
  found.tip = document.getElementById("tip").textContent;
  document.body.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
  found.hidden = document.getElementById("tip").hidden;
  const left = Object.assign(document.createElement("pre"), {id: "found", textContent: JSON.stringify(found)});
  window === parent ? document.body.append(left) : parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""
AROUND = """<!doctype html><iframe src="{}" width="360" height="740" style="border:0"></iframe><script>
addEventListener("message", (one) => document.body.append(
  Object.assign(document.createElement("pre"), {{id: "found", textContent: one.data}})));
</script>"""


def browse(page: Path, *more: str) -> tuple[str, str]:
    """stdout and stderr of Chromium on a page, without a network."""
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND",
         "--enable-logging=stderr", "--virtual-time-budget=5000", f"--user-data-dir={page.parent / 'profile'}",
         *more, page.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout, done.stderr


def probed(page: Path, *more: str) -> dict:
    """What the probe found; the console said nothing."""
    out, err = browse(page, "--dump-dom", *more)
    assert "CONSOLE" not in err, err
    text = re.search(r'<pre id="found">(.*?)</pre>', out, re.DOTALL)[1]
    return json.loads(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.fixture(scope="module")
def page(made_page, tmp_path_factory) -> Path:
    """The report with the probe in it."""
    path = tmp_path_factory.mktemp("browser") / "probed.html"
    text = made_page.read_text(encoding="utf-8")
    path.write_text(text.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def light(page) -> dict:
    return probed(page, "--window-size=1280,900")


@pytest.fixture(scope="module")
def phone(page) -> dict:
    """On a dark phone of 360 pixels."""
    around = page.with_name("around.html")
    around.write_text(AROUND.format(page.name), encoding="utf-8")
    return probed(around, "--blink-settings=preferredColorScheme=0")


def test_every_chart_is_drawn_and_nothing_is_asked_of_anybody(light):
    assert light["charts"] == light["drawn"] == 18
    assert light["asked"] == []
    assert light["wide"] == light["outside"] == 0


def test_a_button_sorts_by_the_full_value_both_ways_and_says_so(light):
    assert light["focused"]
    assert light["rising"] == sorted(light["rising"])
    assert light["falling"] == light["rising"][::-1]
    assert len(set(light["rising"])) == 12
    assert light["told"][2] == "ascending"
    assert light["told"].count(None) == len(light["told"]) - 1
    assert light["names"] == sorted(light["names"])


def test_a_mark_says_its_numbers(light):
    assert re.match(r"(linear|slerp) λ=0\.\d, pilot: AUROC 0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\]", light["tip"])
    assert light["hidden"]


def test_on_a_dark_phone_the_page_fits_and_the_charts_follow(light, phone):
    assert phone["wide"] == phone["outside"] == 0
    assert phone["charts"] == phone["drawn"]
    dark, ink = (sum(map(int, re.findall(r"\d+", phone[key])[:3])) for key in ("background", "ink"))
    assert dark < 120 < 600 < ink
    bright, black = (sum(map(int, re.findall(r"\d+", light[key])[:3])) for key in ("background", "ink"))
    assert black < 200 < 700 < bright
    assert light["line"] != phone["line"]


def test_it_prints(page):
    paper = page.with_name("paper.pdf")
    _, err = browse(
        page, f"--print-to-pdf={paper}", "--no-pdf-header-footer", "--blink-settings=preferredColorScheme=0"
    )
    assert "CONSOLE" not in err
    content = paper.read_bytes()
    assert content.startswith(b"%PDF")
    assert 4 <= len(re.findall(rb"/Type ?/Page\b(?!s)", content)) <= 16


def test_a_script_error_would_be_seen(page):
    broken = page.with_name("broken.html")
    broken.write_text("<!doctype html><script>nothing.there()</script><pre id=found>{}</pre>")
    with pytest.raises(AssertionError, match="nothing is not defined"):
        probed(broken)
