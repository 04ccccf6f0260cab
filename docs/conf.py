"""Settings of the documentation."""

import unitmass

project = "unitmass"
author = "The unitmass authors"
copyright = "2026, The unitmass authors"
version = release = unitmass.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

highlight_options = {"pycon": {"stripnl": True}}  # doctest wants an empty line before the fence, a page does not

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc tells the types; with them every overload would be a signature
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "ignore_pattern": r"^(?!plot_)",
    "abort_on_example_error": True,
    "show_memory": False,
    "remove_config_comments": True,
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
}

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_title = "unitmass"
html_sidebars = {page: [] for page in ("install", "cli", "benchmarks", "compare", "changelog")}  # they have no sections
html_theme_options = {
    "navbar_align": "left",
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
}
