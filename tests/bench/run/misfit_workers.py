"""A method for workers that dies as it is told; a file of an installed package, as far as a worker can see."""

import os
import signal
import time
from pathlib import Path

from bench.contract import Facts, Method, register_method
from bench.operators.bicubic import enlarge


@register_method("mortal")
class Mortal(Method):
    """Bicubic plus noise. At one image it kills its process: always, or only the first time."""

    facts = Facts(title="Mortal")

    def __init__(self, always: str = "", once: str = "", marker: str = "", seconds: float = 0.0, threads: int = 0):
        self.always, self.once, self.marker, self.seconds = always, once, marker, seconds

    def draw(self, y, n, tau, noise):
        if self.always in noise.ids:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.once in noise.ids and not Path(self.marker).exists():
            Path(self.marker).touch()
            os._exit(7)
        if "broken" in self.marker:
            raise ZeroDivisionError("oops")
        time.sleep(self.seconds * len(y) * n)
        x = enlarge(y, self.operator.size)[:, None] + 0.1 * tau * noise.normal(3, *self.operator.size)
        return x.clamp(0, 1)
