"""The results as Markdown tables and as a plot."""

import matplotlib.pyplot as plt


def table(header, rows):
    """Return a Markdown table."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def spread(quartiles, digits=2):
    """Return a median with its quartiles."""
    low, high = quartiles["quartiles"]
    return f"{quartiles['median']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def training(figures):
    """Return the tables of training, one for each model and size of batch."""
    parts = []
    for model, batch_size in dict.fromkeys((row["model"], row["batch_size"]) for row in figures):
        rows = [
            [
                row["contestant"],
                f"{row['images_per_second']['median']:,.0f}",
                spread(row["time_over_matrix_products"]),
                spread(row["time_over_skvae"]),
            ]
            for row in figures
            if (row["model"], row["batch_size"]) == (model, batch_size)
        ]
        header = ["", "images per second", "time over the matrix products", "time over skvae"]
        parts.append(f"### {model} VAE, batches of {batch_size}\n\n" + table(header, rows))
    return "\n".join(parts)


def defaults(figures):
    """Return the tables of the defaults."""
    steps = [[row["model"], row["batch_size"], spread(row["time_over_products"])] for row in figures["steps"]]
    stopping = [[row["data"], row["model"], spread(row["time_over_epoch"])] for row in figures["early stopping"]]
    scores = [
        [
            row["data"],
            row["model"],
            row["how"],
            f"{row['rows_per_second']['median']:,.0f}",
            spread(row["speed"]),
            *(f"{row[name]:.3f}" for name in ("mean_error", "root_mean_square_error", "largest_error")),
        ]
        for row in figures["scores"]
    ]
    errors = ["mean error, nats", "root mean square", "largest"]
    return (
        "An epoch of images of 28 x 28:\n\n"
        + table(["VAE", "batch", "time over the matrix products"], steps)
        + "\nAn epoch with early stopping, on a tenth of the rows, in batches of 128:\n\n"
        + table(["data", "VAE", "time over an epoch without"], stopping)
        + "\nELBOs of rows that were not trained on, beside the mean over 4,096 points:\n\n"
        + table(["data", "VAE", "decoded", "rows per second", "speed over that at all points", *errors], scores)
    )


def fitting(figures):
    """Return the table of whole fits."""
    rows = [[row["data"], row["model"], row["epochs"], f"{row['seconds']['median']:.2f}"] for row in figures["epochs"]]
    return table(["data", "model", "epochs", "seconds"], rows)


def start(figures):
    """Return the table of the start at a linear model."""
    rows = [
        [row["data"], row["model"], f"{row['seconds']['median']:.2f}", spread(row["time_over_epoch"])]
        for row in figures
    ]
    return table(["data", "VAE", "seconds", "time over an epoch"], rows)


def growth(figures):
    """Return the table of growth. What a row takes is compared with what it takes where its series begins."""
    rows, first = [], {}
    for row in figures:
        smallest = first.setdefault(row["varies"], row)
        seconds = [row[part] for part in ("start", "epoch", "end")]
        per_row, per_row_at_first = (one["epoch"] / one["n_rows"] for one in (row, smallest))
        growth_of_row = per_row / per_row_at_first
        rows.append(
            [
                f"`{row['varies']}`",
                f"{row['value']:,}",
                *(f"{value:.2f}" for value in seconds),
                f"{growth_of_row:.0f}" if growth_of_row >= 10 else f"{growth_of_row:.2g}",
                f"{row['megabytes']:.0f}",
                f"{row['megabytes_of_data']:.1f}",
            ]
        )
    header = ["varied", "value", "before the epoch, s", "an epoch, s", "after it, s", "an epoch, for a row"]
    header += ["peak memory beyond the data, MB", "the data, MB"]
    return (
        "A fit of one epoch of the normal VAE to float32 numbers of low rank with noise, on one thread: 10,000 rows of "
        "50 features, 10 components and batches of 128, but for what is varied. There are 1,000 rows where features "
        "vary, and 1,000 features where components do. What an epoch takes for a row is a multiple of the first line's."
        "\n\n" + table(header, rows)
    )


def inference(figures):
    """Return the tables of inference."""
    parts = []
    for model in dict.fromkeys(row["model"] for row in figures):
        many = [row for row in figures if row["model"] == model and row["rows"] > 1]
        one = {row["what"]: row for row in figures if row["model"] == model and row["rows"] == 1}
        names = dict.fromkeys([row["what"] for row in many] + list(one))
        large = {row["what"]: row for row in many}
        rows = [
            [
                name,
                f"{large[name]['rows_per_second']['median']:,.0f}" if name in large else "",
                spread(large[name]["time_over_products"])
                if name in large and large[name]["time_over_products"]
                else "",
                spread(one[name]["microseconds"], 0),
            ]
            for name in names
        ]
        header = ["", "rows per second", "time over the encoder's products", "one row, microseconds"]
        parts.append(f"### {model} VAE\n\n" + table(header, rows))
    return "\n".join(parts)


def memory(figures):
    """Return the table of memory."""
    rows = [
        [
            row["model"],
            row["data"],
            f"{row['rows']:,}",
            *(f"{row['megabytes'][name]:.0f}" for name in ("data", "fit", "transform", "output")),
        ]
        for row in figures
    ]
    header = [
        "model",
        "data",
        "rows",
        "the data, MB",
        "peak of fit, MB",
        "peak of transform, MB",
        "of which output, MB",
    ]
    return table(header, rows)


def loading(figures):
    """Return the tables of starting up."""
    imports = [[name, f"{seconds:.2f}"] for name, seconds in figures["import"].items()]
    models = [
        [row["model"], f"{row['megabytes']:.1f}", f"{1e3 * row['load']:.0f}", f"{1e3 * row['first transform']:.0f}"]
        for row in figures["models"]
    ]
    return (
        table(["import", "seconds"], imports)
        + "\n"
        + table(["model", "file, MB", "load, ms", "first transform of a row, ms"], models)
    )


def deployment(figures):
    """Return the tables of what has to be installed, of files and starts, and of speed."""
    packages = [
        [
            f"`{top}`",
            f"{sum(sizes.values()):.0f}",
            ", ".join(f"{k} {size:.0f}" for k, size in sizes.items() if size >= 10),
        ]
        for top, sizes in figures["packages"].items()
    ]
    sizes = [[row["model"], *(f"{size:.2f}" for size in row["megabytes"].values())] for row in figures["models"]]
    starts = [
        [row["model"], name, spread(times["seconds"]), spread(times["ratio"])]
        for row in figures["models"]
        for name, times in row["start"].items()
    ]
    speed = [
        [
            row["model"],
            f"`{entry['what']}`",
            f"{entry['rows']:,}",
            *(f"{entry['rows'] / entry['times'][name]['seconds']['median']:,.0f}" for name in ("torch", "onnxruntime")),
            spread(entry["times"]["onnxruntime"]["ratio"]),
        ]
        for row in figures["models"]
        for entry in row["speed"]
    ]
    return "\n".join(
        [
            ", ".join(f"{name} {version}" for name, version in figures["versions"].items()) + ".\n",
            table(["installed with all that it requires", "MB", "of which, from 10 MB on"], packages),
            table(["file", "joblib, MB", "ONNX, MB", "its decoder as ONNX, MB"], sizes),
            table(["a process that starts and classifies a row", "with", "seconds", "over torch's"], starts),
            table(
                ["", "", "rows at a time", "torch, rows per second", "onnxruntime", "time over torch's"],
                speed,
            ),
        ]
    )


def search(figures):
    """Return the table of the grid search."""
    rows = [[row["model"], f"{row['without cache']:.1f}", f"{row['with cache']:.1f}"] for row in figures]
    return table(["model", "without a cache, s", "with `Pipeline(memory=...)`, s"], rows)


def parts(figures):
    """Return the table of parts and the profiles."""
    rows = [[row["part"], row["contestant"], spread(row["microseconds"], 0)] for row in figures["parts"]]
    text = table(["part", "by", "microseconds"], rows)
    for row in figures["profiles"]:
        title = f"\n### Profile of an epoch: {row['model']} VAE, batches of 128, {row['contestant']}\n\n"
        shares = [[f"`{name}`", f"{share:.0%}"] for name, share in row["shares"].items()]
        text += title + table(["operation", "share of the time"], shares)
    return text


def gpu(figures):
    """Return the tables of a CUDA device."""
    names = list(dict.fromkeys(row["contestant"] for row in figures["epochs"]))
    epochs = []
    for network, batch_size in dict.fromkeys((row["network"], row["batch_size"]) for row in figures["epochs"]):
        rates = {
            row["contestant"]: f"{row['images_per_second']['median']:,.0f}"
            for row in figures["epochs"]
            if (row["network"], row["batch_size"]) == (network, batch_size)
        }
        epochs.append([network, batch_size, *(rates.get(name, "") for name in names)])
    fits = [
        [
            row["network"],
            row["what"],
            row["epochs"],
            f"{row['seconds']:.1f}",
            f"{row['megabytes']:.0f}",
        ]
        for row in figures["fits"]
    ]
    inference = [
        [
            row["network"],
            f"`{row['what']}`",
            f"{row['rows_per_second']['median']:,.0f}",
            f"{row['megabytes']:.0f}",
        ]
        for row in figures["inference"]
    ]
    memory = "peak memory of the device, MB"
    return (
        "Images per second in training:\n\n"
        + table(["VAE", "batch", *names], epochs)
        + "\nWhole fits of 60,000 images, in batches of 512 but where nothing is set:\n\n"
        + table(["VAE", "fit", "epochs", "seconds", memory], fits)
        + "\n"
        + table(["VAE", "method", "rows per second", memory], inference)
    )


SECTIONS = {
    "training": ("Training", training),
    "defaults": ("The defaults", defaults),
    "parts": ("Parts of a training step", parts),
    "fitting": ("Whole fits", fitting),
    "start": ("The start at a linear model, beside an epoch", start),
    "growth": ("Growth", growth),
    "inference": ("Inference", inference),
    "memory": ("Memory", memory),
    "loading": ("Starting up", loading),
    "deployment": ("A Pipeline of a VAE and logistic regression, as a joblib file and as an ONNX graph", deployment),
    "gpu": ("On a GPU", gpu),
    "search": ("A grid search over four classifiers and two splits", search),
}


# What the picture calls the contestants and the models.
SHORT = {
    "index-tensor loop": "plain loop",
    "DataLoader loop": "DataLoader",
    "index-tensor loop, bfloat16": "plain, bfloat16",
    "index-tensor loop, compiled": "plain, compiled",
    "continuous Bernoulli": "CB",
}


def plot(figures, path):
    """Draw images per second over those of the matrix products alone. It is made to be read at the width of a phone."""
    groups = list(dict.fromkeys((row["model"], row["batch_size"]) for row in figures))
    names = [name for name in dict.fromkeys(row["contestant"] for row in figures) if name != "matrix products"]
    figure, axes = plt.subplots(2, 2, figsize=(4.2, 4.6), sharex=True, sharey=True, layout="constrained")
    for ax, (model, batch_size) in zip(axes.flat, groups, strict=True):
        rows = {row["contestant"]: row for row in figures if (row["model"], row["batch_size"]) == (model, batch_size)}
        shares = [1 / rows[name]["time_over_matrix_products"]["median"] for name in names]
        colors = ["tab:blue" if name == "skvae" else "0.6" for name in names]
        ax.barh([SHORT.get(name, name) for name in names], shares, color=colors)
        ax.set_title(f"{SHORT.get(model, model)} VAE, {batch_size}", fontsize=10)
        ax.set(xlim=(0, 1))
        ax.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
        ax.tick_params(labelsize=10)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].invert_yaxis()
    figure.supxlabel("speed, as a share of the matrix products'", fontsize=10)
    figure.savefig(path, dpi=200)
    plt.close(figure)


def write(results, folder):
    """Write results/benchmarks.md and images/benchmarks.png."""
    text = "# Benchmarks\n\nWritten by `python examples/benchmarks`; see [performance](../performance.md).\n"
    for name, (title, render) in SECTIONS.items():
        if name in results:
            where = ", ".join(f"{key} {value}" for key, value in results[name]["machine"].items() if value is not None)
            text += f"\n## {title}\n\nMeasured on: {where}.\n\n" + render(results[name]["figures"])
    (folder / "results" / "benchmarks.md").write_text(text)
    if "training" in results:
        (folder / "images").mkdir(exist_ok=True)
        plot(results["training"]["figures"], folder / "images" / "benchmarks.png")
