"""A picture of the modules and of what each imports, read from the code when the site is built."""

import ast
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve

PACKAGE = Path(__file__).parents[2] / "skvae"


def imports():
    """Return, for each module and each package in skvae, the others that it imports."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        names = found.setdefault(path.relative_to(PACKAGE).parts[0], set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "skvae":
                parts = node.module.split(".")[1:]
                names |= {parts[0]} if parts else {alias.name for alias in node.names}
    rooms = {part.removesuffix(".py"): part for part in found}
    return {part: {rooms[name] for name in names & set(rooms)} - {part} for part, names in found.items()}


def sort(graph):
    """Return the modules in an order in which each stands below all that it imports."""
    ordered = []
    while len(ordered) < len(graph):
        ready = [name for name in graph if name not in ordered and graph[name] <= set(ordered)]
        if not ready:
            raise ValueError(f"The imports of {sorted(set(graph) - set(ordered))} go round in a circle.")
        ordered += ready
    return ordered


def draw(path):
    """Draw the modules one below the other, and an arc from each to those that it imports."""
    graph = imports()
    height = {name: -row for row, name in enumerate(sort(graph))}
    figure, ax = plt.subplots(figsize=(6.5, 0.36 * len(graph)), layout="constrained")
    for color, (name, below) in enumerate((name, graph[name]) for name in height):
        bold = "normal" if name.startswith("_") else "bold"
        label = name if name.endswith(".py") else f"{name}/"
        ax.text(-0.1, height[name], label, ha="right", va="center", family="monospace", weight=bold)
        for other in below:
            start, end = (0, height[name]), (0, height[other])
            reach = 0.3 + 0.5 * (end[1] - start[1])
            curve = Curve(
                [start, (reach, start[1]), (reach, end[1]), end],
                [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4],
            )
            ax.add_patch(PathPatch(curve, fill=False, edgecolor=f"C{color % 10}", linewidth=1.2))
    ax.plot([0] * len(graph), list(height.values()), "o", color="black", markersize=4)
    ax.set(xlim=(-3.2, 0.4 * len(graph)), ylim=(-len(graph) + 0.3, 0.7))
    ax.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def setup(app):
    """Draw the picture before pages are read."""
    app.connect("builder-inited", lambda app: draw(Path(app.srcdir) / "generated" / "rooms.png"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
