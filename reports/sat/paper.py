"""What the SAT paper says, and where. Only its abstract was read.

C. Fang, W. Sun, A. Zhou, Z. Wang, "Efficient N:M Sparse DNN Training Using Algorithm, Architecture, and Dataflow Co-Design", IEEE TCAD
2024, DOI 10.1109/TCAD.2023.3317789, arXiv 2309.13015.
"""

from __future__ import annotations

PAPER = {
    "speedup": 1.75,  # abstract: mean speed-up of BDWP at 2:8 over dense training, both on SAT
    "loss": 0.56,  # abstract: mean loss of accuracy at 2:8 [points]
    "operations": 48.0,  # notes by readers of the full text, "reported": operations that BDWP saves [%]
}
