# %% [markdown]
# # Redraw a plot of a simulation
#
# Each folder of a result, of one run or of a whole experiment, holds `metrics.parquet`, `series.parquet` and
# `distributions.parquet`: long tables with one figure a row, the columns `varied_...` for what was varied, and `seed`.
# The same tables are there as CSV.
#
# Run it as a script, `RESULT=my_sweep METRIC=delivered_share python redraw.py`, or cell by cell in an editor that
# knows `# %%`. It needs pandas, pyarrow and matplotlib (`pip install -r requirements/redraw.txt`).

# %% What to draw
import os
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

RESULT = Path(os.environ.get("RESULT", "."))
METRIC = os.environ.get("METRIC", "")  # empty: the first one
PICTURE = Path(os.environ.get("PICTURE", "redrawn.svg"))

# %% Load
metrics = pd.read_parquet(RESULT / "metrics.parquet")
metric = METRIC or metrics["metric"].iloc[0]
chosen = metrics[metrics["metric"] == metric]
if chosen.empty:
    sys.exit(f"{RESULT} has no metric {metric}; it has {', '.join(sorted(metrics['metric'].unique()))}")
varied = [column for column in chosen.columns if column.startswith("varied_")]

# %% Group: every variant over its seeds
table = (
    chosen.groupby(varied or ["scenario"])["value"]
    .agg(["mean", "std", "count", "min", "max"])
    .reset_index()
)
table.to_csv(sys.stdout, index=False)

# %% Draw: the mean over seeds, and from the smallest to the largest seed
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
across, *lines = varied or ["scenario"]
for name, part in table.groupby(lines) if lines else [((), table)]:
    label = ", ".join(f"{column.removeprefix('varied_')} = {value}" for column, value in zip(lines, name))
    axes.plot(part[across], part["mean"], marker="o", label=label)
    axes.fill_between(part[across], part["min"], part["max"], alpha=0.2)
axes.set_xlabel(across.removeprefix("varied_"))
unit = chosen["unit"].iloc[0]
axes.set_ylabel(f"{metric} [{unit}]" if unit else metric)
if lines:
    axes.legend()
figure.savefig(PICTURE)
