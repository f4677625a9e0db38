"""pfnmap: an executable model of Linux huge pfnmaps. What stands here is what a plugin may use."""

from pfnmap.contract.arch import Arch
from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.entry import Entry, Has, Level
from pfnmap.contract.geometry import Geometry, MmuCpu, WalkLevel, WordFormat
from pfnmap.contract.kernel import LinkedKernel, MachineState
from pfnmap.contract.machine import Machine, MmFunctions, PfnSpace
from pfnmap.contract.module import Driver, Module
from pfnmap.contract.recording import RecordingGroup
from pfnmap.contract.slot import Slot
from pfnmap.contract.step import Action, ScenarioRun
from pfnmap.contract.vma import File, FileOperations, MmStruct, VmArea, VmFault, VmOperations
from pfnmap.errors import BadInput, LinkError, PfnmapError, PluginError, Refused, Unknown, Unwritten
from pfnmap.hookspecs import hookimpl
from pfnmap.trace import Call, Event, Message, Misbehaviour, Outcome

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
    "FileOperations",
    "Geometry",
    "Has",
    "Level",
    "LinkError",
    "LinkedKernel",
    "Machine",
    "MachineState",
    "Message",
    "Misbehaviour",
    "MmFunctions",
    "MmStruct",
    "MmuCpu",
    "Module",
    "Outcome",
    "PfnSpace",
    "PfnmapError",
    "PluginError",
    "RecordingGroup",
    "Refused",
    "ScenarioRun",
    "Slot",
    "Unknown",
    "Unwritten",
    "VmArea",
    "VmFault",
    "VmOperations",
    "WalkLevel",
    "WordFormat",
    "hookimpl",
]
