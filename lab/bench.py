#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
Make a table, a CSV file and diagrams of what vfio_bench printed, and hold the
patched kernel against its goals, which are instructions beyond those of the bare calls of
the IOMMU, in the same run, and the bars of what is compared with stock.

Usage: bench.py VERSION RUNS DIR

DIR has {stock,patched}-RUN.tsv.  The table goes to the output; the
status is 1 if a bar was missed that lab/bench.known does not know, or one met that it does.
"""

import csv
import math
import os
import sys

CALL = 2000         # MAP_DMA and UNMAP_DMA of a BAR, beyond the bare IOMMU call
RANGE = 500         # release, suspension, resumption: beyond the bare call, a range
SYNCS = 1           # calls of iommu_iotlb_sync() for these, a domain
STRETCH = 10000000  # longest stretch without a chance to reschedule: 10 ms of one a ns
OTHERS = 1.10       # release beside mappings that have nothing to do with it
RAM = 1.01          # ordinary memory, to stock
SAME = 1.01         # "no slower": what the counting itself is good for

VARIANTS = ("stock", "patched")

# What is not in instructions
UNITS = {"bytes": "bytes", "page_tables_kb": "KiB", "ram_runs": "runs", "syncs": "calls"}


def read(directory, runs):
    """{(bench, kind, x): {variant: [value of each run]}}"""
    figures = {}
    for variant in VARIANTS:
        for run in range(1, runs + 1):
            name = os.path.join(directory, f"{variant}-{run}.tsv")
            with open(name, encoding="ascii") as lines:
                for line in lines:
                    key, value = line.rstrip("\n").split("\t")
                    bench, kind, x = key.split(".")
                    row = figures.setdefault((bench, kind, int(x)), {})
                    row.setdefault(variant, []).append(int(value))
    return figures


def bytes_text(x):
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if x >= 1 << shift:
            return f"{x >> shift} {unit}"
    return f"{x} B"


def ratio(a, b):
    if a is None or not b:
        return "-"
    r = a / b
    return f"{r:.3f}" if r < 10 else f"{r:.1f}" if r < 1000 else f"{r:.0f}"


def number(x):
    return "-" if x is None else f"{x:,}"


class Report:
    def __init__(self, figures):
        self.figures = figures
        self.met = 0
        self.missed = []
        self.judged = []

    def get(self, variant, bench, kind, x):
        values = self.figures.get((bench, kind, x), {}).get(variant)
        return min(values) if values else None

    def xs(self, bench, kind):
        return sorted(x for b, k, x in self.figures if (b, k) == (bench, kind))

    def bar(self, what, value, limit):
        """Returns the mark for the line of the table"""
        self.judged.append(what)
        if value is None:
            self.missed.append(f"{what}: not measured")
            return "not measured"
        if value <= limit:
            self.met += 1
            return ""
        if isinstance(limit, float):
            self.missed.append(f"{what}: {value:.3f}, allowed {limit:.2f}")
        else:
            self.missed.append(f"{what}: {value:,.0f}, allowed {limit:,}")
        return "MISSED"

    def head(self, title, *columns):
        print()
        print(title)
        print("  " + "".join(f"{c:>17}" for c in columns).rstrip())

    def line(self, *cells):
        print("  " + "".join(f"{c:>17}" for c in cells).rstrip())


def less(a, b):
    return None if a is None or b is None else a - b


def div(a, b):
    return None if a is None or not b else a / b


def table_map(r):
    for bench, call in (("map", "MAP_DMA"), ("unmap", "UNMAP_DMA")):
        for kind, what in (
            ("aligned", "all aligned to 1 GiB"),
            ("vaddr", "mmap 4 KiB off, IOVA and BAR aligned"),
            ("iova", "IOVA 4 KiB off, mmap and BAR aligned"),
            ("offset", "from 4 KiB into the BAR on"),
            ("page", "one page"),
        ):
            r.head(f"{call} of a BAR, {what}; the floor is the bare call",
                   "size", "stock", "patched", "floor", "stock/floor", "patched/floor",
                   "patched - floor")
            for x in r.xs(bench, kind):
                stock = r.get("stock", bench, kind, x)
                patched = r.get("patched", bench, kind, x)
                floor = r.get("patched", bench + "_floor", kind, x)
                mark = r.bar(f"{call}, {kind}, {bytes_text(x)}, beyond the floor",
                             less(patched, floor), CALL)
                r.line(bytes_text(x), number(stock), number(patched), number(floor),
                       ratio(stock, floor), ratio(patched, floor),
                       number(less(patched, floor)), mark)


def table_dmabuf(r):
    for bench, call in (("map", "IOMMU_IOAS_MAP_FILE"), ("unmap", "IOMMU_IOAS_UNMAP")):
        for kind, what in (("aligned", "all aligned to 1 GiB"), ("iova", "IOVA 4 KiB off")):
            if not r.xs("dmabuf_" + bench, kind):
                continue
            r.head(f"{call} of a BAR's dma-buf by iommufd, {what}",
                   "size", "stock", "patched", "floor", "patched - floor", "type1 - floor")
            for x in r.xs("dmabuf_" + bench, kind):
                patched = r.get("patched", "dmabuf_" + bench, kind, x)
                floor = r.get("patched", bench + "_floor", kind, x)
                type1 = r.get("patched", bench, kind, x)
                r.line(bytes_text(x), number(r.get("stock", "dmabuf_" + bench, kind, x)),
                       number(patched), number(floor), number(less(patched, floor)),
                       number(less(type1, floor)))


def table_stretch(r):
    """A range is unmapped by one call; it is mapped by a page table at most at a time"""
    r.head("The longest stretch without a chance to reschedule: UNMAP_DMA of the largest range",
           "case", "size", "patched", "floor")
    for kind in ("aligned", "vaddr", "iova", "offset"):
        xs = r.xs("unmap", kind)
        if not xs:
            continue
        x = max(xs)
        patched = r.get("patched", "unmap", kind, x)
        mark = r.bar(f"longest stretch, {kind}, {bytes_text(x)}", patched, STRETCH)
        r.line(kind, bytes_text(x), number(patched),
               number(r.get("patched", "unmap_floor", kind, x)), mark)


def table_away(r):
    for bench, floor_of, what in (
        ("suspend", "unmap", "Memory disabled, N ranges mapped; less what that costs with none"),
        ("resume", "map", "Memory enabled, N ranges to map; less what that costs with none"),
    ):
        r.head(what, "N", "stock", "patched", "floor", "patched - floor", "of that each")
        empty = {v: r.get(v, bench, "ranges", 0) for v in VARIANTS}
        r.line(0, number(empty["stock"]), number(empty["patched"]))
        for x in r.xs(bench, "ranges"):
            if not x:
                continue
            stock = less(r.get("stock", bench, "ranges", x), empty["stock"])
            patched = less(r.get("patched", bench, "ranges", x), empty["patched"])
            floor = r.get("patched", floor_of + "_floor", "ranges", x)
            more = less(patched, floor)
            mark = r.bar(f"{bench} of {number(x)} ranges, beyond the floor", more,
                         CALL + RANGE * x)
            r.line(number(x), number(stock), number(patched), number(floor), number(more),
                   "-" if more is None else number(more // x), mark)


def table_syncs(r):
    r.head("Calls of iommu_iotlb_sync(), of one domain", "ranges", "suspend", "resume", "release")
    # The function tracer has to know the function; nobody knows of other IOMMUs
    for x in r.xs("syncs", "release") or (0,):
        cells, marks = [], []
        for kind in ("suspend", "resume", "release"):
            value = r.get("patched", "syncs", kind, x)
            cells.append(number(value))
            marks.append(r.bar(f"iommu_iotlb_sync(), {kind} of {number(x)}", value, SYNCS))
        r.line(number(x), *cells, " ".join(m for m in marks if m))


def table_page_tables(r):
    r.head("CPU page tables that MAP_DMA makes, KiB", "size", "stock", "patched")
    for x in r.xs("page_tables_kb", "aligned"):
        most = 0
        for kind in ("aligned", "vaddr", "iova", "offset"):
            most = max(most, r.get("patched", "page_tables_kb", kind, x) or 0)
        mark = r.bar(f"page tables, {bytes_text(x)}", most, 0)
        r.line(bytes_text(x), number(r.get("stock", "page_tables_kb", "aligned", x)),
               number(most), mark)


def table_vmas(r):
    for bench, call in (("map", "MAP_DMA"), ("unmap", "UNMAP_DMA")):
        r.head(f"{call} of one mapping over many vmas, a page each",
               "vmas", "stock", "patched", "patched/stock", "patched/vma")
        for x in r.xs(bench, "vmas"):
            patched = r.get("patched", bench, "vmas", x)
            stock = r.get("stock", bench, "vmas", x)
            r.line(x, number(stock), number(patched), ratio(patched, stock),
                   number(patched // x))


def table_release(r):
    r.head("Close of a device, N mappings of it; less what a close costs without any",
           "N", "patched", "each", "UNMAP_DMA each", "floor", "patched - floor", "of that each")
    empty = r.get("patched", "release", "close", 0)
    r.line(0, number(empty))
    for x in r.xs("release", "close"):
        if not x:
            continue
        release = less(r.get("patched", "release", "close", x), empty)
        unmap = r.get("patched", "unmap", "each", x)
        floor = r.get("patched", "unmap_floor", "ranges", x)
        more = less(release, floor)
        mark = ""
        if floor is not None:
            mark = r.bar(f"release of {number(x)} ranges, beyond the floor", more,
                         CALL + RANGE * x)
        r.line(number(x), number(release), number(release // x), number(unmap // x),
               number(floor), number(more), "-" if more is None else number(more // x), mark)
    r.head("Close of a device, 100 mappings of it, others of RAM in the container",
           "others", "patched", "to none")
    none = r.get("patched", "release", "others", 0)
    for x in r.xs("release", "others"):
        value = r.get("patched", "release", "others", x)
        mark = r.bar(f"release beside {x} others", div(value, none), OTHERS) if x else ""
        r.line(number(x), number(value), ratio(value, none), mark)


def table_to_stock(r, title, bench, kind, xname, text, limit, judged=lambda x: True):
    r.head(title, xname, "stock", "patched", "patched/stock")
    for x in r.xs(bench, kind):
        stock = r.get("stock", bench, kind, x)
        patched = r.get("patched", bench, kind, x)
        mark = ""
        if judged(x):
            mark = r.bar(f"{title}, {text(x)}, to stock", div(patched, stock), limit)
        r.line(text(x), number(stock), number(patched), ratio(patched, stock), mark)


def tables(r):
    table_map(r)
    print(f"\nA call to the container that does nothing: {number(r.get('patched', 'ioctl', 'none', 1))}")
    table_stretch(r)
    table_dmabuf(r)
    table_page_tables(r)
    table_vmas(r)
    table_release(r)
    table_away(r)
    table_syncs(r)
    table_to_stock(r, "Memory disabled, 64 processes", "disable", "vmas", "vmas", number, SAME,
                   lambda x: x == 4096)
    for bench, call in (("ram_map", "MAP_DMA"), ("ram_unmap", "UNMAP_DMA")):
        for kind, what in (("page", "one page"), ("huge", "huge pages"),
                           ("small", "the same mapped by small ones"),
                           ("scattered", "pages that never adjoin")):
            table_to_stock(r, f"{call} of RAM, {what}", bench, kind, "size", bytes_text, RAM,
                           lambda x, bench=bench: bench == "ram_map")
    for kind, what in (("first", "the first page of a vma"),
                       ("sparse", "a page in each 2 MiB"), ("all", "all pages")):
        table_to_stock(r, f"CPU faults, {what}", "fault", kind, "vma", bytes_text, SAME)
    # On one processor: what they cost in all, not how long they wait for each other
    table_to_stock(r, "CPU faults, threads that share 64 MiB", "fault", "threads", "threads",
                   number, SAME)
    table_to_stock(r, "CPU faults, threads on the same 2 MiB", "fault", "same", "threads",
                   number, SAME)
    r.head("Kernel memory, bytes (without the IOMMU's page tables)", "", "stock", "patched")
    for kind, count, what in (("bind", 1, "device bound"), ("open", 1, "and opened"),
                              ("first", 1, "first mapping"), ("mappings", 1000, "each more"),
                              ("ram_mappings", 1000, "each of RAM")):
        cells = []
        for variant in VARIANTS:
            value = r.get(variant, "bytes", kind, count)
            cells.append("-" if value is None else f"{value / count:,.0f}")
        r.line(what, *cells)


def stability(r, runs):
    """How far apart the runs of one kernel were"""
    spread = []
    for key, row in r.figures.items():
        for variant, values in row.items():
            if len(values) > 1 and min(values) and key[0] not in UNITS:
                spread.append((max(values) / min(values) - 1, variant, ".".join(map(str, key))))
    if not spread:
        return
    spread.sort()
    same = sum(1 for s in spread if s[0] == 0)
    print(f"\n{len(spread)} figures, {runs} runs: {same} are the same to the instruction; "
          f"half differ by at most {spread[len(spread) // 2][0]:.4%}, "
          f"95% by {spread[len(spread) * 95 // 100][0]:.3%}.  The farthest apart:")
    for value, variant, name in reversed(spread[-5:]):
        print(f"  {value:.3%}  {name} on {variant}")


#
# Diagrams: both axes logarithmic
#
COLORS = {"stock": "#c0392b", "patched": "#1f6fb4", "bare IOMMU call": "#555555",
          "close": "#1f6fb4", "UNMAP_DMA of each": "#e08e0b"}


def power(value):
    """10^n as SVG text"""
    n = round(math.log10(value))
    return f'10<tspan dy="-5" font-size="9">{n}</tspan>' if n else "1"


def x_ticks(values, is_bytes):
    ticks = sorted(set(values))
    if is_bytes:
        return [(x, bytes_text(x)) for x in ticks]
    return [(x, f"{x:,}") for x in ticks]


class Diagram:
    WIDTH, HEIGHT = 640, 400
    LEFT, RIGHT, TOP, BOTTOM = 70, 30, 44, 78

    def __init__(self, title, xlabel, is_bytes=False, ylabel="instructions"):
        self.title, self.xlabel, self.ylabel = title, xlabel, ylabel
        self.is_bytes = is_bytes
        self.series = []

    def add(self, name, points):
        points = [(x, y) for x, y in points if x and y and y > 0]
        if points:
            self.series.append((name, points))

    def write(self, path):
        xs = [x for _, points in self.series for x, _ in points]
        ys = [y for _, points in self.series for _, y in points]
        if not xs:
            return
        x0, x1 = math.log(min(xs)), math.log(max(xs))
        x1 = max(x1, x0 + 1)
        y0, y1 = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
        y1 = max(y1, y0 + 1)
        w = self.WIDTH - self.LEFT - self.RIGHT
        h = self.HEIGHT - self.TOP - self.BOTTOM

        def px(x):
            return self.LEFT + w * (math.log(x) - x0) / (x1 - x0)

        def py(y):
            return self.TOP + h * (y1 - math.log10(y)) / (y1 - y0)

        out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.WIDTH} {self.HEIGHT}" '
               f'width="{self.WIDTH}" height="{self.HEIGHT}" font-family="sans-serif" font-size="12">',
               f'<title>{self.title}</title>',
               '<rect width="100%" height="100%" fill="white"/>',
               f'<text x="{self.LEFT}" y="20" font-size="14" font-weight="bold">{self.title}</text>']
        for n in range(y0, y1 + 1):
            y = py(10 ** n)
            out.append(f'<line x1="{self.LEFT}" x2="{self.LEFT + w}" y1="{y:.1f}" y2="{y:.1f}" '
                       'stroke="#ddd"/>')
            out.append(f'<text x="{self.LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
                       f'{power(10 ** n)}</text>')
        room = math.inf
        for x, label in reversed(x_ticks(xs, self.is_bytes)):
            out.append(f'<line x1="{px(x):.1f}" x2="{px(x):.1f}" y1="{self.TOP}" '
                       f'y2="{self.TOP + h}" stroke="#eee"/>')
            half = 3.2 * len(label)
            if px(x) + half > room:
                continue
            room = px(x) - half
            out.append(f'<text x="{px(x):.1f}" y="{self.TOP + h + 16}" text-anchor="middle" '
                       f'font-size="10">{label}</text>')
        out.append(f'<rect x="{self.LEFT}" y="{self.TOP}" width="{w}" height="{h}" fill="none" '
                   'stroke="#888"/>')
        out.append(f'<text x="{self.LEFT + w / 2}" y="{self.TOP + h + 36}" '
                   f'text-anchor="middle">{self.xlabel} (logarithmic)</text>')
        out.append(f'<text transform="translate(16 {self.TOP + h / 2}) rotate(-90)" '
                   f'text-anchor="middle">{self.ylabel} (logarithmic)</text>')
        legend = self.LEFT
        for name, points in self.series:
            color = COLORS.get(name.split(",")[0], "#000")
            dash = ' stroke-dasharray="5 3"' if "," in name or name.startswith("bare") else ""
            path_text = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in points)
            out.append(f'<polyline points="{path_text}" fill="none" stroke="{color}" '
                       f'stroke-width="2"{dash}/>')
            for x, y in points:
                out.append(f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.5" fill="{color}"/>')
            y = self.HEIGHT - 14
            out.append(f'<line x1="{legend}" x2="{legend + 24}" y1="{y - 4}" y2="{y - 4}" '
                       f'stroke="{color}" stroke-width="2"{dash}/>')
            out.append(f'<text x="{legend + 30}" y="{y}">{name}</text>')
            legend += 50 + 7 * len(name)
        out.append("</svg>")
        with open(path, "w", encoding="utf-8") as svg:
            svg.write("\n".join(out) + "\n")


def diagrams(r, version, directory):
    def points(variant, bench, kind, less=0):
        return [(x, (r.get(variant, bench, kind, x) or 0) - less) for x in r.xs(bench, kind)]

    def draw(name, diagram, *series):
        for label, data in series:
            diagram.add(label, data)
        diagram.write(os.path.join(directory, name + ".svg"))

    for bench, call in (("map", "MAP_DMA"), ("unmap", "UNMAP_DMA")):
        for kind, what in (("aligned", "aligned"), ("iova", "IOVA 4 KiB off")):
            draw(f"{bench}-{kind}",
                 Diagram(f"{call} of a BAR, {what}, Linux {version}", "size of the range", True),
                 *[(v, points(v, bench, kind)) for v in VARIANTS],
                 ("bare IOMMU call", points("patched", bench + "_floor", kind)))
        draw(f"{bench}-vmas",
             Diagram(f"{call} over many vmas of a BAR, Linux {version}", "vmas, a page each"),
             *[(v, points(v, bench, "vmas")) for v in VARIANTS])
    draw("release", Diagram(f"Mappings removed, patched Linux {version}", "mappings, a page each"),
         ("close", points("patched", "release", "close",
                          r.get("patched", "release", "close", 0) or 0)),
         ("UNMAP_DMA of each", points("patched", "unmap", "each")),
         ("bare IOMMU call", points("patched", "unmap_floor", "ranges")))
    for bench, floor, what in (("suspend", "unmap", "disabled"), ("resume", "map", "enabled")):
        draw(bench, Diagram(f"Memory {what} with mappings, Linux {version}",
                            "mappings, a page each"),
             *[(v, points(v, bench, "ranges", r.get(v, bench, "ranges", 0) or 0))
               for v in VARIANTS],
             ("bare IOMMU call", points("patched", floor + "_floor", "ranges")))
    draw("disable", Diagram(f"Memory of a BAR disabled, Linux {version}",
                            "vmas, in up to 64 processes"),
         *[(v, points(v, "disable", "vmas")) for v in VARIANTS])
    for kind, what in (("first", "first page"), ("all", "all pages")):
        draw(f"fault-{kind}", Diagram(f"CPU faults, {what} touched, Linux {version}",
                                      "size of the vma", True),
             *[(v, points(v, "fault", kind)) for v in VARIANTS])
    draw("fault-threads", Diagram(f"CPU faults of threads that share 64 MiB, Linux {version}",
                                  "threads"),
         *[(v, points(v, "fault", "threads")) for v in VARIANTS])


def known_misses():
    """What begins with which words, whether it is so at times only, and why"""
    known = {}
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench.known")
    with open(path, encoding="ascii") as lines:
        for line in lines:
            begin, bar, why = (part.strip() for part in line.partition("|"))
            if line.startswith("#") or not line.strip():
                continue
            if not bar or not why:
                sys.exit(f"lab/bench.known: not 'what begins with | why': {line.strip()}")
            known[begin.lstrip("~ ")] = (begin.startswith("~"), why)
    return known


def main():
    version, runs, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    r = Report(read(directory, runs))
    with open(os.path.join(directory, "figures.csv"), "w", encoding="ascii", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["linux", "kernel", "benchmark", "case", "x", "unit", "run", "value"])
        for (bench, kind, x), row in sorted(r.figures.items()):
            unit = UNITS.get(bench, "instructions")
            for variant in VARIANTS:
                for run, value in enumerate(row.get(variant, []), 1):
                    writer.writerow([version, variant, bench, kind, x, unit, run, value])
    print(f"Linux {version}: instructions, if nothing else is said")
    tables(r)
    stability(r, runs)
    diagrams(r, version, directory)
    print()
    print(f"{r.met} goals and bars met, {len(r.missed)} missed" + (":" if r.missed else ""))
    known, wrong, hit = known_misses(), 0, set()
    for what in r.missed:
        why = [begin for begin in known if what.startswith(begin)]
        wrong += not why
        hit.update(why)
        print(f"  {what}" + (" (known)" if why else ""))
    for begin in sorted(hit):
        print(f"  known: {begin} {known[begin][1]}")
    for begin, (sometimes, _) in known.items():
        if not sometimes and begin not in hit and any(w.startswith(begin) for w in r.judged):
            wrong += 1
            print(f"  {begin} ... is met; take it out of lab/bench.known")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
