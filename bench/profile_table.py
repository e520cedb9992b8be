"""The kernels of an Nsight Compute report as a table: python3 profile_table.py FILE.csv (ncu --page raw --csv)."""

import csv
import sys

COLUMNS = (
    ("µs", "gpu__time_duration.sum", 1),
    ("SM %", "sm__throughput.avg.pct_of_peak_sustained_elapsed", 1),
    ("memory %", "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed", 1),
    ("DRAM %", "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed", 1),
    ("warps %", "sm__warps_active.avg.pct_of_peak_sustained_active", 1),
    ("registers", "launch__registers_per_thread", 0),
    ("blocks", "launch__grid_size", 0),
)
TO_MICROSECONDS = {"ns": 1e-3, "nsecond": 1e-3, "us": 1, "usecond": 1, "ms": 1e3, "msecond": 1e3, "s": 1e6, "second": 1e6}


def read(path):
    """Rows of the first CSV table in the file: names, their units, then a kernel a row."""
    with open(path, newline="") as file:
        lines = [line for line in file if line.startswith('"')]
    rows = list(csv.reader(lines))
    if len(rows) < 3:
        raise SystemExit(f"{path}: expected ncu's raw page as CSV, found no kernel")
    return rows[0], rows[1], rows[2:]


def cell(row, names, units, metric, digits):
    if metric not in names:
        return "-"
    at = names.index(metric)
    try:
        value = float(row[at].replace(",", ""))
    except ValueError:
        return "-"
    if metric == "gpu__time_duration.sum":
        value *= TO_MICROSECONDS.get(units[at], 1)
    return f"{value:.{digits}f}"


def main(path):
    names, units, rows = read(path)
    kernel = names.index("Kernel Name")
    print("  ".join(f"{title:>9}" for title, _, _ in COLUMNS) + "  kernel")
    for row in rows:
        cells = (cell(row, names, units, metric, digits) for _, metric, digits in COLUMNS)
        print("  ".join(f"{text:>9}" for text in cells) + f"  {row[kernel][:90]}")


if __name__ == "__main__":
    main(sys.argv[1])
