"""A picture of the files and of what each imports, read from the code when the site is built."""

import ast
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Curve

PACKAGE = Path(__file__).parents[2] / "skvae"

# In inches: where names of folders begin, where arcs end, and how far one line is from the next.
LEFT, RIGHT, LINE = -2.9, 4.2, 0.32


def imports(package=PACKAGE):
    """Return, for each file of the package, the files of the package that it imports, all as in ``_data/rows``."""
    paths = {path.relative_to(package).with_suffix("").as_posix(): path for path in sorted(package.rglob("*.py"))}
    graph = {}
    for room, path in paths.items():
        files = (file_of(name, package.name, paths) for name in imported_names(ast.parse(path.read_text())))
        graph[room] = {file for file in files if file is not None} - {room}
    # The __init__ of a private folder often has no part in it.
    used = set().union(*graph.values())
    return {room: graph[room] for room in graph if graph[room] or room in used or not room.endswith("/__init__")}


def imported_names(tree):
    """Yield the dotted name of every module and of every name of a module that is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def file_of(name, package, files):
    """Return the file that a dotted name comes from, or None where it is not of the package."""
    top, *parts = name.split(".")
    if top != package:
        return None
    # The name is a module, a folder, or something in one of them.
    for inner in (parts, parts[:-1]):
        for file in ("/".join(inner), "/".join([*inner, "__init__"])):
            if file in files:
                return file
    return None


def folder_of(room):
    """Return the folder of a file, which is empty for a file of the package itself."""
    return room.rpartition("/")[0]


def place(graph, placed, group):
    """Return what of a group can be placed now, in an order in which each stands below all that it imports."""
    run = []
    while ready := [room for room in group if room not in run and graph[room] <= {*placed, *run}]:
        run += ready
    return run


def sort(graph):
    """Return the files in an order in which each stands below all that it imports, folders in one piece if possible."""
    groups = {}
    for room in graph:
        groups.setdefault(folder_of(room) or room, []).append(room)  # a file of the package itself is its own group
    ordered = []
    while any(groups.values()):
        runs = {name: place(graph, ordered, group) for name, group in groups.items()}
        # The folder of which the least is left over comes next.
        left = {name: len(groups[name]) - len(run) for name, run in runs.items() if run}
        if not left:
            raise ValueError(f"The imports of {sorted(set(graph) - set(ordered))} go round in a circle.")
        chosen = min(left, key=left.get)
        ordered += runs[chosen]
        groups[chosen] = [room for room in groups[chosen] if room not in runs[chosen]]
    return ordered


def is_public(room):
    """Return whether neither the file nor its folder is private."""
    return not any(part.startswith("_") for part in room.removesuffix("__init__").split("/"))


def bands(ordered):
    """Yield the folder, the first and the last line of each band of files of one folder."""
    first = 0
    for line, room in enumerate(ordered):
        if line + 1 == len(ordered) or folder_of(ordered[line + 1]) != folder_of(room):
            if folder_of(room):
                yield folder_of(room), first, line
            first = line + 1


def arc(start, end, reach, color):
    """Return an arc between two lines."""
    points = [(0, start), (reach, start), (reach, end), (0, end)]
    codes = [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4]
    return PathPatch(Curve(points, codes), fill=False, edgecolor=color, linewidth=1.2)


def draw(path, package=PACKAGE):
    """Draw the files one below the other in bands of folders, and an arc from each to those that it imports."""
    graph = imports(package)
    ordered = sort(graph)
    figure, ax = plt.subplots(figsize=(RIGHT - LEFT, LINE * len(ordered)), layout="constrained")
    for folder, first, last in bands(ordered):
        ax.add_patch(Rectangle((LEFT, first - 0.46), RIGHT - LEFT, last - first + 0.92, color="0.93", linewidth=0))
        ax.text(LEFT + 0.08, first, f"{folder}/", va="center", family="monospace", color="0.35")
    for line, room in enumerate(ordered):
        weight = "bold" if is_public(room) else "normal"
        name = room.rpartition("/")[2]
        ax.text(-0.1, line, f"{name}.py", ha="right", va="center", family="monospace", weight=weight)
        for other in graph[room]:
            above = ordered.index(other)
            # The middle of such a curve reaches three quarters as far as its points.
            reach = 0.25 + (RIGHT / 0.75 - 0.4) * (line - above) / len(ordered)
            ax.add_patch(arc(line, above, reach, f"C{line % 10}"))
    ax.plot([0] * len(ordered), range(len(ordered)), "o", color="black", markersize=4)
    ax.set(xlim=(LEFT, RIGHT), ylim=(len(ordered) - 0.4, -0.6))
    ax.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def setup(app):
    """Draw the picture before pages are read."""
    app.connect("builder-inited", lambda app: draw(Path(app.srcdir) / "generated" / "rooms.png"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
