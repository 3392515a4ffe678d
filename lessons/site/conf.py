"""Sphinx's settings for the pages that `python3 run.py site` builds. Nothing is asked from outside,
also when read.
"""

import importlib.metadata
import pathlib

project, author, copyright = "moe_np", "The moe_np authors", "The moe_np authors"
extensions = ["myst_nb", "sphinx.ext.viewcode"]
exclude_patterns = ["jupyter_execute", ".jupyter_cache", "out"]
suppress_warnings = ["myst.header"]  # a lesson's headings may skip a level

nb_execution_mode = "cache"
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "moe_np"
html_static_path = ["_static"]
html_css_files = ["site.css"]
smartquotes = False
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
mathjax_path = "tex-svg-full.js"  # one file without fonts, from the package sphinx-mathjax-offline
mathjax3_config = {
    "tex": {"inlineMath": [["$", "$"], ["\\(", "\\)"]]}
}  # $: in the states that lessons print
pygments_style, pygments_dark_style = "friendly", "monokai"


def mathjax():
    """Where pip put MathJax."""
    found = (
        f
        for f in importlib.metadata.files("sphinx-mathjax-offline") or ()
        if f.name == mathjax_path
    )
    return pathlib.Path(next(found).locate())
