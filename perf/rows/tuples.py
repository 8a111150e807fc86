"""5-tuples as ports of type synth make them (vswitch/synth_flows.h), and the
OpenFlow rules that match them.

A tuple is a number of 96 bits: source and destination address, source and
destination port.  A shape divides the bits: 'base' are fixed, 'id' tell its
rules apart, 'any' tell the flows of one rule apart.
"""
import ipaddress
from dataclasses import dataclass

ALL = (1 << 96) - 1


def tuple96(src=0, dst=0, sport=0, dport=0):
    return src << 64 | dst << 32 | sport << 16 | dport


def low(bits):
    return (1 << bits) - 1


def deposit(n, mask):
    """Puts n's bits, lowest first, where 'mask' has ones."""
    out = 0
    while mask and n:
        lowest = mask & -mask
        out |= lowest if n & 1 else 0
        mask ^= lowest
        n >>= 1
    return out


@dataclass
class Shape:
    base: int
    id: int = 0
    any: int = 0

    def option(self):
        return f"{self.base:024x}/{self.id:024x}/{self.any:024x}"

    def match(self, rule):
        """OpenFlow match of a rule, without protocol."""
        value, mask = self.base | deposit(rule, self.id), ALL & ~self.any
        fields = []
        for name, shift in (("nw_src", 64), ("nw_dst", 32)):
            m = mask >> shift & low(32)
            if m:
                fields.append(f"{name}={ipaddress.IPv4Address(value >> shift & low(32))}"
                              f"/{ipaddress.IPv4Address(m)}")
        for name, shift in (("tp_src", 16), ("tp_dst", 0)):
            m = mask >> shift & low(16)
            if m:
                fields.append(f"{name}={value >> shift & low(16):#x}/{m:#x}")
        return ",".join(fields)


def options(shapes, rules=1):
    return ["shapes=" + "+".join(s.option() for s in shapes), f"rules={rules}"]


def access_list(shapes, rules, match, actions):
    """OpenFlow rules that let each shape's flows pass, the coarser shape
    first: a megaflow then is as wide as its rule."""
    return [f"priority={1000 - i},{match},{s.match(k)},actions={actions}"
            for i, s in enumerate(shapes) for k in range(rules)]


# 10 shapes: sources /12 to /21, destinations /16 to /25, source ports from
# any to 128 of them, one destination port.
TEN_SHAPES = [Shape(tuple96((10 + s) << 24, 172 << 24, 0, 80), tuple96(dst=0x7f << 16),
                    tuple96(low(20 - s), low(16 - s), low(16 - s)))
              for s in range(10)]

# 64 shapes: 8 prefix lengths of the source times 8 of the source port.
SIXTY_FOUR_SHAPES = [Shape(tuple96((10 + 8 * i + j) << 24, 172 << 24, 0, 80),
                           tuple96(dst=0xf << 20), tuple96(low(20 - i), low(20), low(16 - j)))
                     for i in range(8) for j in range(8)]

# 16 5-tuples, all of them matched.
WHOLE = Shape(tuple96(9 << 24 | 1, 172 << 24, 1000, 80), tuple96(dst=0xf))
