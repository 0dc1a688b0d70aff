"""Settings of the documentation; CONTRIBUTING.md has the command that builds it."""

import os
import sys
import warnings
from importlib.metadata import version as version_of
from pathlib import Path

import matplotlib
import torch

matplotlib.use("Agg")

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "skvae"
author = "The skvae developers"
copyright = author
release = version = version_of("skvae")

extensions = [
    "mathml",
    "myst_parser",
    "numpydoc",
    "rooms",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "generated/*.png", "**/GALLERY_HEADER.rst"]
templates_path = ["_templates"]
default_role = "code"
nitpicky = True
# What numpydoc puts a link on, and what is documented elsewhere.
nitpick_ignore_regex = [("py:.*", r"(?!skvae).*")]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autosummary_context = {"of_torch": dir(torch.nn.Module)}
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# Links into other projects' pages need their inventories, and those the network.
if os.environ.get("SKVAE_DOCS_INTERSPHINX"):
    intersphinx_mapping = {
        "numpy": ("https://numpy.org/doc/stable", None),
        "python": ("https://docs.python.org/3", None),
        "sklearn": ("https://scikit-learn.org/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }

warnings.filterwarnings("error", category=DeprecationWarning, module="skvae")
sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "auto_examples",
    "within_subsection_order": "gallery_order.GalleryOrder",
    "doc_module": "skvae",
    "write_computation_times": False,  # its pages load scripts from elsewhere
    "backreferences_dir": "generated/backreferences",
    "image_scrapers": ("matplotlib",),
    "matplotlib_animations": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "abort_on_example_error": True,
    "copyfile_regex": r"(?!)",
}

html_theme = "pydata_sphinx_theme"
html_title = "skvae"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_sidebars = {"changelog": [], "contributing": []}
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
linkcheck_anchors = False
