"""The observed pass: what it is asked (`need`), how it runs (`run`, `watch`), what it leaves (`observation`).

On it stand reducers that several analyses share (`reducers`), activations kept for interventions (`recording`), numbers
of a run that studies measure (`metrics`) and many edited runs of one prompt (`sweeps`).
Read `need`, then `run`, then `watch`.
"""

from workbench.observation.memory import predict_bytes
from workbench.observation.need import Need, Site, keep
from workbench.observation.observation import Observation
from workbench.observation.run import observe

__all__ = ["Need", "Observation", "Site", "keep", "observe", "predict_bytes"]
