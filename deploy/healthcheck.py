"""Whether the server of this container lives: exit code 0 or 1. For HEALTHCHECK; the image has no curl.

Standard library only, and none of Hearth's modules: it runs every few seconds.
"""

import os
import sys
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

TIMEOUT_S = 4


def main() -> int:
    url = f"http://127.0.0.1:{os.environ.get('HEARTH_PORT') or 8000}/health"
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=TIMEOUT_S) as answer:  # no proxy knows this address
            return 0 if answer.status == 200 else 1
    except (URLError, OSError) as exc:
        print(f"{url}: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
