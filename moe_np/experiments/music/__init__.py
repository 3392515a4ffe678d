"""Music: Bach's chorales read and continued by a decoder, dense beside mixture, and MIDI files."""

from moe_np.experiments.music.experiment import OPTIONS, SMOKE, run, specs
from moe_np.experiments.music.report import report
from moe_np.experiments.music.runs import PAPER, SYSTEMS, Config, run_one, summarise

SUMMARY = "music: Bach's chorales continued by a decoder, dense beside mixture, with MIDI files"
