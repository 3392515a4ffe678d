"""Sphinx's settings for the pages of `python3 run.py site`.

Nothing is fetched from outside, neither when they are built nor when they are read.
"""

import importlib.metadata
import pathlib

project, author, copyright = "moe_np", "The moe_np authors", "The moe_np authors"
extensions = ["myst_nb", "sphinx.ext.viewcode"]
suppress_warnings = ["myst.header"]  # a lesson's headings may skip a level

nb_execution_mode = "cache"
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3

viewcode_follow_imported_members = False  # it would import every module
python_use_unqualified_type_names = True  # a type links to its module and shows its own name
python_maximum_signature_line_length = 160  # modules of types counted
add_module_names = False

html_theme = "furo"
html_title = "moe_np"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
smartquotes = False
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
mathjax_path = "tex-svg-full.js"  # one file without fonts, from the package sphinx-mathjax-offline
# $: in the states that lessons print
mathjax3_config = {"tex": {"inlineMath": [["$", "$"], ["\\(", "\\)"]]}}
pygments_style, pygments_dark_style = "friendly", "monokai"


def mathjax() -> pathlib.Path:
    """The file of MathJax where pip has put it."""
    files = importlib.metadata.files("sphinx-mathjax-offline") or ()
    return pathlib.Path(next(file for file in files if file.name == mathjax_path).locate())


def setup(app):
    app.connect("env-before-read-docs", spread)
    app.connect("viewcode-find-source", source_of_module)
    app.connect("html-page-context", open_one_branch, priority=400)  # before the theme's own


def spread(app, env, names):
    """Mix the pages, so that each stretch of the list has some of the notebooks.

    Sphinx gives every process a stretch, and in the order of the alphabet all lessons are in one.
    """
    places = sorted(range(len(names)), key=lambda place: place * 0.618034 % 1)
    names[:] = [names[place] for place in places]


def source_of_module(app, module):
    """The text of a module and the lines of its definitions, without importing it."""
    from lessons.site import reference  # conf.py is run from a folder of its own

    return reference.source(module)


def open_one_branch(app, page, template, context, doctree):
    """Leave the modules of other topics out of the sidebar.

    The theme opens all branches: over 500 lines in every page, which take ten times as long to
    write as the page itself.
    """
    if "toctree" in context:
        tree = context["toctree"]
        context["toctree"] = lambda **options: tree(**{**options, "collapse": True})
