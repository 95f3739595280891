"""The entry point of Dagster: the lakehouse that `LAKEHOUSE_CONFIG` names, else the one in the current folder."""

import os
from pathlib import Path

from lakehouse_pipeline.config.lakehouse import find_lakehouse, load_lakehouse
from lakehouse_pipeline.orchestration.assets import build_defs
from lakehouse_pipeline.testing.crash import crash_where_told

crash_where_told(os.environ)
defs = build_defs(load_lakehouse(find_lakehouse(os.environ, Path.cwd()), os.environ))
