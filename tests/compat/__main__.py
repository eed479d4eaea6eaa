"""Write docs/compatibility.md: `make compatibility`."""

import asyncio
import sys
import tempfile
import traceback
from pathlib import Path

from tests.compat.measuring import FEATURES, KINDS, SPEAKERS, Meter, prepare, verdict
from tests.compat.table import PATH, rendered
from tests.support.gateway import gateway_environment, running_gateway, sqlite_url
from tests.support.upstream import Upstream


async def main() -> int:
    """Measure every cell. What fails is shown, and then nothing is written."""
    verdicts: dict[tuple[str, str, str], str] = {}
    failures = 0
    with tempfile.TemporaryDirectory() as directory:
        environment = sqlite_url(Path(directory))
        async with Upstream() as upstream, running_gateway(gateway_environment(environment, upstream)) as gateway:
            await prepare(gateway, upstream)
            for speaker in SPEAKERS:
                for kind in KINDS:
                    meter = Meter(speaker=speaker, kind=kind, gateway=gateway, upstream=upstream)
                    for name, feature in FEATURES.items():
                        try:
                            verdicts[speaker.name, kind.name, name] = await verdict(meter, feature)
                        except Exception as error:
                            failures += 1
                            place = traceback.extract_tb(error.__traceback__)[-1]
                            told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                            print(f"{speaker.name} -> {kind.name}: {name}: {told} ({place.name}:{place.lineno})")
    if failures:
        print(f"{failures} failures: nothing was written.")
        return 1
    PATH.write_text(rendered(verdicts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
