"""`python -m stmorph.cluster`: look at the cluster with the profiles of a run; exit status 1 where it would fail."""

import argparse
import sys
from pathlib import Path

from ..errors import StmorphError
from .findings import Wanted
from .preflight import check_cluster
from .profiles import read_profiles
from .study import study_asks


def main() -> int:
    """Print a line a finding and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m stmorph.cluster", description=__doc__)
    parser.add_argument("--profile", action="append", type=Path, required=True, help="as for snakemake, in its order")
    parser.add_argument("--configfile", type=Path, help="the study whose requests are looked at")
    parser.add_argument("--wait", type=int, default=120, help="seconds for a node to become free (default: 120)")
    given = parser.parse_args()
    counts = {"ok": 0, "warning": 0, "error": 0}
    try:
        asks = study_asks(given.configfile) if given.configfile else {}
        wanted = Wanted(read_profiles(given.profile), Path.cwd(), wait_s=given.wait, **asks)
        for finding in check_cluster(wanted):
            counts[finding.level] += 1
            print(f"{finding.level:8} {finding.about}: {finding.text}", flush=True)
    except StmorphError as error:
        print(f"error    {error}")
        return 1
    print(f"{counts['ok']} well, {counts['warning']} to think about, {counts['error']} to mend")
    return int(counts["error"] > 0)


if __name__ == "__main__":
    sys.exit(main())
