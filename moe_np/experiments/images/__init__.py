"""Images: handwritten digits, upright and rotated, classified, and drawn pixel by pixel."""

from moe_np.experiments.images.experiment import OPTIONS, SMOKE, run, specs
from moe_np.experiments.images.report import report
from moe_np.experiments.images.runs import PAPER, SYSTEMS, Config, run_one, summarise

SUMMARY = "images: digits, rotated digits and digits drawn pixel by pixel, dense beside mixture"
