"""pfnmap: an executable model of Linux huge pfnmaps. What stands here is what a plugin may use."""

from pfnmap.arch import Arch, Entry, Geometry, Has, Level, MmuCpu, WalkLevel, WordFormat
from pfnmap.driver import Action, Device, DeviceBar, Driver, Module, ScenarioRun, VmOperations
from pfnmap.errors import BadInput, LinkError, PfnmapError, PluginError, Refused, Unknown, Unwritten
from pfnmap.hookspecs import hookimpl
from pfnmap.mm.vma import File, MmStruct, VmArea, VmFault
from pfnmap.trace import Call, Event, Message

__all__ = [
    "Action",
    "Arch",
    "BadInput",
    "Call",
    "Device",
    "DeviceBar",
    "Driver",
    "Entry",
    "Event",
    "File",
    "Geometry",
    "Has",
    "Level",
    "LinkError",
    "Message",
    "MmStruct",
    "MmuCpu",
    "Module",
    "PfnmapError",
    "PluginError",
    "Refused",
    "ScenarioRun",
    "Unknown",
    "Unwritten",
    "VmArea",
    "VmFault",
    "VmOperations",
    "WalkLevel",
    "WordFormat",
    "hookimpl",
]
