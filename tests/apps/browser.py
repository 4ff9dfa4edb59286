"""Opens an app's page in a real browser: `python browser.py FOLDER PAGE [ARGUMENT...]`.

PAGE is `golden_test`, or `app` with images, after `--inputs FILE.npz` if their input tensors are to
be saved. It prints what the page says; a golden test that does not pass ends with 1.
"""

from __future__ import annotations

import base64
import functools
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE_S = 60
SAVED = """
const done = arguments[arguments.length - 1];
fetch(document.getElementById("inputs").href)
  .then((response) => response.arrayBuffer())
  .then((bytes) => done(btoa(String.fromCharCode(...new Uint8Array(bytes)))));
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def main(folder: Path, page: str, arguments: list[str]) -> int:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options)
    try:
        name = "golden_test.html" if page == "golden_test" else "index.html"
        driver.get(f"http://127.0.0.1:{server.server_port}/{name}")
        inputs = arguments[1] if arguments[:1] == ["--inputs"] else None
        if page == "app":
            images = [str(Path(image).absolute()) for image in arguments[2 if inputs else 0 :]]
            driver.find_element(By.ID, "images").send_keys("\n".join(images))

        def state(_: object) -> str:
            value = driver.execute_script("return document.body.dataset.state ?? ''")
            return value if value in ("done", "pass", "fail") else ""

        found = WebDriverWait(driver, PATIENCE_S).until(state)
        if inputs:
            content = base64.b64decode(driver.execute_async_script(SAVED))
            Path(inputs).write_bytes(content)
        else:
            print(driver.find_element(By.TAG_NAME, "pre").text)
        return found == "fail"
    finally:
        driver.quit()
        server.shutdown()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
