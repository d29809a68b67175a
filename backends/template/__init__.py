"""A backend to clone: complete in form, empty of hardware. README.md beside this file says what to do, in order.

It loads, lists a device, allocates, and gets through planning; the first piece of work that it should build ends in
``DeviceError: template: not implemented: map``.
"""

from __future__ import annotations

from omniop.backends.base import Backend, Device
from omniop.backends.template.device import TemplateDevice


class TemplateBackend(Backend):
    """``name`` is the entry point's name, and the first part of every device's: "template:0"."""

    name = "template"

    def devices(self) -> list[Device]:
        """Ask the driver what is there. Raise DeviceError, with a reason that a user can act on, if it cannot run."""
        return [TemplateDevice("template")]


BACKEND = TemplateBackend()
