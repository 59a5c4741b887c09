"""What a user sees of a sweep in the MLflow UI and in the report, in a real headless Chromium.

Screenshots go to $RAYPIPE_SCREENSHOTS if that is set.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest
from servers import free_port, mlflow_server, program

from raypipe.commands.compare import run
from raypipe.commands.report import report_of
from raypipe.evaluation.report.page import to_html
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.tracking.stored_runs import TrackingStore

pytestmark = [pytest.mark.services, pytest.mark.ray]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
    "--window-size=1500,1100",
)
WAIT_S = 60


@pytest.fixture(scope="module")
def tracked(cluster, tmp_path_factory, write_recipe):
    """The address of a server with a finished sweep, and the sweep's report."""
    folder = tmp_path_factory.mktemp("ui")
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with mlflow_server(folder, port, f"sqlite:///{folder}/server.db"):
        result = run(load(Experiment, write_recipe(folder), [f"tracking={uri}"]))
        assert result.tracked_run
        yield uri, result


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the package selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    service = webdriver.ChromeService(executable_path=program("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def shown(browser, *texts: str) -> str:
    """The page's text as soon as all of these are in it."""
    from selenium.webdriver.support.ui import WebDriverWait

    def text(driver) -> str:
        return driver.execute_script("return document.body.innerText")

    WebDriverWait(browser, WAIT_S).until(lambda d: all(one in text(d) for one in texts))
    return text(browser)


def keep(browser, name: str) -> None:
    folder = os.environ.get("RAYPIPE_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def runs_of(uri: str) -> tuple[str, dict[str, str]]:
    """The experiment's id, and the ids of the rows' runs by name."""
    store = TrackingStore(uri)
    job = store.job("tiny")
    return job.experiment_id, {one.name: one.run_id for one in store.children(job)}


def test_the_experiment_lists_its_runs(tracked, browser):
    uri, _ = tracked
    experiment, _ = runs_of(uri)
    browser.get(f"{uri}/#/experiments/{experiment}/runs")
    text = shown(browser, "tiny")
    keep(browser, "mlflow-runs")
    assert "Something went wrong" not in text


def test_two_runs_compare_with_what_differs_and_a_chart(tracked, browser):
    uri, result = tracked
    experiment, runs = runs_of(uri)
    chosen = [runs["contrastive"], runs["contrastive -> distil"]]
    asked = f"runs={quote(json.dumps(chosen))}&experiments={quote(json.dumps([experiment]))}"
    browser.get(f"{uri}/#/compare-runs?{asked}")
    text = shown(browser, "contrastive -> distil", "nDCG_10", "sweep.order")
    for line in result.report.lines["test"]:
        if line.row.kind == "trained":
            assert f"{line.means['nDCG@10']:.3f}"[:5] in text
    assert browser.execute_script("return document.querySelectorAll('svg.main-svg').length") > 0
    keep(browser, "mlflow-compare")


def test_a_run_has_its_curves_and_files(tracked, browser):
    uri, _ = tracked
    experiment, runs = runs_of(uri)
    browser.get(f"{uri}/#/experiments/{experiment}/runs/{runs['contrastive']}")
    shown(browser, "contrastive", "nDCG_10")
    browser.get(f"{uri}/#/experiments/{experiment}/runs/{runs['contrastive']}/artifacts")
    shown(browser, "per_query.csv", "run.txt")
    keep(browser, "mlflow-run")


def test_the_report_is_a_page_with_plots(tracked, browser, tmp_path):
    uri, _ = tracked
    page = tmp_path / "report.html"
    page.write_text(to_html(report_of(["tiny"], uri)), "utf-8")
    browser.get("about:blank")
    browser.get_log("browser")  # MLflow's own pages asked for what a server without users has not
    browser.get(page.as_uri())
    text = shown(browser, "Effectiveness against cost", "Differences per query", "Tracked runs")
    assert "contrastive -> distil" in text
    assert browser.execute_script("return document.querySelectorAll('svg').length") >= 4
    links = browser.execute_script("return [...document.querySelectorAll('a')].map(a => a.href)")
    assert links and all(link.startswith(f"{uri}/#/experiments/") for link in links)
    first = "return document.querySelector('table tbody tr td:nth-child(2)').innerText"
    head = "document.querySelectorAll('table')[0].querySelectorAll('th')[1]"
    browser.execute_script(f"{head}.click()")
    up = browser.execute_script(first)
    browser.execute_script(f"{head}.click()")
    assert browser.execute_script(first) != up  # a click on a head sorts by it
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
    keep(browser, "report")
    if folder := os.environ.get("RAYPIPE_SCREENSHOTS"):
        shutil.copy(page, folder)
