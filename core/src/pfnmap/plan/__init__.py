"""The closed-form planner: at which level each part of a mapped BAR is mapped, what that costs, and why not larger.

Works on intervals alone: its cost grows with the levels, not with pages (DESIGN rule 9). It shares nothing with
`pfnmap.mm`, which does the same bit by bit; property tests hold the two equal. What it must know of others it asks
through `pfnmap.contract`: a driver how it maps a region, a DMA backend what a map costs, a hypervisor what a guest
gets, an architecture which changes gate its levels, a VMM which areas go where.

Addresses, sizes, offsets and lengths are in bytes. The address space is taken to be otherwise empty.
"""

from pfnmap.contract.dma import DmaMap
from pfnmap.contract.guest import GuestPlan, GuestRun
from pfnmap.contract.plan import LeafLevel, Request, Run
from pfnmap.plan.advise import Advice, advise
from pfnmap.plan.ask import plan
from pfnmap.plan.costs import Costs
from pfnmap.plan.difference import Difference, difference
from pfnmap.plan.document import MappingPlan, Plan, Undetermined
from pfnmap.plan.policies import ALIGNED_BASE, POLICIES
from pfnmap.plan.reasons import REASONS, Blocked
from pfnmap.plan.space import MMAP_BASE

__all__ = [
    "ALIGNED_BASE",
    "MMAP_BASE",
    "POLICIES",
    "REASONS",
    "Advice",
    "Blocked",
    "Costs",
    "Difference",
    "DmaMap",
    "GuestPlan",
    "GuestRun",
    "LeafLevel",
    "MappingPlan",
    "Plan",
    "Request",
    "Run",
    "Undetermined",
    "advise",
    "difference",
    "plan",
]
