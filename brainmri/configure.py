"""Configure DVC in this clone: `make` runs `python -m brainmri.configure`.

Writes  .dvc/config.local         what must be absolute, and so can't be in Git
        .dvc/site-cache/          what DVC remembers of files, as pickles: this user's alone
        .dvc/plots/offline.html   the page of `dvc plots show`, with what draws its charts
"""

from pathlib import Path

import vl_convert
from dvc.config import Config

DVC = Path(".dvc")
SITE_CACHE = DVC / "site-cache"
TEMPLATE = DVC / "plots/page.html"
PAGE = DVC / "plots/offline.html"


def main() -> None:
    SITE_CACHE.mkdir(mode=0o700, exist_ok=True)
    SITE_CACHE.chmod(0o700)
    script = vl_convert.javascript_bundle().replace("</script", "<\\/script")
    page = TEMPLATE.read_text("utf-8").replace("{scripts}", f"<script>{script}</script>")
    PAGE.write_text(page, "utf-8")
    with Config(str(DVC)).edit("local") as config:
        config["core"]["site_cache_dir"] = str(SITE_CACHE.absolute())
        config["plots"]["html_template"] = str(PAGE.absolute())


if __name__ == "__main__":
    main()
